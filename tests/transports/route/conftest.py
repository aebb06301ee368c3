"""Scripted upstreams, and gateways that route to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import trio

from sluiceway.pipeline.model.component import Sink
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.messages import ErrorReply, Reply, Result
from sluiceway.pipeline.testing import FakeSink, PipelineHarness

MEMBERS = {
    "tools/list": ("tools", "name"),
    "prompts/list": ("prompts", "name"),
    "resources/list": ("resources", "uri"),
    "resources/templates/list": ("resourceTemplates", "uriTemplate"),
    "tasks/list": ("tasks", "taskId"),
}


class Scripted:
    """An upstream that lists what it is told to, page by page, and echoes everything else with its name."""

    def __init__(self, name: str, *, delay: float = 0.0, **lists: Sequence[Sequence[str]]) -> None:
        self.name = name
        self.lists = lists
        self.delay = delay
        self.error: Exception | None = None
        self.answers: dict[str, Callable[[Exchange], Reply]] = {}
        self.capabilities: Mapping[str, Any] = {kind: {} for kind in ("tools", "prompts", "resources")}
        self.sink = FakeSink(self.behave)

    @property
    def methods(self) -> list[str]:
        """What arrived."""
        return [request.method for request in self.sink.requests]

    async def behave(self, exchange: Exchange) -> Reply:
        """Answer one exchange."""
        await trio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        method, params = exchange.request.method, exchange.request.params
        if method in self.answers:
            return self.answers[method](exchange)
        if method == "initialize":
            return Result({"protocolVersion": params["protocolVersion"], "capabilities": self.capabilities,
                           "serverInfo": {"name": self.name, "version": "1"}})  # fmt: skip
        if method in MEMBERS:
            return self._page(method, params.get("cursor"))
        if method.startswith("resources/") and params.get("uri") not in self._flat("resources"):
            return ErrorReply(-32002, "resource not found")
        return Result({"by": self.name, "params": dict(params)})

    def _flat(self, member: str) -> list[str]:
        return [name for page in self.lists.get(member, ()) for name in page]

    def _page(self, method: str, cursor: str | None) -> Reply:
        member, key = MEMBERS[method]
        pages = self.lists.get(member)
        if pages is None:
            return ErrorReply(-32601, "no such list")
        number = 0 if cursor is None else len(cursor)  # "" is a cursor: that of the first page
        if number >= len(pages):
            return ErrorReply(-32602, "bad cursor")
        items = [{key: name, "of": self.name} for name in pages[number]]
        more = {"nextCursor": "x" * (number + 1)} if number + 1 < len(pages) else {}
        return Result({member: items, **more})


@pytest.fixture
def scripted() -> type[Scripted]:
    """Makes upstreams."""
    return Scripted


@pytest.fixture
def routed() -> Callable[..., PipelineHarness]:
    """Makes a gateway in front of some upstreams; options are those of the sink."""

    def make(*upstreams: Scripted | tuple[str, Sink], **options: Any) -> PipelineHarness:
        named = [(u.name, u.sink) if isinstance(u, Scripted) else u for u in upstreams]
        ids = [name for name, _ in named]
        sinks: dict[str, Any] = {name: {"embedded": {}} for name in ids}
        sinks["all"] = {"route": {"to": ids, **options}}
        data = {
            "version": 1,
            "sources": {"in": {"stdio": {}}},
            "pipelines": {"main": {"chain": [], "sink": "all"}},
            "sinks": sinks,
        }
        return PipelineHarness.from_data(data, sinks=dict(named))

    return make


@pytest.fixture
def all_pages() -> Callable[..., Any]:
    """Reads a list to its end; returns its pages."""

    async def read(gateway: PipelineHarness, method: str, key: str = "name") -> list[list[str]]:
        member, pages, params = MEMBERS[method][0], [], {}
        while True:
            reply = await gateway.call(method, params)
            assert isinstance(reply, Result), reply
            pages.append([item[key] for item in reply.value[member]])
            if "nextCursor" not in reply.value:
                return pages
            params = {"cursor": reply.value["nextCursor"]}

    return read
