"""Two clients on one child, who use the same ids, the same tokens and subscriptions of the same kind."""

import sys
from pathlib import Path

import pytest
import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.messages import Notification, Result
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.stdio_sink import StdioSink, StdioSinkConfig

SHUFFLER = (sys.executable, "-S", str(Path(__file__).parent / "children" / "shuffler.py"))
CALLS = 12_000
"""Of each client. With two words of progress each, and notices, more than 10^5 messages pass the child."""
AT_ONCE = 16
META = {"progressToken": "token", "io.modelcontextprotocol/protocolVersion": "2026-07-28"}


class Visitor:
    """One client: what came back to it that was another one's."""

    def __init__(self, sink: StdioSink, name: str) -> None:
        self.sink = sink
        self.name = name
        self.served = self.notices = self.messages = 0
        self.strange: list[object] = []

    async def listen(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Subscribe to a resource that has the client's name, until cancelled."""
        wanted = {"notifications": {"resourceSubscriptions": [f"file:///{self.name}"]}, "_meta": META}
        exchange = memory_exchange("subscriptions/listen", wanted, caller=Caller(self.name))

        async def emit(notification: Notification) -> None:
            self.messages += 1
            if notification.method.endswith("acknowledged"):
                task_status.started()
            elif notification.params["uri"] == f"file:///{self.name}" and self._named(notification) == 1:
                self.notices += 1
            else:
                self.strange.append(notification)

        exchange.link.emit = emit
        await self.sink(exchange)

    def _named(self, notification: Notification) -> object:
        return notification.params["_meta"]["io.modelcontextprotocol/subscriptionId"]

    async def call(self, numbers: range) -> None:
        """Call again and again, always with the same ids and the same token."""
        for number in numbers:
            arguments = {"who": self.name, "n": number}
            interim: list[Notification] = []
            request = {"name": "echo", "arguments": arguments, "_meta": META}
            exchange = memory_exchange(
                "tools/call", request, request_id=number % 3, interim=interim, caller=Caller(self.name)
            )
            reply = await self.sink(exchange)
            self.messages += 2 + len(interim)
            told = [(each.params["progressToken"], each.params["message"]) for each in interim]
            if not isinstance(reply, Result) or reply.value["of"] != arguments or told != [("token", self.name)] * 2:
                self.strange.append((reply, told))
            self.served += 1


@pytest.mark.timeout(300)
async def test_over_100_000_messages_nothing_crosses() -> None:
    """Every answer, every word of progress and every notice reaches the client that it is for, exactly once."""
    sink = StdioSink(StdioSinkConfig(command=SHUFFLER), Context(id="up"))
    sink._lines._era.is_modern = True  # what it finds out is the business of test_stdio_era.py
    with trio.fail_after(240):
        async with sink.open(), trio.open_nursery() as nursery:
            visitors = [Visitor(sink, name) for name in ("ana", "bob")]
            for visitor in visitors:
                await nursery.start(visitor.listen)
            async with trio.open_nursery() as calls:
                for visitor in visitors:
                    for first in range(AT_ONCE):
                        calls.start_soon(visitor.call, range(first, CALLS, AT_ONCE))
            children = sink.children
            nursery.cancel_scope.cancel()

    assert [[], []] == [visitor.strange for visitor in visitors]
    assert [CALLS, CALLS] == [visitor.served for visitor in visitors]
    assert children == 1
    assert min(visitor.notices for visitor in visitors) > CALLS / 2
    assert sum(visitor.messages for visitor in visitors) > 100_000
