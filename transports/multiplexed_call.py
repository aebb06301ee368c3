"""One exchange on a connection that carries many: what it waits for, and how it gets back its own ids."""

from __future__ import annotations

from typing import final

import trio

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.mcp import PROGRESS, MetaKey, meta_of
from sluiceway.pipeline.protocol.messages import Json, Notification, Reply, Request, RequestId, Result
from sluiceway.pipeline.runtime.correlation import Entry

from .readdress import with_subscription, with_token


@final
class Call(Entry, eq=False, kw_only=True):
    """One exchange that waits for its reply."""

    exchange: Exchange
    """Of the client."""
    questions: dict[RequestId, trio.CancelScope] = {}  # structs copy it
    """What the upstream asked because of this exchange and has no answer to, by the upstream's id."""
    hung_up: bool = False
    """The reply is ours: the upstream still has to be told."""

    @property
    def token(self) -> Json:
        """The client's own progress token; None when it sent none."""
        return meta_of(self.exchange.request.params).get(MetaKey.PROGRESS_TOKEN)

    def restore(self, notification: Notification) -> Notification:
        """The notification as the client knows it: its token, its subscription id."""
        if notification.method == PROGRESS:
            return with_token(notification, self.token)
        if MetaKey.SUBSCRIPTION_ID in meta_of(notification.params):
            return Notification(notification.method, with_subscription(notification.params, self._id))
        return notification

    def restore_end(self, reply: Reply) -> Reply:
        """The end of a subscription names the subscription; every other reply is as it was."""
        return Result(with_subscription(reply.value, self._id)) if isinstance(reply, Result) else reply

    @property
    def _id(self) -> RequestId:
        assert isinstance(self.exchange.request, Request)
        return self.exchange.request.id
