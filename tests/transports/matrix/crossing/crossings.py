"""What crosses, and what is known to be lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from attrs import frozen

BEHAVIOURS: Final = (
    "list", "call", "error", "progress", "cancel", "question", "notification", "large result", "death",
)  # fmt: skip
NAMES: Final[Mapping[str, str]] = {
    "http": "Streamable HTTP", "http2": "HTTP/2", "sse": "legacy SSE", "websocket": "WebSocket", "stdio": "stdio",
    "embedded": "embedded",
}  # fmt: skip


@frozen
class End:
    """One side of a gateway."""

    transport: str
    era: str
    """`legacy`, `modern`, or `both`."""

    def __str__(self) -> str:
        return f"{self.transport}-{self.era}"

    @property
    def modern(self) -> bool:
        return self.era != "legacy"

    @property
    def title(self) -> str:
        """For people."""
        return f"{NAMES[self.transport]}, {self.era}"


def _ends(*transports: str) -> Iterator[End]:
    for transport in transports:
        if transport == "embedded":
            yield End(transport, "both")
            continue
        for era in ("legacy",) if transport == "sse" else ("legacy", "modern"):
            yield End(transport, era)


CLIENTS: Final = tuple(_ends("http", "http2", "sse", "websocket", "stdio"))
UPSTREAMS: Final = tuple(_ends("http", "http2", "sse", "websocket", "stdio", "embedded"))
ABSENT: Final = (
    "Legacy SSE is of 2024-11-05 and was given up with 2025-03-26: it has no modern clients and no modern servers.",
    "The embedded server is the gateway's own and speaks to each client in its era: nothing is ever translated there.",
)


@frozen
class Loss:
    """What cannot hold, and why."""

    behaviour: str
    clients: Sequence[End]
    upstreams: Sequence[End]
    why: str


LOSSES: Final = (
    Loss(
        "death", CLIENTS, [each for each in UPSTREAMS if each.transport == "embedded"],
        "the embedded server is a part of the gateway, and cannot die without it",
    ),
)  # fmt: skip


def lost(client: End, upstream: End) -> dict[str, str]:
    """Why, by behaviour, something does not hold between two ends."""
    return {each.behaviour: each.why for each in LOSSES if client in each.clients and upstream in each.upstreams}


def table() -> str:
    """The page of the documentation."""
    notes = list(dict.fromkeys(each.why for each in LOSSES))
    lines = [
        "# The matrix",
        "",
        "Every kind of client at every kind of upstream, in every pair of eras. Made by `make matrix`, which tries all",
        f"of it over real sockets and pipes (`tests/transports/matrix`); do not edit. {len(CLIENTS) * len(UPSTREAMS)} "
        f"crossings, each tried with {len(BEHAVIOURS)}",
        "behaviours:",
        "",
        *EXPLAINED,
        "",
        f"`{len(BEHAVIOURS)}` means that all of them hold. Fewer have a note that says which does not, and why.",
        "",
        "| client \\ upstream | " + " | ".join(each.title for each in UPSTREAMS) + " |",
        "| --- |" + " --- |" * len(UPSTREAMS),
    ]
    for client in CLIENTS:
        cells = []
        for upstream in UPSTREAMS:
            why = lost(client, upstream)
            marks = " ".join(f"({notes.index(each) + 1})" for each in why.values())
            cells.append(f"{len(BEHAVIOURS) - len(why)} {marks}".strip())
        lines.append(f"| {client.title} | " + " | ".join(cells) + " |")
    lines += ["", "What does not hold:", ""]
    for number, note in enumerate(notes, 1):
        what = next(each.behaviour for each in LOSSES if each.why == note)
        lines.append(f"{number}. *{what}*: {note}.")
    lines += ["", "What there is not:", "", *(f"* {each}" for each in ABSENT)]
    return "\n".join(lines) + "\n"


EXPLAINED: Final = (
    "* **list**: the tools of the upstream are listed;",
    "* **call**: a tool gets its arguments, and its result comes back;",
    "* **error**: a tool's failure is a result with `isError`, and an unknown tool the error -32602;",
    "* **progress**: two reports come in order, with the client's own token, before the result;",
    "* **cancel**: a client gives a running call up, as its era and transport have it, and the upstream hears of it in",
    "  the way of its own: a notice, or its stream is closed;",
    "* **question**: the upstream asks its user's name in the middle of a call, and gets the client's answer;",
    "* **notification**: a client that subscribed hears that a resource was updated, and that the tools have changed;",
    "* **large result**: 2 MiB arrive whole;",
    "* **death**: the upstream breaks off in the middle of a call, which is answered with an error; then the client is",
    "  served again, after a new handshake where it has a session.",
)

if __name__ == "__main__":
    print(table(), end="")
