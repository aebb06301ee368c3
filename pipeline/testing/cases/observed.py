"""What was seen of one request of a case, and the way it took."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import final

from attrs import define, field, frozen

from ...model.exchange import Exchange, Link
from ...protocol.mcp import Kind
from ...protocol.messages import ErrorReply, Json, Reply
from ..in_flight import StageRun


@final
@define(eq=False)
class Observed:
    """One request, from its client's side, once it has ended."""

    exchange: Exchange
    reply: Reply | None
    relayed: list[Json]
    """Notifications, with `method` and `params`."""
    asked: list[Json]
    """Questions to the client, likewise."""
    began: float
    ended: float
    """Seconds of virtual time."""
    sent: Mapping[str, list[Json]] = field(factory=dict)
    """What reached each sink because of it, by id."""
    runs: list[StageRun] = field(factory=list)
    """The stages it passed, in the order of entering."""

    @property
    def link(self) -> Link:
        """What tells its views and forks from those of others."""
        return self.exchange.link

    @property
    def is_cancelled(self) -> bool:
        """Whether its client cancelled it."""
        return self.reply is None and self.exchange.kind is not Kind.NOTIFY


@final
@frozen
class Arrival:
    """A request at a sink."""

    sink: str
    exchange: Exchange


def way_of(seen: Observed) -> Iterator[str]:
    """
    The way of a request through the chain, a line a stage: when, which, what it decided, what came out.

    A stage that a retry passes again has a line for each time; decisions stand at the first.
    """
    target = seen.exchange.target
    yield f"{seen.exchange.method}{f' {target}' if target is not None else ''}, {_end(seen)}"
    left = [
        (each.stage, f"{each.outcome}: {each.cause}" if each.cause else each.outcome) for each in seen.link.decisions
    ]
    width = max((len(run.component) for run in seen.runs), default=0)
    for run in seen.runs:
        said = [words for stage, words in left if stage == run.component]
        left = [row for row in left if row[0] != run.component]
        came = "still there" if run.seconds is None else f"{run.outcome} after {run.seconds:.3f} s"
        decided = f"  [{'; '.join(said)}]" if said else ""
        yield f"  {run.entered - seen.began:+9.3f} s  {run.component:<{width}}  {came}{decided}"
    yield from (f"               {stage}  [{words}]" for stage, words in left)
    yield from (f"               -> sink {sink}: {len(messages)}" for sink, messages in seen.sent.items() if messages)


def _end(seen: Observed) -> str:
    took = f"{seen.ended - seen.began:.3f} s"
    if seen.is_cancelled:
        return f"cancelled by its client after {took}"
    if isinstance(seen.reply, ErrorReply):
        reason = seen.reply.data.get("reason") if isinstance(seen.reply.data, dict) else None
        return f"error {seen.reply.code}{f' ({reason})' if reason else ''} after {took}"
    return f"ended after {took}"


def messages_at(arrivals: Iterable[Arrival], sinks: Iterable[str], link: Link | None = None) -> dict[str, list[Json]]:
    """What reached each sink, by id; of one exchange only if its link is given."""
    found: dict[str, list[Json]] = {sink: [] for sink in sinks}
    for arrival in arrivals:
        if link is None or arrival.exchange.link is link:
            request = arrival.exchange.request
            found[arrival.sink].append({"method": request.method, "params": dict(request.params)})
    return found
