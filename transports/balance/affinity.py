"""
Which upstream a stateless request belongs to, although all are equal: where it goes on with what one of them has begun.

Cursors and request states leave the gateway sealed together with the id of the upstream that made them; ids of tasks
say whose they are as well (`task_ids`).
"""

from __future__ import annotations

from typing import Final, final

import msgspec

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import InvalidParams
from sluiceway.pipeline.protocol.mcp import method_of
from sluiceway.pipeline.protocol.messages import Reply, Request, Result

from ..seals import BadSeal, Seals

_LISTS: Final = frozenset(
    {"tools/list", "prompts/list", "resources/list", "resources/templates/list", "tasks/list"}
)  # fmt: skip
_STATE: Final = "requestState"
_CURSOR: Final = "nextCursor"


@final
class Affinity:
    """
    Args:
        seals: Of the group.
    """

    def __init__(self, seals: Seals) -> None:
        self._seals = seals
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(tuple[str, str]).decode

    def open(self, exchange: Exchange) -> tuple[str, Request] | None:
        """
        Whom a request belongs to, and the request as that upstream knows it; None if it is anybody's.

        Raises:
            InvalidParams: Its cursor or state is not ours.
        """
        request = exchange.request
        assert isinstance(request, Request)
        params = request.params
        if exchange.method in _LISTS:
            name, purpose = "cursor", exchange.method
        elif method_of(exchange.method).asks:
            name, purpose = _STATE, f"{exchange.method} {exchange.target}"
        else:
            return None
        sealed = params.get(name)
        if sealed is None:
            return None
        try:
            member_id, text = self._decode(self._seals.open(purpose, exchange.caller, sealed))
        except BadSeal as error:
            raise InvalidParams(f"{name}: {error}; start again without it") from error
        return member_id, request.with_params({**params, name: text})

    def close(self, exchange: Exchange, member_id: str, reply: Reply) -> Reply:
        """The reply as the client gets it: what must come back to the same upstream is sealed."""
        if type(reply) is not Result:
            return reply
        if exchange.method in _LISTS:
            return self._sealed(reply, _CURSOR, exchange.method, exchange.caller, member_id)
        if method_of(exchange.method).asks:
            return self._sealed(reply, _STATE, f"{exchange.method} {exchange.target}", exchange.caller, member_id)
        return reply

    def _sealed(self, reply: Result, name: str, purpose: str, caller: Caller, member_id: str) -> Reply:
        if b'"%b"' % name.encode() not in reply.raw:  # what is not there needs no decoding
            return reply
        text = reply.value.get(name)
        if not isinstance(text, str):
            return reply
        sealed = self._seals.seal(purpose, caller, self._encode((member_id, text)))
        return Result({**reply.value, name: sealed})
