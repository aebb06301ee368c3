"""
What becomes of each part of MCP where client and upstream are of different eras: what is translated, and what is lost.

`explain` and `doctor` tell the losses per upstream, docs/eras.md has all of it (a test compares). Facts are those of
2025-11-25 and 2026-07-28.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, final

from attrs import frozen

from sluiceway.pipeline.protocol.mcp import Era


@final
@frozen
class Row:
    """One part of the protocol, for clients of one era at upstreams of the other alone."""

    what: str
    """In the words of its specification."""
    becomes: str
    """How it is served; or what is missing, where it is lost."""
    lost: bool = False


def _lost(what: str, missing: str) -> Row:
    return Row(what, missing, lost=True)


TABLE: Final[dict[Era, tuple[Row, ...]]] = {
    Era.LEGACY: (
        Row("`initialize`", "answered from `server/discover`; the revision is the one the client asks for"),
        Row("requests", "sent with version, capabilities and `clientInfo` of the session in `_meta`"),
        Row("`ping`", "answered by the gateway"),
        Row("`logging/setLevel`", "kept per session, and sent as `logLevel` with each request"),
        Row("`resources/subscribe`, `unsubscribe`", "kept per session, and heard by one `subscriptions/listen`"),
        Row("`list_changed`", "heard by the same `subscriptions/listen`, opened again whenever it is lost"),
        Row("`input_required`", "asked on the stream of the call, then the request is sent again under a new id"),
        Row("an error of the client's to a question", "the answer to the call, for no upstream can be told of it"),
        Row("progress, log messages of a request", "relayed; progress that goes back in a later round is left out"),
        Row("tasks", "those of the extension `io.modelcontextprotocol/tasks`; an answer at once is one that is over"),
        Row("questions of a task", "asked of who waits in `tasks/result`, and answered by `tasks/update`"),
        Row("tools that answer with tasks only", "waited for, where the client asks for no task"),
        Row("`notifications/cancelled`", "ends the request as the upstream's transport says"),
        Row("resource not found (-32602)", "-32002"),
        Row("`ttlMs`, `cacheScope`", "left in results, where clients ignore them and the stage `cache` does not"),
        Row("methods, members and `_meta` that nobody knows", "passed on untouched"),
        _lost(
            "tasks",
            "belong to the session that created them, and tell of no progress; without the extension at the upstream "
            "the client is offered none, and `task` of a call is left out",
        ),
        _lost("output that is no object", "output schemas and `structuredContent` of other types are left out"),
        _lost("log messages before `logging/setLevel`", "none are sent: a level has to be asked for"),
        _lost(
            "log messages of no request",
            "there are none; where a connection carries several requests at once, what could be anybody's is left out",
        ),
        _lost("`notifications/roots/list_changed`", "goes nowhere: an upstream asks for roots when it needs them"),
        _lost("`notifications/elicitation/complete`", "never comes"),
        _lost("questions that no request caused", "there are none"),
        _lost("long results of calls, reads and prompts", "held whole, up to `max_message`, before they are passed on"),
        _lost(
            "`Last-Event-ID` towards the upstream",
            "a response that breaks off is lost; the client's own stream is kept",
        ),
    ),
    Era.MODERN: (
        Row("`server/discover`", "answered from the handshake of a session that the gateway holds for the caller"),
        Row("requests", "sent within that session, without what the handshake has said"),
        Row("results", "completed with `resultType`, `ttlMs: 0` and `cacheScope: private`"),
        Row("`logLevel`", "`logging/setLevel` of the held session; each request hears what it asked for"),
        Row("`subscriptions/listen`", "`resources/subscribe` and what comes on the session without a request"),
        Row(
            "questions in the middle of a call",
            "`input_required`: the call waits at the upstream, up to `park_timeout`",
        ),
        Row("-32042 (visit a page first)", "`input_required` with the pages, then the request is sent again"),
        Row("tasks", "of clients with the extension `io.modelcontextprotocol/tasks`: tools that may be tasks are"),
        Row("questions of a task", "`inputRequests` of the task, answered by `tasks/update` within `park_timeout`"),
        Row("tools that must be called as tasks", "called so, and waited for, where the client has no extension"),
        Row("closing the response stream", "`notifications/cancelled`"),
        Row("resource not found (-32002)", "-32602"),
        _lost("calls that wait for an answer", "belong to one process; another one cannot resume them"),
        _lost(
            "questions that do not say which call they are about",
            "put to the caller's latest call; refused where nobody proved who calls and it may be another person's",
        ),
        _lost("log messages of a shared session", "left out, where it is not clear whose they are"),
        _lost("tasks", "belong to one process, and to a session held there; they tell of no progress, and log nothing"),
        _lost("`notifications/elicitation/complete`", "goes nowhere: modern clients do not know it"),
        _lost("long results", "held whole, up to `max_message`, before they are passed on"),
        _lost("-32021", "a legacy server does not say which capability it misses; its own error is passed on"),
        _lost("hints for caches", "there are none: what is kept needs a rule of the stage `cache`"),
    ),
}
"""By the era of the client; the upstream has the other one only."""


def losses(client: Era) -> Iterator[str]:
    """What clients of an era lose at an upstream that has only the other one, a line each."""
    for row in TABLE[client]:
        if row.lost:
            yield f"{row.what}: {row.becomes}".replace("`", "")


def remarks(era: Literal["auto", "legacy", "modern"], translate: bool) -> Iterator[str]:
    """
    What there is to know about the options of a sink.

    Args:
        era: What the upstream speaks, as far as the configuration says.
        translate: Whether clients of the other era are served.
    """
    for client, other in ((Era.LEGACY, Era.MODERN), (Era.MODERN, Era.LEGACY)):
        if era == client:
            continue
        where = f"if the upstream speaks {other} revisions only" if era == "auto" else "here"
        if not translate:
            yield f"{client} clients are refused {where}, with an error that says so"
            continue
        yield f"{client} clients are served by translating {where}; what they lose:"
        yield from (f"  {line}" for line in losses(client))
