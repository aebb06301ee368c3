"""A wire that answers from a script, and a client over it."""

from contextlib import asynccontextmanager

import pytest
import trio

from sluiceway.pipeline.client.client import McpClient
from sluiceway.pipeline.client.handlers import Handlers
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import EMPTY, ErrorReply, Notification, Request, Result
from sluiceway.pipeline.runtime.nursery import open_background_nursery

_MODERN = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "instructions": "be kind",
          "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "fake"}}}  # fmt: skip
_LEGACY = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "old"}}


class FakeWire:
    """Answers each method with what `answers` has for it: a mapping, a reply, an exception, or a list of those."""

    MODERN = _MODERN
    LEGACY = _LEGACY

    def __init__(self, answers, probe_timeout_s=5.0, announces_cancel=True):
        self.answers = {"server/discover": ErrorReply(-32601, "no such method"), "initialize": self.LEGACY, **answers}
        self.probe_timeout_s = probe_timeout_s
        self.announces_cancel = announces_cancel
        self.era = Era.LEGACY
        self.version = ""
        self.calls = []
        self.sent = []
        self.headers = []
        self.forgotten = 0
        self.listening = trio.Event()
        self.hear = None

    @asynccontextmanager
    async def talk(self, era="auto", **handlers):
        async with open_background_nursery() as nursery:
            client = McpClient(self, Handlers(**handlers), nursery, {"name": "tester", "version": "1"})
            await client.connect(era)
            yield client

    def methods(self):
        return [request.method for request in self.calls]

    async def call(self, request, deliver, headers=EMPTY):
        await trio.lowlevel.checkpoint()
        self.calls.append(request)
        self.headers.append(headers)
        answer = self.answers[request.method]
        if isinstance(answer, list):
            answer = answer.pop(0)
        if callable(answer):
            answer = await answer(request, deliver)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, ErrorReply) else Result(answer)

    async def send(self, message):
        await trio.lowlevel.checkpoint()
        self.sent.append(message)

    async def listen(self, deliver):
        self.hear = deliver
        self.listening.set()
        await trio.sleep_forever()

    def forget(self):
        self.forgotten += 1

    @staticmethod
    async def silent(_request, _deliver):
        """An answer that never comes."""
        await trio.sleep_forever()

    @staticmethod
    def telling(*messages, then):
        """An answer that is preceded by messages."""

        async def answer(_request, deliver):
            for message in messages:
                await deliver(message)
            return then

        return answer

    @staticmethod
    def progress(done, total=None, message=None):
        params = {"progressToken": 1, "progress": done, "total": total, "message": message}
        return Notification("notifications/progress", {k: v for k, v in params.items() if v is not None})

    @staticmethod
    def question(method, params=EMPTY, request_id="q1"):
        return Request(request_id, method, params)


@pytest.fixture
def fake_wire():
    """The class; its static methods make what a script consists of."""
    return FakeWire
