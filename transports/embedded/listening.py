"""Subscriptions: `resources/subscribe` and its opposite in legacy sessions, `subscriptions/listen` since 2026-07-28."""

from __future__ import annotations

from sluiceway.pipeline.protocol.mcp import MetaKey
from sluiceway.pipeline.protocol.messages import Json, Request

from .context import Context
from .errors import InvalidParams, InvalidRequest
from .runtime import LISTS, Runtime
from .subscriptions import Listener, SessionData, acknowledgement, granted_lists


def subscribe(runtime: Runtime, context: Context) -> dict[str, Json]:
    """`resources/subscribe`: the session hears of updates of one resource."""
    data, uri = _session_of(runtime, context), _uri_of(context)
    runtime.find(uri)
    runtime.hub.check_uris(len(data.uris | {uri}))
    data.uris.add(uri)
    return {}


def unsubscribe(runtime: Runtime, context: Context) -> dict[str, Json]:
    """`resources/unsubscribe`; harmless without a subscription."""
    _session_of(runtime, context).uris.discard(_uri_of(context))
    return {}


def _session_of(runtime: Runtime, context: Context) -> SessionData:
    session = context.client.session
    if session is None:
        raise InvalidRequest("subscriptions need a session, and this client has none")
    return runtime.hub.data_of(session)


def _uri_of(context: Context) -> str:
    uri = context.params.get("uri")
    if not isinstance(uri, str):
        raise InvalidParams("uri: must be a string")
    return uri


async def listen(runtime: Runtime, context: Context) -> dict[str, Json]:
    """
    `subscriptions/listen`: acknowledge what is granted, then tell of changes until the gateway drains.

    Uris that nobody serves are not granted, and neither are lists this server does not have.
    """
    wanted = context.params.get("notifications")
    if not isinstance(wanted, dict):
        raise InvalidParams("notifications: must be an object that says what to listen to")
    asked = wanted.get("resourceSubscriptions", [])
    if not isinstance(asked, list) or not all(isinstance(uri, str) for uri in asked):
        raise InvalidParams("notifications.resourceSubscriptions: must be a list of uris")
    request = context.exchange.request
    assert isinstance(request, Request)
    runtime.hub.check_uris(len(asked))
    served = runtime.offers("resources")
    uris = frozenset(uri for uri in asked if served and runtime.serves(uri))
    lists = granted_lists(wanted, [kind for kind in LISTS if runtime.offers(kind)])
    listener = runtime.hub.listen(request.id, lists, uris)
    runtime.drains.add(context.exchange.draining, listener)
    try:
        await _stream(listener, context)
    finally:
        runtime.drains.remove(context.exchange.draining, listener)
        runtime.hub.leave(listener)
    return {"_meta": {MetaKey.SUBSCRIPTION_ID: listener.id}}


async def _stream(listener: Listener, context: Context) -> None:
    relay = context.exchange.relay
    granted = acknowledgement(listener.lists, listener.uris)
    await relay(listener.notification("notifications/subscriptions/acknowledged", granted))
    while changes := await listener.take():
        for change in changes:
            await relay(change)
