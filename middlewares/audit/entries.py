"""What an audit entry says of an exchange: who, what, on what, how it ended; without secrets, and of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, final

from attrs import frozen

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import ANONYMOUS
from sluiceway.pipeline.model.when import matcher
from sluiceway.pipeline.protocol.mcp import target_of
from sluiceway.pipeline.protocol.messages import Json, Reply, Request, Result
from sluiceway.pipeline.telemetry.audit_chain import encode_entry
from sluiceway.pipeline.telemetry.outcomes import TOOL_ERROR, End, Outcome
from sluiceway.pipeline.telemetry.redaction import MASK, SENSITIVE_KEYS, Redaction, clip, digest

MAX_DECISIONS: Final = 24
"""Decisions of an entry, the first ones."""
_WORDS: Final[Mapping[Outcome, str]] = {
    Outcome.SUCCESS: "ok",
    Outcome.ERROR: "error",
    Outcome.REFUSED: "refused",
    Outcome.TIMEOUT: "timed_out",
    Outcome.CANCELLED: "cancelled",
}


@final
@frozen
class Showing:
    """How much of what was sent and answered an entry shows."""

    params: Literal["none", "digest", "redacted"]
    keys: tuple[str, ...]
    """Further globs of keys to mask."""
    paths: tuple[str, ...]
    """Places in params to mask: `arguments.card.number`."""
    max_params: int
    """Bytes of params as JSON; larger ones are shown as their digest."""
    result: Literal["none", "digest"]


@final
class Describer:
    """
    Makes entries.

    Args:
        showing: How much they show.
    """

    def __init__(self, showing: Showing) -> None:
        self._showing = showing
        self._shows_params = showing.params != "none"
        self._redaction = Redaction((*SENSITIVE_KEYS, *showing.keys))
        self._paths = tuple(tuple(matcher((part,)) for part in path.split(".")) for path in showing.paths)

    def describe(self, exchange: Exchange) -> dict[str, Json]:
        """
        What is known when a request comes in: what it is and where from. Fields that say nothing are left out.

        The first two say when it was written, which is yet to be filled in, and that it is about a request.
        """
        request, client = exchange.request, exchange.client
        method, params = request.method, request.params
        entry: dict[str, Json] = {"at": "", "event": "request", "operation": clip(method)}
        target = target_of(method, params)
        if target is not None:
            entry["resource"] = clip(self._redaction.uri(target) if "://" in target else target)
        if exchange.correlation_id:
            entry["correlation_id"] = exchange.correlation_id
        if isinstance(request, Request):
            number = request.id
            entry["request_id"] = number if isinstance(number, int) else clip(number)
        entry["source"] = exchange.source
        if client.address is not None:
            entry["address"] = client.address
        name = client.info.get("name")
        if isinstance(name, str):
            entry["client"] = clip(f"{name}/{client.info.get('version', '')}", 100)
        if client.session is not None:
            entry["session"] = session_name(client.session.id)
        if self._shows_params:
            entry["params"] = self._shown_params(params)
        return entry

    def conclude(self, entry: dict[str, Json], exchange: Exchange, reply: Reply | None, end: End) -> None:
        """Add what is known at the end: who it turned out to be, and how it went."""
        link, caller = exchange.link, exchange.caller
        if caller is ANONYMOUS:
            caller = link.caller  # an auth stage further inside has spoken since
        entry["principal"] = clip(caller.subject)
        if caller.tenant is not None:
            entry["tenant"] = clip(caller.tenant)
        entry["how"] = caller.how
        if caller.credential:
            entry["credential"] = clip(caller.credential)
        if link.trace is not None:
            entry["trace_id"] = link.trace.trace_id
        tool_error = end.error == TOOL_ERROR
        entry["outcome"] = TOOL_ERROR if tool_error else _WORDS[end.outcome]
        if end.error and not tool_error:
            entry["reason"] = clip(end.error)
        if end.outcome is Outcome.CANCELLED:
            entry["outcome"] = "timed_out" if link.cancelled == "deadline" else "cancelled"
            entry["reason"] = link.cancelled or "stage"
        if link.relayed:
            entry["relayed"] = link.relayed
        if link.attempts:
            entry["attempts"] = link.attempts
        if link.decisions:
            entry["decisions"] = [
                clip(f"{each.stage}: {each.outcome}" + (f" ({each.cause})" if each.cause else ""))
                for each in link.decisions[:MAX_DECISIONS]
            ]
        if self._showing.result == "digest" and isinstance(reply, Result):
            entry["result"] = digest(dict(reply.value))

    def bounded(self, value: Json) -> Json:
        """A copy of something a client said, fit for an entry."""
        return self._redaction(value)

    def _shown_params(self, params: Mapping[str, Json]) -> Json:
        said = dict(params)
        said.pop("_meta", None)
        if self._showing.params == "digest":
            return digest(said)
        shown = self._redaction(_masked(said, self._paths) if self._paths else said)
        if self._showing.max_params < _AT_MOST and len(encode_entry(shown)) > self._showing.max_params:
            return digest(said)
        return shown


_AT_MOST: Final = 1 << 16
"""Bytes that redacted params cannot exceed by much, whatever was sent."""

Path = tuple[Callable[[str], bool], ...]


def _masked(value: Json, paths: tuple[Path, ...]) -> Json:
    """A copy in which what stands at `paths` is masked; lists are gone through by index."""
    if () in paths:
        return MASK
    if isinstance(value, dict):
        return {
            key: _masked(item, here) if (here := tuple(p[1:] for p in paths if p[0](key))) else item
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [
            _masked(item, here) if (here := tuple(p[1:] for p in paths if p[0](str(n)))) else item
            for n, item in enumerate(value)
        ]
    return value


def session_name(session_id: str) -> str:
    """What a session goes by in entries: its id would let others take it over."""
    return digest(session_id)
