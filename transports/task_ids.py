"""
Ids of tasks as clients know them: the upstream's own, together with whose it is.

Upstreams that know nothing of each other may number their tasks alike, and a gateway that only remembered whose a task
is would have forgotten it after a restart, and never have known it in another worker. So an id says it. With a key it
is sealed, too, and opens for the client it was given to alone; without one it is an address, as a name with a prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

import msgspec

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Asker, Caller
from sluiceway.pipeline.protocol.mcp import Era, meta_of
from sluiceway.pipeline.protocol.messages import Json, Notification, Reply, Result

from .seals import BadSeal, Seals
from .translation.task_messages import EXTENSION, LEGACY_STATUS, MODERN_STATUS, RELATED

METHODS: Final = frozenset({"tasks/get", "tasks/result", "tasks/update", "tasks/cancel"})
"""Requests about one task."""
_ABOUT: Final = frozenset({MODERN_STATUS, LEGACY_STATUS})
_ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
_PURPOSE: Final = "task"

Change = Callable[[str], str]


def may_be_task(exchange: Exchange) -> bool:
    """Whether the client takes a task for an answer: it asked for one (2025-11-25), or knows of them (SEP-2663)."""
    if exchange.method != "tools/call":
        return False
    if exchange.client.era is Era.LEGACY:
        return "task" in exchange.request.params
    extensions = exchange.client.capabilities.get("extensions")
    return isinstance(extensions, dict) and EXTENSION in extensions


def tells_of_tasks(exchange: Exchange) -> bool:
    """Whether ids of tasks may stand in what comes of a request."""
    method = exchange.method
    return method == "subscriptions/listen" or method.startswith("tasks/") or may_be_task(exchange)


@final
class TaskIds:
    """
    Makes, and reads, the ids that clients know.

    Args:
        key: At most 64 bytes; None for ids that anybody could make.
    """

    def __init__(self, key: bytes | None) -> None:
        self._seals = Seals(key or b"address")
        self._sealed = key is not None
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(tuple[str, str]).decode

    def seal(self, caller: Caller, owner: str, own: str) -> str:
        """
        The id that a client knows.

        Args:
            caller: Who is told of the task.
            owner: Id of the sink whose task it is.
            own: What that calls it.
        """
        return self._seals.seal(_PURPOSE, self._holder(caller), self._encode((owner, own)))

    def open(self, caller: Caller, known: Json) -> tuple[str, str]:
        """
        Whose a task is, and what that calls it.

        Raises:
            BadSeal: The id is not one that `seal` made for this client.
        """
        return self._decode(self._seals.open(_PURPOSE, self._holder(caller), known))

    def reply(self, exchange: Exchange, owner: str, reply: Reply) -> Reply:
        """What an upstream answers, as the client gets it."""
        if type(reply) is not Result or b'"taskId"' not in reply.raw:  # what is not there needs no decoding
            return reply
        value, change = reply.value, self._change(exchange.caller, owner)
        changed = _outward(value, change)
        if exchange.method == "tasks/list":
            tasks: Json = value.get("tasks")
            if isinstance(tasks, list):
                changed = {**changed, "tasks": [_with_id(each, change) for each in tasks]}
        elif exchange.method in METHODS or value.get("resultType") == "task":
            changed = _with_id(changed, change)
        elif exchange.method == "tools/call" and isinstance(value.get("task"), dict):
            changed = {**changed, "task": _with_id(value["task"], change)}
        return reply if changed is value else Result(changed)

    def notification(self, caller: Caller, owner: str, notification: Notification) -> Notification:
        """What an upstream tells, as the client gets it."""
        params, change = notification.params, self._change(caller, owner)
        changed = _outward(params, change)
        if notification.method in _ABOUT:
            changed = _with_id(changed, change)
        elif notification.method == _ACKNOWLEDGED:
            granted = params.get("notifications")
            if isinstance(granted, dict) and isinstance(granted.get("taskIds"), list):
                ids = [change(each) for each in granted["taskIds"] if isinstance(each, str)]
                changed = {**changed, "notifications": {**granted, "taskIds": ids}}
        return notification if changed is params else Notification(notification.method, changed)

    def asker(self, caller: Callable[[], Caller], owner: str, ask: Asker) -> Asker:
        """
        The way of an upstream's questions to the client, and of the answers back.

        Args:
            caller: Says who is asked, when it comes to it.
            owner: Id of the sink that asks.
            ask: The way there.
        """

        async def through(method: str, params: Mapping[str, Json]) -> Reply:
            asked = _outward(params, self._change(caller(), owner))
            reply = await ask(method, asked)
            if asked is params or type(reply) is not Result or b'"taskId"' not in reply.raw:
                return reply
            return Result(_outward(reply.value, lambda known: self._own(caller(), known)))

        return through

    def through(self, exchange: Exchange, owner: str) -> Exchange:
        """A view of an exchange on whose way back ids of tasks become those that the client knows."""
        ask = exchange.link.ask

        async def relay(_view: Exchange, notification: Notification) -> None:
            await exchange.relay(self.notification(exchange.caller, owner, notification))

        return exchange.with_relay(
            relay, None if ask is None else self.asker(lambda: exchange.caller, owner, exchange.ask)
        )

    def theirs(self, caller: Caller, owner: str, known: Json) -> list[str]:
        """Of the ids that a client listens to, those of one upstream, as that knows them."""
        found = []
        for each in known if isinstance(known, list) else ():
            try:
                whose, own = self.open(caller, each)
            except BadSeal:
                continue
            if whose == owner:
                found.append(own)
        return found

    def _holder(self, caller: Caller) -> Caller:
        return caller if self._sealed else _ANYBODY

    def _own(self, caller: Caller, known: str) -> str:
        try:
            return self.open(caller, known)[1]
        except BadSeal:
            return known

    def _change(self, caller: Caller, owner: str) -> Change:
        return lambda own: self.seal(caller, owner, own)


_ANYBODY: Final = Caller("")
"""For whom ids are made that nobody is bound to."""


def _with_id(members: Json, change: Change) -> Json:
    if isinstance(members, dict) and isinstance(members.get("taskId"), str):
        return {**members, "taskId": change(members["taskId"])}
    return members


def _outward(members: Mapping[str, Json], change: Change) -> Json:
    """The members with another id in what they say of the task they belong to; themselves if they say nothing."""
    meta = meta_of(members)
    about = meta.get(RELATED)
    if not isinstance(about, dict):
        return members
    return {**members, "_meta": {**meta, RELATED: _with_id(about, change)}}
