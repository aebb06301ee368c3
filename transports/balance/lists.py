"""Lists of a group whose upstreams are not quite equal: merged from all, whole, each thing once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

import trio
from attrs import frozen
from msgspec.structs import replace

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import GatewayError, InvalidParams, UpstreamProtocolError, UpstreamUnavailable
from sluiceway.pipeline.protocol.mcp import PROGRESS, ErrorCode
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.nursery import unwrap_single

from ..route.merging import Note, merge_hints, merge_rest
from .dispatch import Dispatch
from .member import Member
from .offers import KIND_OF, TEMPLATES, Offers

PATIENCE_S: Final = 5.0
"""Time that a list waits for each upstream before it goes on without it."""
_MARGIN: Final = 0.9
"""Share of the time an exchange has left that it waits; the rest is for the answer without who is late."""
MAX_PAGES: Final = 1_000
"""Pages of one upstream's list that are read."""

LISTED: Final[Mapping[str, tuple[str, str]]] = {
    "tools/list": ("tools", "name"),
    "prompts/list": ("prompts", "name"),
    "resources/list": ("resources", "uri"),
    TEMPLATES: ("resourceTemplates", "uriTemplate"),
}
"""Method -> the member of its result that is merged, and what an item of it is known by."""


@final
@frozen
class _Whole:
    """All pages of one upstream's list."""

    first: Mapping[str, Json]
    """Its first page."""
    items: list[dict[str, Json]]


@final
class Lists:
    """
    Args:
        sink_id: The sink's.
        dispatch: Sends.
        offers: Told of every list.
        log: A structured logger.
    """

    def __init__(self, sink_id: str, dispatch: Dispatch, offers: Offers, log: Any) -> None:
        self._id = sink_id
        self._dispatch = dispatch
        self._offers = offers
        self._log = log

    async def answer(self, exchange: Exchange) -> Reply:
        """
        The list of all, on one page.

        Raises:
            InvalidParams: There is a cursor, and no further page.
            UpstreamUnavailable: Nobody has answered.
        """
        if exchange.request.params.get("cursor") is not None:
            raise InvalidParams("cursor: not one of this list, which has one page; start again without it")
        method = exchange.method
        member_name, key = LISTED[method]
        members = self._dispatch.candidates(exchange)
        found = await self._gather(exchange, method, members)
        wholes = [whole for each in members if isinstance(whole := found[each.id], _Whole)]
        failures = {each.id: found[each.id] for each in members if not _is_answer(found[each.id])}
        if not wholes:
            refusal = next((each for each in found.values() if isinstance(each, ErrorReply)), None)
            if refusal is not None:
                return refusal
            raise UpstreamUnavailable(f"{self._id}: {method}: none of {', '.join(found)} has answered; try again")
        items: dict[str, dict[str, Json]] = {}
        for whole in wholes:
            for item in whole.items:
                items.setdefault(item[key], item)
        values = [whole.first for whole in wholes]
        ruled = frozenset({member_name, "nextCursor", "ttlMs", "cacheScope"})
        info = {"name": self._id.rpartition(".")[2]}
        merged = {
            member_name: list(items.values()),
            **merge_rest(values, ruled, {Note.MISSING: list(failures)}, info),
        }
        return Result({**merged, **merge_hints(values, complete=not failures)})

    async def learn(self, exchange: Exchange) -> None:
        """Have the lists looked up in which an exchange's target stands, if none of them is known."""
        method = KIND_OF[exchange.method]
        members = self._dispatch.candidates(exchange)
        for each in (method, TEMPLATES) if method == "resources/list" else (method,):
            if not self._offers.knows(each, members):
                await self._gather(exchange, each, members)

    async def _gather(
        self, exchange: Exchange, method: str, members: tuple[Member, ...]
    ) -> dict[str, _Whole | ErrorReply | None]:
        """Ask all at once; None for who has failed or was late."""
        found: dict[str, _Whole | ErrorReply | None] = {member.id: None for member in members}

        async def one(member: Member) -> None:
            try:
                found[member.id] = await self._whole(exchange, method, member)
            except GatewayError as error:
                self._log.warning("an upstream failed", upstream=member.id, method=method, error=str(error))

        patience_s = max(0.0, min(PATIENCE_S, _MARGIN * (exchange.deadline - trio.current_time())))
        with trio.move_on_after(patience_s), unwrap_single():
            async with trio.open_nursery() as nursery:
                for member in members:
                    nursery.start_soon(one, member, name=member.id)
        return found

    async def _whole(self, exchange: Exchange, method: str, member: Member) -> _Whole | ErrorReply:
        member_name, key = LISTED[method]
        items: list[dict[str, Json]] = []
        first: Mapping[str, Json] | None = None
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            reply = await self._dispatch.ask(member, _part(exchange, method, cursor))
            if isinstance(reply, ErrorReply):
                if reply.code == ErrorCode.METHOD_NOT_FOUND:  # it has none of the kind
                    self._offers.learn(method, member.id, (), trio.current_time())
                return reply
            page = reply.value.get(member_name)
            if not isinstance(page, list) or not all(isinstance(i, dict) and isinstance(i.get(key), str) for i in page):
                raise UpstreamProtocolError(f"{member.id}: its answer to {method} is not a list of such")
            first = reply.value if first is None else first
            items += page
            further = reply.value.get("nextCursor")
            if not isinstance(further, str) or further == cursor:
                break
            cursor = further
        assert first is not None
        self._offers.learn(method, member.id, [item[key] for item in items], trio.current_time())
        return _Whole(first, items)


def _is_answer(found: _Whole | ErrorReply | None) -> bool:
    """Whether an upstream has said what it has, be it nothing."""
    return isinstance(found, _Whole) or (isinstance(found, ErrorReply) and found.code == ErrorCode.METHOD_NOT_FOUND)


def _part(exchange: Exchange, method: str, cursor: str | None) -> Exchange:
    """A view of an exchange for one page of one of several upstreams that are asked at once."""

    async def relay(_exchange: Exchange, notification: Notification) -> None:
        if notification.method != PROGRESS:
            await exchange.relay(notification)

    request = exchange.request
    assert isinstance(request, Request)
    params: dict[str, Json] = {"_meta": request.params["_meta"]} if "_meta" in request.params else {}
    if cursor is not None:
        params["cursor"] = cursor
    if cursor is None and method == exchange.method:
        return replace(exchange, marks={}, way_back=relay)
    return replace(exchange, request=Request(request.id, method, params), marks={}, way_back=relay)
