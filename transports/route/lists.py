"""
The four lists, merged: page by page, in the order of the configuration, whoever is ready.

A definition is never made anew: it keeps all it came with, and only its name may change.
"""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from typing import Final, final

import trio
from attrs import frozen
from msgspec.structs import replace

from sluiceway.pipeline.model.exchange import Exchange, Link
from sluiceway.pipeline.protocol.errors import GatewayError, InvalidParams, UpstreamProtocolError, UpstreamUnavailable
from sluiceway.pipeline.protocol.mcp import ErrorCode
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Reply, Request, Result

from .cursors import BadCursor, CursorLoop, Position, first_position
from .fabric import Fabric, Outcome, failure_of, missing
from .leg import HANDSHAKE_S, say_nothing
from .merging import Note, merge_hints, merge_rest
from .naming import NameTable, Upstream, make_table
from .view import View

MAX_PAGES: Final = 1_000
"""Pages of one upstream's list that are read to look names up."""
FRESH_S: Final = 5.0
"""Names that were looked up this recently are not looked up again for a name that nobody has."""


@final
@frozen
class Listing:
    """One of the lists."""

    method: str
    member: str
    """Member of the result."""
    key: str
    """The member of an item by which it is known."""
    kind: str
    """Capability it belongs to, and list that its change is about."""


LISTINGS: Final[Mapping[str, Listing]] = {
    each.method: each
    for each in (
        Listing("tools/list", "tools", "name", "tools"),
        Listing("prompts/list", "prompts", "name", "prompts"),
        Listing("resources/list", "resources", "uri", "resources"),
        Listing("resources/templates/list", "resourceTemplates", "uriTemplate", "resources"),
        Listing("tasks/list", "tasks", "taskId", "tasks"),
    )
}


@final
class Lists:
    """
    The lists of a route.

    Args:
        fabric: The route's.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric

    async def answer(self, view: View, exchange: Exchange) -> Reply:
        """
        One page of a merged list.

        Raises:
            InvalidParams: The cursor is not ours.
            UpstreamUnavailable: No upstream answered.
        """
        fabric, listing = self._fabric, LISTINGS[exchange.method]
        positions = self._positions(exchange)
        asked = self._asked(view, listing, positions)
        if positions is None and listing.key == "name" and fabric.directory.needs_table:
            await self.table(view, exchange, listing.kind, fresh=True)

        async def ask(upstream: Upstream) -> Reply:
            if positions is None:
                early = view.late.pop((listing.method, upstream.id), None)
                if early is not None:
                    return early
            return await self._page(view, upstream, exchange, positions[upstream.id].cursor if positions else None)

        outcomes = await fabric.gather(exchange, asked, ask)
        if positions is None:
            for upstream in asked:
                if outcomes[upstream.id] is None:
                    self._await_late(view, upstream, exchange, listing)
        return self._merge(view, exchange, listing, positions or {}, outcomes)

    def _positions(self, exchange: Exchange) -> dict[str, Position] | None:
        """Where to go on; None at the beginning."""
        cursor = exchange.request.params.get("cursor")
        if cursor is None:
            return None
        try:
            return self._fabric.cursors.open(exchange.method, exchange.caller, cursor)
        except BadCursor as error:
            raise InvalidParams(f"cursor: {error}") from error

    def _asked(self, view: View, listing: Listing, positions: Mapping[str, Position] | None) -> list[Upstream]:
        """Those that have more; at the beginning, all but those that said in their handshake that they have none."""
        asked = []
        for upstream in self._fabric.upstreams:
            leg = view.legs.get(upstream.id)
            lacks = leg is not None and leg.is_open and bool(leg.result) and listing.kind not in leg.capabilities
            if (upstream.id in positions) if positions is not None else not lacks:
                asked.append(upstream)
        return asked

    async def _page(self, view: View, upstream: Upstream, exchange: Exchange, cursor: str | None) -> Reply:
        request = exchange.request
        assert isinstance(request, Request)
        if request.params.get("cursor") != cursor:
            params = {key: value for key, value in request.params.items() if key != "cursor"}
            request = request.with_params(params if cursor is None else {**params, "cursor": cursor})
        reply = await self._fabric.send(view, upstream, self._fabric.part(exchange, request))
        if isinstance(reply, Result):
            _check_items(LISTINGS[exchange.method], upstream, reply)
        return reply

    def _merge(
        self,
        view: View,
        exchange: Exchange,
        listing: Listing,
        positions: Mapping[str, Position],
        outcomes: dict[str, Outcome],
    ) -> Reply:
        fabric = self._fabric
        absent = missing(outcomes, ErrorCode.METHOD_NOT_FOUND)
        if not any(isinstance(each, Result) for each in outcomes.values()):
            return self._nothing(exchange, listing, outcomes, absent)
        values: list[Mapping[str, Json]] = []
        pages: list[tuple[Upstream, list[dict[str, Json]]]] = []
        further: dict[str, Position] = {}
        for upstream in fabric.upstreams:
            outcome = outcomes.get(upstream.id)
            if isinstance(outcome, Result):
                values.append(outcome.value)
                pages.append((upstream, outcome.value[listing.member]))
                try:
                    position = _further(positions.get(upstream.id), outcome.value.get("nextCursor"))
                except CursorLoop as error:
                    fabric.log.warning(
                        "a list never ends", upstream=upstream.id, method=listing.method, error=str(error)
                    )
                    absent.append(upstream.id)
                else:
                    if position is not None:
                        further[upstream.id] = position
        collisions: dict[str, list[str]] = {}
        items = (
            self._named(view, listing, pages, collisions)
            if listing.key == "name"
            else self._owned(view, listing, pages, collisions)
        )
        for name, ids in collisions.items():
            fabric.collide(name, ids)
        notes: dict[Note, Json] = {Note.MISSING: absent, Note.COLLISIONS: collisions}
        ruled = frozenset({listing.member, "nextCursor", "ttlMs", "cacheScope"})
        merged = {listing.member: items, **merge_rest(values, ruled, notes, fabric.info)}
        merged.update(merge_hints(values, complete=not absent))
        if further:
            merged["nextCursor"] = fabric.cursors.seal(listing.method, exchange.caller, further)
        return Result(merged)

    def _nothing(self, exchange: Exchange, listing: Listing, outcomes: dict[str, Outcome], absent: list[str]) -> Reply:
        """No upstream has given a page."""
        failure = failure_of(outcomes)
        if not outcomes or (isinstance(failure, ErrorReply) and not absent):
            return failure if isinstance(failure, ErrorReply) else Result({listing.member: []})
        if isinstance(failure, ErrorReply) and "cursor" in exchange.request.params:
            return failure
        raise UpstreamUnavailable(f"{listing.method}: none of {', '.join(outcomes)} has answered; try again") from (
            failure if isinstance(failure, GatewayError) else None
        )

    def _named(
        self,
        view: View,
        listing: Listing,
        pages: list[tuple[Upstream, list[dict[str, Json]]]],
        collisions: dict[str, list[str]],
    ) -> list[dict[str, Json]]:
        """Tools or prompts under the names clients use."""
        directory, items = self._fabric.directory, []
        table = view.tables.get(listing.kind, (NameTable(), 0.0))[0] if directory.needs_table else None
        if table is not None:
            collisions.update(table.collisions)
        for upstream, page in pages:
            for item in page:
                own = item["name"]
                if table is not None:
                    name = table.shown.get((upstream.id, own)) or table.adopt(listing.kind, upstream, own)
                else:
                    name = directory.expose(listing.kind, upstream, own)
                if name is not None:
                    items.append(item if name == own else {**item, "name": name})
                elif table is None and (other := directory.shadowed(listing.kind, upstream, own)) is not None:
                    collisions[own] = [other.id, upstream.id]
        return items

    def _owned(
        self,
        view: View,
        listing: Listing,
        pages: list[tuple[Upstream, list[dict[str, Json]]]],
        collisions: dict[str, list[str]],
    ) -> list[dict[str, Json]]:
        """Resources or templates, whose owners are remembered; or tasks, whose ids say whose they are."""
        if listing.key == "taskId":
            return [item for _, page in pages for item in page]
        shown = [
            (upstream, item) for upstream, page in pages for item in page if upstream.resources.shows(item[listing.key])
        ]
        if listing.key == "uriTemplate":
            owned = [(view.templates.learn(item["uriTemplate"], upstream), upstream, item) for upstream, item in shown]
            collisions.update({i["uriTemplate"]: [o.id, u.id] for o, u, i in owned if o is not u})
            return [item for owner, upstream, item in owned if owner is upstream]
        owners = view.uris
        for upstream, item in shown:
            owners.learn(item[listing.key], upstream)
        items = []
        for upstream, item in shown:
            first, *others = owners.of(item[listing.key]) or (upstream,)
            if others:
                collisions[item[listing.key]] = [first.id, *(each.id for each in others)]
            if not others or (first is upstream and self._fabric.config.collisions != "error"):
                items.append(item)
        return items

    async def table(self, view: View, exchange: Exchange, kind: str, *, fresh: bool = False) -> NameTable:
        """
        What every name of `tools` or `prompts` means, where names do not say whose they are.

        Args:
            view: The client's.
            exchange: On whose behalf.
            kind: Of the names.
            fresh: Look them up anew, if they were not looked up just now.
        """
        known = view.tables.get(kind)
        now = trio.current_time()
        if known is not None and (not fresh or now - known[1] < FRESH_S):
            return known[0]
        names: dict[str, list[str]] = {upstream.id: [] for upstream in self._fabric.upstreams}
        listing = LISTINGS[f"{kind}/list"]
        request = exchange.request
        assert isinstance(request, Request)
        listed = replace(exchange, request=Request(request.id, listing.method, _meta_only(request.params)))

        async def ask(upstream: Upstream) -> Reply:
            position: Position | None = None
            reply: Reply = Result()
            for _ in range(MAX_PAGES):
                early = None if position is not None else view.late.get((listing.method, upstream.id))
                reply = early or await self._page(view, upstream, listed, position.cursor if position else None)
                if isinstance(reply, ErrorReply):
                    return reply
                names[upstream.id] += [item["name"] for item in reply.value[listing.member]]
                try:
                    position = _further(position, reply.value.get("nextCursor"))
                except CursorLoop:
                    break
                if position is None:
                    break
            return reply

        asked = self._asked(view, listing, None)
        outcomes = await self._fabric.gather(exchange, asked, ask)
        made = make_table(kind, [(u, names[u.id]) for u in self._fabric.upstreams], self._fabric.config.collisions)
        when = -FRESH_S if missing(outcomes, ErrorCode.METHOD_NOT_FOUND) else 0.0
        view.tables[kind] = (made, trio.current_time() + when)
        for name, ids in made.collisions.items():
            self._fabric.collide(name, ids)
        return made

    def _await_late(self, view: View, upstream: Upstream, exchange: Exchange, listing: Listing) -> None:
        """Go on waiting for a first page in the background; the client is told when it is there."""
        key = (listing.method, upstream.id)
        if key not in view.late:
            view.late[key] = None
            spawn = self._fabric.nursery.start_soon
            contextvars.Context().run(spawn, self._late, view, upstream, _aside(exchange), listing)

    async def _late(self, view: View, upstream: Upstream, exchange: Exchange, listing: Listing) -> None:
        key = (listing.method, upstream.id)
        page: Result | None = None
        try:
            with trio.move_on_after(HANDSHAKE_S) as timeout, trio.CancelScope() as scope:
                forget = view.on_end(scope.cancel)
                try:
                    reply = await self._page(view, upstream, exchange, None)
                finally:
                    forget()
                if isinstance(reply, Result):
                    page = reply
            if timeout.cancelled_caught:
                self._fabric.log.warning("an upstream does not answer", upstream=upstream.id, method=listing.method)
        except GatewayError as error:
            self._fabric.log.warning(
                "an upstream failed", upstream=upstream.id, method=listing.method, error=str(error)
            )
        finally:
            view.late.pop(key, None)
        if page is not None:
            view.late[key] = page
            view.tell([listing.kind])


def _aside(exchange: Exchange) -> Exchange:
    """The same request on nobody's behalf any more: nothing is relayed or asked, and no deadline binds it."""
    return replace(exchange, link=Link(say_nothing, caller=exchange.caller), marks={}, draining=trio.Event())


def _meta_only(params: Mapping[str, Json]) -> dict[str, Json]:
    return {"_meta": params["_meta"]} if "_meta" in params else {}


def _further(position: Position | None, cursor: Json) -> Position | None:
    """Where to go on after a page; None at the end. A cursor that is no text ends the list, as null does."""
    if not isinstance(cursor, str):
        return None
    return first_position(cursor) if position is None else position.advance(cursor)


def _check_items(listing: Listing, upstream: Upstream, page: Result) -> None:
    items = page.value.get(listing.member)
    if not isinstance(items, list) or not all(
        isinstance(item, dict) and isinstance(item.get(listing.key), str) for item in items
    ):
        raise UpstreamProtocolError(f"{upstream.id}: its answer to {listing.method} is not a list of such")
