"""
`subscriptions/listen`: one stream for the client, one for each upstream (2026-07-28, basic/patterns/subscriptions).

The acknowledgement comes first and says what upstreams really granted; what an upstream says before that waits. A
stream that an upstream ends is opened again, after a pause, and the client told that its lists may have changed.
"""

from __future__ import annotations

from typing import Final, final

import trio
from attrs import define, field
from msgspec.structs import replace

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.mcp import MetaKey, meta_of
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, RequestId, Result
from sluiceway.pipeline.runtime.nursery import unwrap_single

from .calls import Calls
from .fabric import Fabric
from .handshake import request_of
from .naming import Upstream
from .view import LIST_OF, Changes, View, changed

ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
PAUSES_S: Final = (1.0, 60.0)
"""Shortest and longest pause before an upstream is listened to again; it doubles, with jitter."""
_FILTERS: Final = {"toolsListChanged": "tools", "promptsListChanged": "prompts", "resourcesListChanged": "resources"}


@final
@define(eq=False)
class _Stream:
    """One listener and its part at every upstream."""

    exchange: Exchange
    wanted: dict[str, Json]
    changes: Changes
    granted: dict[str, dict[str, Json]] = field(factory=dict)
    """What each upstream acknowledged."""
    refused: dict[str, ErrorReply] = field(factory=dict)
    waiting: set[str] = field(factory=set)
    """Upstreams that have neither acknowledged nor failed."""
    settled: trio.Event = field(factory=trio.Event)
    """Nobody is waited for any more."""
    acknowledged: trio.Event = field(factory=trio.Event)

    @property
    def id(self) -> RequestId:
        """The listener's own request id, which every message of the stream names."""
        return request_of(self.exchange).id

    def settle(self, upstream: Upstream) -> None:
        """An upstream has said its first word, or failed."""
        self.waiting.discard(upstream.id)
        if not self.waiting:
            self.settled.set()

    def tagged(self, notification: Notification) -> Notification:
        """The notification as one of this stream."""
        named = meta_of(notification.params).get(MetaKey.SUBSCRIPTION_ID)
        if named == self.id and type(named) is type(self.id):
            return notification
        meta = {**meta_of(notification.params), MetaKey.SUBSCRIPTION_ID.value: self.id}
        return Notification(notification.method, {**notification.params, "_meta": meta})

    def acknowledgement(self) -> Notification:
        """What was granted by anybody."""
        granted: dict[str, Json] = {}
        for each in self.granted.values():
            for key, value in each.items():
                if isinstance(value, list):
                    granted[key] = list(dict.fromkeys([*granted.get(key, []), *value]))
                elif key not in granted or value is True:
                    granted[key] = value
        if self.waiting:  # the route itself tells of lists that come late
            granted.update({key: True for key, kind in _FILTERS.items() if kind in self.changes.kinds})
        return Notification(ACKNOWLEDGED, {"notifications": granted})


@final
class Listening:
    """
    Listeners of a route.

    Args:
        fabric: The route's.
        calls: Knows whose uris are.
    """

    def __init__(self, fabric: Fabric, calls: Calls) -> None:
        self._fabric = fabric
        self._calls = calls

    async def listen(self, view: View, exchange: Exchange) -> Reply:
        """Serve one listener until the gateway drains, or until every upstream has refused."""
        wanted = exchange.request.params.get("notifications")
        if not isinstance(wanted, dict):
            return ErrorReply(-32602, "notifications: must be an object that says what to listen to", http_status=200)
        kinds = frozenset(kind for key, kind in _FILTERS.items() if wanted.get(key) is True)
        stream = _Stream(exchange, wanted, Changes(kinds))
        stream.waiting = {upstream.id for upstream in self._fabric.upstreams}
        view.listeners.add(stream.changes)
        try:
            return await self._serve(view, stream)
        finally:
            view.listeners.discard(stream.changes)

    async def _serve(self, view: View, stream: _Stream) -> Reply:
        refusal: ErrorReply | None = None
        with unwrap_single():
            async with trio.open_nursery() as nursery:
                for upstream in self._fabric.upstreams:
                    nursery.start_soon(self._follow, view, stream, upstream, name=upstream.id)
                with trio.move_on_after(self._fabric.patience(stream.exchange)):
                    await stream.settled.wait()
                if stream.refused and len(stream.refused) == len(self._fabric.upstreams):
                    refusal = next(iter(stream.refused.values()))
                else:
                    await stream.exchange.relay(stream.tagged(stream.acknowledgement()))
                    stream.acknowledged.set()
                    nursery.start_soon(self._tell, stream)
                    await stream.exchange.draining.wait()
                nursery.cancel_scope.cancel()
        if refusal is not None:
            return refusal
        return Result({"resultType": "complete", "_meta": {MetaKey.SUBSCRIPTION_ID.value: stream.id}})

    async def _tell(self, stream: _Stream) -> None:
        """What the route itself has to say: lists that came late."""
        while True:
            for kind in await stream.changes.take():
                await stream.exchange.relay(stream.tagged(changed(kind)))

    async def _follow(self, view: View, stream: _Stream, upstream: Upstream) -> None:
        """Listen to one upstream, again and again, until it says that it cannot be listened to."""
        pause = PAUSES_S[0]
        while True:
            began = trio.current_time()
            try:
                reply = await self._fabric.send(view, upstream, self._part(view, stream, upstream))
            except GatewayError as error:
                self._fabric.log.warning("an upstream is not heard", upstream=upstream.id, error=str(error))
            else:
                if isinstance(reply, ErrorReply):
                    stream.refused[upstream.id] = reply
                    stream.settle(upstream)
                    return
            stream.settle(upstream)
            if trio.current_time() - began > PAUSES_S[1]:
                pause = PAUSES_S[0]
            await trio.sleep(pause * (0.5 + self._fabric.random() / 2))
            pause = min(2 * pause, PAUSES_S[1])

    def _part(self, view: View, stream: _Stream, upstream: Upstream) -> Exchange:
        """The listener's exchange as one upstream sees it."""

        async def relay(_exchange: Exchange, notification: Notification) -> None:
            if notification.method == ACKNOWLEDGED:
                await trio.lowlevel.checkpoint()
                self._acknowledged(stream, upstream, notification)
                return
            await stream.acknowledged.wait()
            kind = LIST_OF.get(notification.method)
            if kind is not None:
                view.forget(kind)
            await stream.exchange.relay(stream.tagged(notification))

        request = request_of(stream.exchange)
        uris = stream.wanted.get("resourceSubscriptions")
        if isinstance(uris, list):
            theirs = [uri for uri in uris if self._may_serve(view, upstream, uri)]
            if theirs != uris:
                wanted = {**stream.wanted, "resourceSubscriptions": theirs}
                request = request.with_params({**request.params, "notifications": wanted})
        if "taskIds" in stream.wanted:
            wanted = request.params["notifications"]
            ids = self._fabric.tasks.theirs(stream.exchange.caller, upstream.id, wanted["taskIds"])
            request = request.with_params({**request.params, "notifications": {**wanted, "taskIds": ids}})
        return replace(stream.exchange, request=request, marks={}, way_back=relay)

    def _may_serve(self, view: View, upstream: Upstream, uri: Json) -> bool:
        if not isinstance(uri, str) or not upstream.resources.shows(uri):
            return False
        owners = self._calls.owners(view, uri)
        return not owners or upstream in owners

    def _acknowledged(self, stream: _Stream, upstream: Upstream, notification: Notification) -> None:
        granted = notification.params.get("notifications")
        stream.granted[upstream.id] = granted if isinstance(granted, dict) else {}
        stream.settle(upstream)
        if stream.acknowledged.is_set():  # it is late, or back: what it has may be new
            for key, kind in _FILTERS.items():
                if stream.granted[upstream.id].get(key) is True:
                    stream.changes.push(kind)
