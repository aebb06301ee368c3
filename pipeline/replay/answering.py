"""
A tape's upstreams behind a gateway that really serves: each sink answers what it answered to the same request.

The same request gets the recorded answers in their order, and the last one from then on. What is no exact repetition
fails, with the nearest recorded request in the error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, final

import trio
from attrs import define, evolve, field

from ..model.component import Context, Sink
from ..model.document import Document, SinkSpec
from ..model.exchange import Exchange
from ..model.keys import canonical
from ..protocol.errors import UpstreamUnavailable
from ..protocol.mcp import LEGACY_VERSIONS, MODERN_VERSIONS, meta_of
from ..protocol.messages import Json, Notification, Reply, Result
from .assembly import RecordedCall, RecordedExchange
from .entries import MessageData
from .matching import Ignoring
from .nearest import MAX_CANDIDATES, describe_lack
from .upstreams import played_reply
from .values import exception_of

MAX_REQUESTS: Final = 20_000
"""Different requests whose answers are kept; the first ones of a tape."""
MAX_REPEATS: Final = 16
"""Answers that are kept for the same request."""

_HANDSHAKE: Final = frozenset({"initialize", "server/discover"})

Key = tuple[str, str, bytes]


@define(eq=False)
class _Recorded:
    """What a sink said to the same request, time after time."""

    message: MessageData
    calls: list[RecordedCall] = field(factory=list)
    given: int = 0

    def next(self) -> RecordedCall:
        """The next answer; the last one again and again."""
        call = self.calls[min(self.given, len(self.calls) - 1)]
        self.given += 1
        return call


@final
class Script:
    """What the upstreams of a tape answered."""

    def __init__(self) -> None:
        self.lacking: list[str] = []
        """What was asked for that the tape does not have; the first `MAX_CANDIDATES`."""
        self.lacked = 0
        self.given = 0
        """Answers so far."""
        self._recorded: dict[Key, _Recorded] = {}

    def learn(self, exchanges: Iterable[RecordedExchange]) -> None:
        """Remember what sinks answered."""
        for exchange in exchanges:
            for call in exchange.calls.values():
                message = exchange.request_of(call)
                if message is None or call.ended is None or (call.ended.reply is None and call.ended.failure is None):
                    continue
                key = _key(call.called.sink, message.method, message.params)
                if key not in self._recorded and len(self._recorded) >= MAX_REQUESTS:
                    continue
                recorded = self._recorded.setdefault(key, _Recorded(message))
                if len(recorded.calls) < MAX_REPEATS:
                    recorded.calls.append(call)

    def find(self, sink: str, exchange: Exchange) -> RecordedCall | None:
        """
        The recorded call that answers a request; None for a handshake that the tape does not have at all. Handshakes
        differ with every client, so any one that was recorded answers all.

        Raises:
            UpstreamUnavailable: There is none; it says what the nearest one has different.
        """
        request = exchange.request
        recorded = self._recorded.get(_key(sink, request.method, request.params))
        if recorded is not None:
            self.given += 1
            return recorded.next()
        alike = [each for (its, method, _), each in self._recorded.items() if (its, method) == (sink, request.method)]
        if request.method in _HANDSHAKE:
            return alike[0].calls[0] if alike else None
        asked = [each.message for each in alike[:MAX_CANDIDATES]]
        what = describe_lack(request, sink, asked, Ignoring(("params._meta",)))
        self.lacked += 1
        if len(self.lacking) < MAX_CANDIDATES:
            self.lacking.append(what)
        raise UpstreamUnavailable(f"the tape does not have {what}")


def _key(sink: str, method: str, params: Mapping[str, Json]) -> Key:
    """What a request is known by: what it asks, not who asks."""
    return sink, method, canonical({key: value for key, value in params.items() if key != "_meta"})


@final
class ScriptedSink(Sink):
    """Answers from a script, and takes the time that was taken."""

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        self._script: Script = config
        self._sink = context.id.removeprefix("sinks.")

    async def __call__(self, exchange: Exchange) -> Reply:
        """See `Sink`."""
        call = self._script.find(self._sink, exchange)
        if call is None or call.ended is None:
            await trio.lowlevel.checkpoint()
            return _introduction(exchange)
        began, token = trio.current_time(), meta_of(exchange.request.params).get("progressToken")
        for each in call.relayed:
            await trio.sleep_until(began + each.t - call.called.t)
            params = each.message.params
            if "progressToken" in params:
                params = {**params, "progressToken": token}
            await exchange.relay(Notification(each.message.method, params))
        await trio.sleep_until(began + (call.took or 0.0))
        if call.ended.failure is not None:
            raise exception_of(call.ended.failure)
        return Result() if call.ended.reply is None else played_reply(call.ended.reply)


def _introduction(exchange: Exchange) -> Result:
    """What a server that offers everything says of itself."""
    said: dict[str, Json] = {"capabilities": {"tools": {}, "resources": {}, "prompts": {}}}
    if exchange.method == "server/discover":
        return Result({"resultType": "complete", "supportedVersions": [*MODERN_VERSIONS, *LEGACY_VERSIONS], **said})
    version = exchange.request.params.get("protocolVersion", LEGACY_VERSIONS[-1])
    return Result({"protocolVersion": version, "serverInfo": {"name": "sluiceway-tape", "version": "1"}, **said})


def scripted(document: Document, script: Script) -> Document:
    """A configuration whose sinks that lead to an upstream answer from a script."""
    sinks = {
        sink.id: sink
        if sink.routes
        else SinkSpec(
            id=sink.id,
            cls=ScriptedSink,
            config=script,
            path=sink.path,
            chain=sink.chain,
            max_in_flight=sink.max_in_flight,
        )
        for sink in document.sinks.values()
    }
    return evolve(document, sinks=sinks)
