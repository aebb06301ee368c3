"""The stdio client against real children."""

import os
import sys
import textwrap

import pytest
import trio

from sluiceway.pipeline.client.errors import McpError
from sluiceway.pipeline.client.handlers import Handlers
from sluiceway.pipeline.client.stdio import StdioWire, open_stdio_client
from sluiceway.pipeline.protocol.errors import ConnectFailed, UpstreamClosed, UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import Notification, Request, Result

SERVER = """
import json, os, signal, subprocess, sys, time

MODE = sys.argv[1]

def out(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)

if MODE == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if MODE == "parent":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
for line in sys.stdin:
    message = json.loads(line)
    method, params, request_id = message.get("method"), message.get("params", {}), message.get("id")
    meta = params.get("_meta", {})
    if method == "server/discover":
        if MODE == "modern":
            out(id=request_id, result={"supportedVersions": ["2026-07-28"], "capabilities": {}})
        else:
            out(id=request_id, error={"code": -32601, "message": "Method not found"})
    elif method == "initialize":
        out(id=request_id, result={"protocolVersion": "2025-11-25", "capabilities": {}})
    elif method == "tools/call" and params["name"] == "report":
        out(method="notifications/progress", params={"progressToken": meta["progressToken"], "progress": 1})
        out(method="notifications/message", params={"level": "info", "data": "hello"})
        out(id="q", method="roots/list")
        answer = json.loads(sys.stdin.readline())
        out(id=request_id, result={"content": [], "answer": answer})
    elif method == "tools/call" and params["name"] == "wait":
        cancelled = json.loads(sys.stdin.readline())
        out(method="notifications/message", params={"level": "info", "data": cancelled})
    elif method == "tools/call" and params["name"] == "die":
        sys.exit(3)
    elif method == "tools/call" and params["name"] == "babble":
        print("Starting up...", flush=True)
    elif method == "tools/call" and params["name"] == "pid":
        out(id=request_id, result={"pid": os.getpid(), "child": child.pid if MODE == "parent" else None})
    elif method == "ping":
        out(id=request_id, result={})
if MODE == "stubborn":
    time.sleep(600)
"""


@pytest.fixture
def server(tmp_path):
    """The command line of a small server."""
    path = tmp_path / "server.py"
    path.write_text(textwrap.dedent(SERVER))
    return lambda mode: [sys.executable, str(path), mode]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(("mode", "era"), [("legacy", Era.LEGACY), ("modern", Era.MODERN)])
async def test_a_child_is_spoken_to_in_its_era(server, mode, era):
    """Negotiated by itself; several requests may run at the same time."""
    async with open_stdio_client(server(mode)) as client:
        assert era is client.era
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(client.request, "ping")


async def test_progress_questions_and_notifications_find_their_way(server):
    """Progress belongs to its request, log messages to the handler, and a question is answered in the middle."""
    reports, heard = [], []

    async def report(*values):
        reports.append(values)

    async def hear(notification):
        heard.append(notification.params["data"])

    async def roots(_params):
        return {"roots": []}

    async with open_stdio_client(server("legacy"), handlers=Handlers(notification=hear, roots=roots)) as client:
        result = await client.call_tool("report", on_progress=report)

    assert result["answer"] == {"jsonrpc": "2.0", "id": "q", "result": {"roots": []}}
    assert (reports, heard) == ([(1, None, "")], ["hello"])


@pytest.mark.parametrize("mode", ["legacy", "modern"])
async def test_a_cancelled_request_is_announced_in_both_eras(server, mode):
    """There is no stream to close on stdio."""
    heard = []
    told = trio.Event()

    async def hear(notification):
        heard.append(notification.params["data"])
        told.set()

    async with open_stdio_client(server(mode), handlers=Handlers(notification=hear)) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call_tool, "wait")
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        await told.wait()

    assert heard[0]["method"] == "notifications/cancelled"
    assert isinstance(heard[0]["params"]["requestId"], int)


async def test_a_child_that_dies_ends_what_waits_and_what_comes(server):
    """Nobody waits for a reply that cannot come."""
    async with open_stdio_client(server("legacy")) as client:
        with pytest.raises(UpstreamClosed, match="closed its output"):
            await client.call_tool("die")
        with pytest.raises(UpstreamClosed):
            await client.request("ping")


async def test_a_child_that_babbles_on_stdout_is_not_mcp(server):
    """The error says so, for the request that waits as well."""
    async with open_stdio_client(server("legacy")) as client:
        with pytest.raises(UpstreamProtocolError, match="not a JSON-RPC message"):
            await client.call_tool("babble")


@pytest.mark.parametrize("mode", ["legacy", "parent"])
async def test_nothing_of_a_child_is_left(server, mode):
    """The child ends, and so does what it started (S4-TI-01)."""
    async with open_stdio_client(server(mode)) as client:
        pids = await client.request("tools/call", {"name": "pid"})

    assert not alive(pids["pid"])
    if pids["child"] is not None:
        with trio.fail_after(5):
            while alive(pids["child"]):  # noqa: ASYNC110  # SIGKILL was sent; the kernel tells nobody when it is done
                await trio.sleep(0.01)


async def test_a_child_that_ignores_everything_is_killed(server, monkeypatch):
    """Closed stdin, then TERM, then KILL."""
    monkeypatch.setattr("sluiceway.pipeline.client.stdio.GRACE_S", 0.1)
    async with open_stdio_client(server("stubborn")) as client:
        pids = await client.request("tools/call", {"name": "pid"})

    assert not alive(pids["pid"])


async def test_a_child_is_gone_when_the_block_is_cancelled(server):
    """Cancellation does not leave orphans either."""
    with trio.CancelScope() as scope:
        async with open_stdio_client(server("legacy")) as client:
            pids = await client.request("tools/call", {"name": "pid"})
            scope.cancel()
            await trio.sleep_forever()

    assert not alive(pids["pid"])


async def test_a_program_that_does_not_exist_is_named():
    """No traceback of the operating system."""
    with pytest.raises(ConnectFailed, match="no-such-program cannot be started"):
        async with open_stdio_client(["no-such-program"]):
            raise AssertionError("there is nobody to talk to")


class Pipe(trio.abc.SendStream):
    """Takes what is written, until it is broken."""

    def __init__(self):
        self.written = b""
        self.broken = False

    async def send_all(self, data):
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise trio.BrokenResourceError
        self.written += data

    async def wait_send_all_might_not_block(self):
        await trio.lowlevel.checkpoint()

    async def aclose(self):
        await trio.lowlevel.checkpoint()


class Script(trio.abc.ReceiveStream):
    """Yields pieces, then breaks or ends."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)

    async def receive_some(self, max_bytes=None):
        await trio.lowlevel.checkpoint()
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    async def aclose(self):
        await trio.lowlevel.checkpoint()


async def nobody(message):
    raise AssertionError(f"nobody should hear {message}")


async def test_the_last_line_may_lack_its_end_and_foreign_replies_are_passed_over():
    """A reply that nobody waits for (its request was cancelled) is no error."""
    foreign, own = b'{"jsonrpc":"2.0","id":9,"result":{}}\n', b'{"jsonrpc":"2.0","id":1,"result":{"a":1}}'
    wire = StdioWire(Pipe(), Script(foreign, own), "child")
    replies = []

    async def call():
        replies.append(await wire.call(Request(1, "ping"), nobody))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        await wire.read(nobody)

    assert [Result({"a": 1})] == replies


async def test_an_error_without_an_id_is_heard_as_a_message():
    """It cannot be told which request it is about."""
    heard = []

    async def hear(message):
        heard.append(message)

    script = Script(b'{"jsonrpc":"2.0","error":{"code":-32700,"message":"what?"}}\n')
    await StdioWire(Pipe(), script, "child").read(hear)

    assert [Notification("notifications/message", {"level": "error", "data": "what?"})] == heard


async def test_subscriptions_find_their_listener_and_odd_tokens_nobody():
    """The subscription id is the listener's own request id."""
    mine, general = [], []

    async def hear_mine(message):
        mine.append(message.method)

    async def hear(message):
        general.append(message.method)

    def note(method, **params):
        return b'{"jsonrpc":"2.0","method":"%s","params":%s}\n' % (
            method.encode(),
            __import__("json").dumps(params).encode(),
        )

    meta = {"io.modelcontextprotocol/subscriptionId": 1}
    wire = StdioWire(Pipe(), Script(note("a", _meta=meta), note("b", progressToken=[1]), note("c")), "child")
    await wire.listen(hear)
    wire.forget()
    with pytest.RaisesGroup(UpstreamClosed):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.call, Request(1, "subscriptions/listen"), hear_mine)
            await trio.testing.wait_all_tasks_blocked()
            await wire.read(hear)

    assert (mine, general) == (["a"], ["b", "c"])


async def test_broken_pipes_are_the_end():
    """In both directions."""
    pipe = Pipe()
    pipe.broken = True
    wire = StdioWire(pipe, Script(trio.BrokenResourceError()), "child")
    with pytest.raises(UpstreamClosed, match="does not read any more"):
        await wire.send(Notification("x"))
    await wire.read(nobody)
    with pytest.raises(UpstreamClosed, match="broke its output"):
        await wire.call(Request(1, "ping"), nobody)


async def test_a_server_that_refuses_the_handshake_leaves_nothing(tmp_path):
    """The child is stopped although the block was never entered."""
    path = tmp_path / "refuse.py"
    path.write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    m = json.loads(line)\n"
        "    print(json.dumps({'jsonrpc': '2.0', 'id': m['id'], 'error': {'code': 1, 'message': 'no'}}), flush=True)\n"
    )
    with pytest.raises(McpError, match="no"):
        async with open_stdio_client([sys.executable, str(path)]):
            raise AssertionError("there is nobody to talk to")
