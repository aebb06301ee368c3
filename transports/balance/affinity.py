"""
Which upstream a stateless request belongs to, although all are equal: where it goes on with what one of them has begun.

Cursors and request states leave the gateway sealed together with the id of the upstream that made them. Ids of tasks
stand in too many places to be changed; whose they are is remembered, and looked for where it is not.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, final

import msgspec

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import InvalidParams
from sluiceway.pipeline.protocol.mcp import method_of
from sluiceway.pipeline.protocol.messages import Json, Reply, Request, Result

from ..seals import BadSeal, Seals

MAX_TASKS: Final = 10_000
"""Tasks whose upstream is remembered; the one not used for longest is forgotten first."""

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
        self._tasks: OrderedDict[tuple[str, str | None, str], str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tasks)

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
        """The reply as the client gets it: what must come back to the same upstream is sealed, and tasks are noted."""
        if type(reply) is not Result:
            return reply
        if exchange.method in _LISTS:
            return self._sealed(reply, _CURSOR, exchange.method, exchange.caller, member_id)
        if method_of(exchange.method).asks:
            if exchange.method == "tools/call" and b'"taskId"' in reply.body.raw:
                self._note_task(exchange.caller, member_id, reply)
            return self._sealed(reply, _STATE, f"{exchange.method} {exchange.target}", exchange.caller, member_id)
        return reply

    def owner(self, caller: Caller, task_id: str) -> str | None:
        """Whose a task is, if that is known."""
        key = (caller.subject, caller.tenant, task_id)
        found = self._tasks.get(key)
        if found is not None:
            self._tasks.move_to_end(key)
        return found

    def note(self, caller: Caller, task_id: str, member_id: str) -> None:
        """Remember whose a task is."""
        key = (caller.subject, caller.tenant, task_id)
        self._tasks[key] = member_id
        self._tasks.move_to_end(key)
        if len(self._tasks) > MAX_TASKS:
            self._tasks.popitem(last=False)

    def _note_task(self, caller: Caller, member_id: str, reply: Result) -> None:
        task: Json = reply.value.get("task", reply.value)
        if isinstance(task, dict) and isinstance(task.get("taskId"), str):
            self.note(caller, task["taskId"], member_id)

    def _sealed(self, reply: Result, name: str, purpose: str, caller: Caller, member_id: str) -> Reply:
        if b'"%b"' % name.encode() not in reply.body.raw:  # what is not there needs no decoding
            return reply
        text = reply.value.get(name)
        if not isinstance(text, str):
            return reply
        sealed = self._seals.seal(purpose, caller, self._encode((member_id, text)))
        return Result({**reply.value, name: sealed})
