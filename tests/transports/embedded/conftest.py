"""A client of an embedded server in process: every message it gets is checked against the published schemas."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import trio
from attrs import define, field

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange, Link
from sluiceway.pipeline.model.session import ANONYMOUS, Caller, Client, Session
from sluiceway.pipeline.model.store import Store
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY, Era, MetaKey, era_of_version, method_of
from sluiceway.pipeline.protocol.messages import (
    ErrorReply,
    Notification,
    Reply,
    Request,
    Result,
    decode_json,
    encode_json,
)
from sluiceway.transports.embedded import Server
from sluiceway.transports.embedded.sink import EmbeddedSink

SCHEMAS = Path(__file__).parents[2] / "data" / "mcp-schema"
RESULTS = {
    "initialize": "InitializeResult",
    "server/discover": "DiscoverResult",
    "tools/list": "ListToolsResult",
    "tools/call": "CallToolResult",
    "prompts/list": "ListPromptsResult",
    "prompts/get": "GetPromptResult",
    "resources/list": "ListResourcesResult",
    "resources/templates/list": "ListResourceTemplatesResult",
    "resources/read": "ReadResourceResult",
    "completion/complete": "CompleteResult",
    "subscriptions/listen": "SubscriptionsListenResult",
}
NOTIFICATIONS = {
    "notifications/progress": "ProgressNotification",
    "notifications/message": "LoggingMessageNotification",
    "notifications/resources/updated": "ResourceUpdatedNotification",
    "notifications/tools/list_changed": "ToolListChangedNotification",
    "notifications/prompts/list_changed": "PromptListChangedNotification",
    "notifications/resources/list_changed": "ResourceListChangedNotification",
    "notifications/subscriptions/acknowledged": "SubscriptionsAcknowledgedNotification",
}
QUESTIONS = {
    "elicitation/create": "ElicitRequest",
    "sampling/createMessage": "CreateMessageRequest",
    "roots/list": "ListRootsRequest",
}
EVERYTHING: Mapping[str, Any] = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}


@cache
def validator(version: str, name: str) -> Any:
    """The compiled definition of one revision's schema."""
    document = json.loads((SCHEMAS / f"{version}.json").read_text(encoding="utf-8"))
    definitions = "$defs" if "$defs" in document else "definitions"
    return jsonschema_rs.validator_for({**document, "$ref": f"#/{definitions}/{name}"})


def check_shape(version: str, name: str, value: Any) -> None:
    """Fail with the schema's own words if a message is not what the revision publishes."""
    problems = [
        f"{'/'.join(map(str, each.instance_path))}: {each.message}"
        for each in validator(version, name).iter_errors(value)
    ]

    assert [] == problems, (name, value)


@define(eq=False, kw_only=True)
class Peer:
    """One client; what it was sent is in `heard`, what it was asked in `asked`."""

    sink: EmbeddedSink
    version: str
    capabilities: Mapping[str, Any]
    answers: list[Reply]
    """Replies to questions of a legacy server, in order."""
    session: Session | None = None
    transport: str = "memory"
    headers: Mapping[str, str] = field(factory=dict)
    caller: Caller = ANONYMOUS
    heard: list[Notification] = field(factory=list)
    told: list[Notification] = field(factory=list)
    """What no request caused, by way of the session."""
    asked: list[tuple[str, Mapping[str, Any]]] = field(factory=list)
    next_id: int = 1
    draining: trio.Event = field(factory=trio.Event)

    @property
    def era(self) -> Era:
        """The era of its version."""
        era = era_of_version(self.version)
        assert era is not None
        return era

    def exchange(self, method: str, params: Mapping[str, Any] | None = None, *, request_id: Any = None) -> Exchange:
        """A request as a source would make it."""
        params = dict(params or {})
        if self.era is Era.MODERN:
            params["_meta"] = {
                MetaKey.VERSION: self.version,
                MetaKey.CLIENT_CAPABILITIES: dict(self.capabilities),
                **params.get("_meta", {}),
            }
        self.next_id += 1
        client = Client(
            era=self.era, version=self.version, capabilities=self.capabilities, session=self.session,
            transport=self.transport, headers=self.headers,
        )  # fmt: skip
        return Exchange(
            request=Request(self.next_id if request_id is None else request_id, method, params),
            kind=method_of(method).kind,
            client=client,
            caller=self.caller,
            draining=self.draining,
            link=Link(self._emit, self._ask),
        )

    async def send(self, method: str, params: Mapping[str, Any] | None = None, **options: Any) -> Reply:
        """The reply to one request, whatever it is."""
        reply = await self.sink(self.exchange(method, params, **options))
        if isinstance(reply, Result):
            value = decode_json(encode_json(reply.value))
            asks = value.get("resultType") == "input_required"
            name = "InputRequiredResult" if asks else RESULTS.get(method, "Result")
            check_shape(self.version, name, value)
        return reply

    async def result(self, method: str, params: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """The result of a request that succeeds, as JSON, without what every modern result carries."""
        reply = await self.send(method, params, **options)
        assert isinstance(reply, Result), reply
        value: dict[str, Any] = decode_json(reply.raw)
        if value.get("resultType") == "complete":
            del value["resultType"]
        meta = value.get("_meta", {})
        meta.pop(MetaKey.SERVER_INFO, None)
        return value if meta else {key: member for key, member in value.items() if key != "_meta"}

    async def error(self, method: str, params: Mapping[str, Any] | None = None, **options: Any) -> ErrorReply:
        """The error of a request that fails."""
        reply = await self.send(method, params, **options)
        assert isinstance(reply, ErrorReply), reply
        return reply

    async def call(self, name: str, /, *, raw: bool = False, **arguments: Any) -> Any:
        """The text of a tool's first block; with `raw` the whole result."""
        value = await self.result("tools/call", {"name": name, "arguments": arguments})
        return value if raw else value["content"][0]["text"]

    async def _emit(self, notification: Notification) -> None:
        check_shape(self.version, NOTIFICATIONS[notification.method], _as_message(notification))
        self.heard.append(notification)

    def notify(self, notification: Notification) -> None:
        """What a session's owner does with what no request caused."""
        check_shape(self.version, NOTIFICATIONS[notification.method], _as_message(notification))
        self.told.append(notification)

    async def _ask(self, method: str, params: Mapping[str, Any]) -> Reply:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        check_shape(self.version, QUESTIONS[method], message)
        self.asked.append((method, params))
        return self.answers.pop(0)


def _as_message(notification: Notification) -> dict[str, Any]:
    params = decode_json(encode_json(notification.params))
    return {"jsonrpc": "2.0", "method": notification.method, **({"params": params} if params else {})}


Connect = Callable[..., AbstractAsyncContextManager[Peer]]


@pytest.fixture
def connect() -> Connect:
    """Opens a server's sink and gives a client of it: `async with connect(server, version=...) as peer`."""

    @asynccontextmanager
    async def opened(
        server: Server,
        *,
        version: str = LATEST_LEGACY,
        capabilities: Mapping[str, Any] = EVERYTHING,
        answers: tuple[Reply, ...] = (),
        session: bool = True,
        transport: str = "memory",
        headers: Mapping[str, str] | None = None,
        stores: Mapping[str, Store] | None = None,
        **options: Any,
    ) -> AsyncIterator[Peer]:
        context = Context(id="kit", stores=lambda name: (stores or {})[name])
        sink = EmbeddedSink.serving(server, context, **options)
        peer = Peer(
            sink=sink, version=version, capabilities=capabilities, answers=list(answers), transport=transport,
            headers=headers or {},
        )  # fmt: skip
        if session and peer.era is Era.LEGACY:
            peer.session = Session(id="s1", source="test", notify=peer.notify)
        async with sink.open():
            yield peer

    return opened


@pytest.fixture(params=[LATEST_LEGACY, LATEST])
def version(request: pytest.FixtureRequest) -> str:
    """The latest revision of each era."""
    found: str = request.param
    return found
