"""Servers as child processes: who gets which, what becomes of calls when they misbehave, and that nothing is left."""

import contextvars
import os
import random
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import trio
import trio.testing
from msgspec.structs import replace

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.options import Secret
from sluiceway.pipeline.model.session import Client, Session
from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    ConnectFailed,
    HeaderMismatch,
    InvalidMessage,
    SessionNotFound,
    UnsupportedVersion,
    UpstreamClosed,
)
from sluiceway.pipeline.protocol.mcp import LATEST_LEGACY, Era
from sluiceway.pipeline.protocol.messages import Notification, Result
from sluiceway.pipeline.testing import MODERN_CLIENT, legacy_client, memory_exchange
from sluiceway.transports.stdio_sink import StdioSink, StdioSinkConfig

CHILDREN = Path(__file__).parent / "children"


class NoPause(random.Random):
    """Restarts are at once; how long they wait is the business of test_stdio_restarts.py."""

    def uniform(self, a: float, b: float) -> float:
        """The shortest there is."""
        return a


def program(name: str) -> tuple[str, ...]:
    """The command line of one of the fake servers."""
    return (sys.executable, "-S", str(CHILDREN / f"{name}.py"))


def sink_of(name: str = "echo", **options: object) -> StdioSink:
    """A sink whose graces are short enough for a test."""
    options = {"command": program(name), "stop_grace": 0.2, "kill_grace": 0.2, **options}
    sink = StdioSink(StdioSinkConfig(**options), Context(id="files", random=NoPause()))
    sink._lines._era.is_modern = True  # what it finds out is the business of test_stdio_era.py
    return sink


@asynccontextmanager
async def opened(name: str = "echo", **options: object):
    """A sink in bounded time."""
    with trio.fail_after(30):
        sink = sink_of(name, **options)
        async with sink.open():
            yield sink


def a_session(session_id: str = "s", notices: list[Notification] | None = None) -> Session:
    """A legacy session."""
    return Session(id=session_id, source="test", notify=(notices if notices is not None else []).append)


def exchange_of(name: str = "", *, session: Session | None = None, method: str = "tools/call", **params: object):
    """An exchange that asks the echo server for something."""
    client = {"client": Client(era=Era.LEGACY, version=LATEST_LEGACY, session=session)} if session else {}
    return memory_exchange(method, {"name": name, **params}, **client)


async def begun(sink: StdioSink, session_id: str = "s", notices: list[Notification] | None = None) -> Session:
    """A session after its handshake with a child."""
    session = a_session(session_id, notices)
    await sink(exchange_of(session=session, method="initialize"))
    return session


async def pid_of(sink: StdioSink, session: Session | None = None) -> int:
    """Which process serves a client."""
    reply = await sink(exchange_of(session=session))
    assert isinstance(reply, Result)
    return reply.value["pid"]


async def test_a_call_is_answered_by_the_child():
    """The request arrives with its params, the reply comes back."""
    async with opened() as sink:
        reply = await sink(exchange_of("x", arguments={"n": 1}))

        assert isinstance(reply, Result)
        assert reply.value["params"] == {"name": "x", "arguments": {"n": 1}}
        assert reply.value["pid"] != os.getpid()


async def test_it_counts_what_is_asked_of_its_children_and_says_what_they_hold():
    """Figures go on when a child has gone; details are those of the children that there are."""
    async with opened() as sink:
        await sink(exchange_of("echo"))
        with trio.move_on_after(0.1) as gave_up:
            await sink(exchange_of("hang"))
        (child,) = sink.details()["children"]
        await sink.act("restart", {})
        while sink.children:  # noqa: ASYNC110  # nobody tells
            await trio.sleep(0.01)
        told = {figure.name: figure.value for figure in sink.figures()}

    assert gave_up.cancelled_caught
    assert (child["in_flight"], child["buffer_bytes"]["used"]) == (0, 0)
    assert child["buffer_bytes"]["capacity"] == sink.config.max_message
    assert (told["stdio_children"], told["upstream_waiting"]) == (0, 0)
    assert (told["upstream_replies_total"], told["upstream_unanswered_total"]) == (1, 1)
    assert told["upstream_reply_seconds_total"] > 0


async def test_nothing_is_started_before_it_is_used():
    """Opening only looks for the command."""
    async with opened() as sink:
        assert sink.children == 0


async def test_concurrent_first_calls_start_one_child_for_all_modern_clients():
    """They share it: their requests carry everything."""
    pids: set[int] = set()
    async with opened() as sink:

        async def call() -> None:
            pids.add(await pid_of(sink))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(call)

        assert sink.children == 1
    assert len(pids) == 1


async def test_each_session_has_a_child_of_its_own_until_it_ends():
    """What a legacy server remembers of one client never meets another."""
    async with opened() as sink:
        first, second = await begun(sink, "1"), await begun(sink, "2")
        pids = [await pid_of(sink, session) for session in (first, second, first)]
        shared = await pid_of(sink)

        assert pids[0] == pids[2]
        assert len({*pids, shared}) == 3

        first.close()
        while sink.children > 2:  # noqa: ASYNC110  # bounded by `opened`
            await trio.sleep(0.01)

        assert not psutil.pid_exists(pids[0])
        assert psutil.pid_exists(pids[1])
        with pytest.raises(SessionNotFound, match="initialize again"):
            await sink(exchange_of(session=first))


async def test_client_notifications_reach_the_child_of_their_session():
    """Those of a client without a child mean nothing to anybody, and start none."""
    session = a_session()
    async with opened() as sink:
        notification = memory_exchange(
            "notifications/initialized", client=Client(era=Era.LEGACY, version=None, session=session)
        )

        assert await sink(notification) == Result()
        assert sink.children == 0

        await sink(exchange_of(session=session, method="initialize"))
        await sink(notification)
        reply = await sink(exchange_of("heard", session=session))

        assert isinstance(reply, Result)
        assert reply.value["heard"][1] == {"jsonrpc": "2.0", "method": "notifications/initialized"}


async def test_progress_and_questions_travel_both_ways():
    """Tokens are the client's again, the client's answer reaches the child."""
    relayed: list[Notification] = []

    async def ask(method, params):
        return Result({"roots": [method]})

    async with opened() as sink:
        client = Client(era=Era.LEGACY, version=LATEST_LEGACY, session=await begun(sink))
        params = {"name": "progress", "_meta": {"progressToken": "mine"}}
        await sink(memory_exchange(params=params, interim=relayed))
        reply = await sink(memory_exchange(params={"name": "ask"}, client=client, ask=ask))

        assert [(n.params["progressToken"], n.params["progress"]) for n in relayed] == [("mine", i) for i in range(3)]
        assert isinstance(reply, Result)
        assert reply.value["answer"] == {"jsonrpc": "2.0", "id": "q", "result": {"roots": ["roots/list"]}}


async def test_a_cancelled_call_is_cancelled_at_the_child():
    """It hears `notifications/cancelled` with the id it knows."""
    async with opened() as sink:
        await sink(exchange_of())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink, exchange_of("hang"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        reply = await sink(exchange_of("heard"))

        assert isinstance(reply, Result)
        hang, cancelled = reply.value["heard"][1:3]
        assert (cancelled["method"], cancelled["params"]["requestId"]) == ("notifications/cancelled", hang["id"])


async def test_a_child_that_dies_fails_its_calls_with_its_last_words(monkeypatch):
    """Status and standard error are quoted, but no secret of its environment; the next call starts another child."""
    monkeypatch.setenv("SINK_TEST_KEY", "sesame")
    async with opened(env={"API_KEY": Secret(from_env="SINK_TEST_KEY")}) as sink:
        first = await pid_of(sink)
        outcomes: list[UpstreamClosed] = []

        async def call(name: str) -> None:
            with pytest.raises(UpstreamClosed) as caught:
                await sink(exchange_of(name))
            outcomes.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "hang")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(call, "die")

        assert [str(error) for error in outcomes] == [
            "files: the server exited with status 3 before it answered; its last words: fatal: out of luck, key ***"
        ] * 2
        assert outcomes[0].data == {"stderr": ["working on it", "fatal: out of luck, key ***"]}
        assert await pid_of(sink) != first


async def test_only_so_many_last_lines_are_quoted():
    """As many as stderr_lines says."""
    async with opened(stderr_lines=1) as sink:
        with pytest.raises(UpstreamClosed) as caught:
            await sink(exchange_of("die"))

        assert caught.value.data == {"stderr": ["fatal: out of luck, key None"]}


async def test_requests_that_wait_for_one_child_are_bounded():
    """One more than max_pending is refused."""
    async with opened(max_pending=1) as sink, trio.open_nursery() as nursery:
        nursery.start_soon(sink, exchange_of("hang"))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CapacityExceeded, match="raise max_pending"):
            await sink(exchange_of())

        nursery.cancel_scope.cancel()


async def test_a_crash_is_named_by_its_signal():
    """Nothing was said on standard error, so nothing is quoted."""
    async with opened() as sink:
        with pytest.raises(UpstreamClosed) as caught:
            await sink(exchange_of("crash"))

        assert str(caught.value) == "files: the server was killed by SIGABRT before it answered"
        assert caught.value.data == {}


async def test_a_session_ends_with_its_child():
    """What the child knew is gone, so the client has to initialize again; other sessions go on."""
    async with opened() as sink:
        session, other = await begun(sink, "1"), await begun(sink, "2")
        pid = await pid_of(sink, other)
        ended = trio.Event()
        session.on_close(ended.set)
        with pytest.raises(UpstreamClosed):
            await sink(exchange_of("die", session=session))

        assert not session.closed  # the answer to that call still has to leave through it
        with pytest.raises(SessionNotFound):
            await sink(exchange_of(session=session))

        await ended.wait()

        with pytest.raises(SessionNotFound):
            await sink(exchange_of(session=session))
        assert await pid_of(sink, other) == pid


async def test_a_session_without_a_handshake_here_has_to_make_one():
    """Its child belonged to an earlier configuration: a new one would not know it."""
    async with opened() as sink:
        with pytest.raises(SessionNotFound):
            await sink(exchange_of(session=a_session()))
        assert sink.children == 0


async def test_a_legacy_client_without_a_session_can_only_ping():
    """There is no child that could be its own."""
    client = Client(era=Era.LEGACY, version=None)
    async with opened() as sink:
        assert await sink(memory_exchange("ping", client=client)) == Result()
        with pytest.raises(InvalidMessage, match="tools/list needs a session"):
            await sink(memory_exchange("tools/list", client=client))
        assert sink.children == 0


async def test_the_environment_of_a_child_is_an_allowlist_and_what_is_declared(monkeypatch):
    """Case 43: a dump from inside the child."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("SINK_TEST_KEY", "sesame")
    async with opened(env={"MODE": "test", "API_KEY": Secret(from_env="SINK_TEST_KEY")}) as sink:
        reply = await sink(exchange_of("environment"))

    allowed = {"HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TEMP", "TERM", "TMP", "TMPDIR", "TZ", "USER"}
    assert isinstance(reply, Result)
    seen = {key for key in reply.value if not key.startswith("LC_")}
    assert seen - allowed == {"MODE", "API_KEY"}
    assert (reply.value["MODE"], reply.value["API_KEY"]) == ("test", "sesame")


async def test_a_child_runs_where_it_was_told_to(tmp_path):
    """Relative programs are looked for there too."""
    script = tmp_path / "serve"
    script.write_text(f"#!{sys.executable} -S\n" + (CHILDREN / "echo.py").read_text())
    script.chmod(0o755)
    async with opened(command=("./serve",), cwd=tmp_path) as sink:
        assert psutil.Process(await pid_of(sink)).cwd() == str(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"command": ("no-such-server", "--flag")}, "command 'no-such-server' was not found; install it"),
        ({"command": ()}, "command is empty"),
        ({"cwd": Path("/no/such/place")}, "cwd '/no/such/place' is not a directory"),
    ],
)
async def test_opening_names_what_is_missing(options, words):
    """Before anything is spawned."""
    with pytest.raises(ConnectFailed, match=words):
        async with sink_of(**options).open():
            pass


async def test_opening_fails_without_its_secret(monkeypatch):
    """The text names the variable."""
    monkeypatch.delenv("SINK_TEST_KEY", raising=False)
    with pytest.raises(LookupError, match="environment variable SINK_TEST_KEY is not set"):
        async with sink_of(env={"KEY": Secret(from_env="SINK_TEST_KEY")}).open():
            pass


async def test_a_program_that_cannot_be_executed_is_a_failed_connection(tmp_path):
    """It exists, but it is not a program; nothing was sent, so the call may be repeated."""
    script = tmp_path / "serve"
    script.write_bytes(b"\x7fELF nonsense")
    script.chmod(0o755)
    async with opened(command=(str(script),)) as sink:
        with pytest.raises(ConnectFailed, match="the server cannot be started: Exec format error") as caught:
            await sink(exchange_of())

        assert caught.value.retryable
        while sink.children:  # noqa: ASYNC110  # bounded by `opened`
            await trio.sleep(0.01)


async def test_children_are_bounded():
    """One more session than max_children is refused, and served when another has ended."""
    async with opened(max_children=2) as sink:
        first, _ = await begun(sink, "1"), await begun(sink, "2")
        with pytest.raises(CapacityExceeded, match="raise max_children"):
            await begun(sink, "3")

        first.close()
        while sink.children == 2:  # noqa: ASYNC110  # bounded by `opened`
            await trio.sleep(0.01)

        assert await pid_of(sink, await begun(sink, "3"))


async def test_what_a_child_says_is_not_logged_as_part_of_the_exchange_that_started_it():
    """Log context belongs to an exchange; the child outlives it."""
    context = contextvars.ContextVar("exchange", default="none")
    seen: dict[str, str] = {}

    class Log:
        """A logger that looks at the context of its callers."""

        def bind(self, **_: object) -> "Log":
            return self

        def info(self, event: str, **_: object) -> None:
            seen[event] = context.get()

    with trio.fail_after(30):
        sink = StdioSink(StdioSinkConfig(command=program("echo")), Context(id="files", log=Log()))
        async with sink.open():
            context.set("first")
            await sink(exchange_of("flood"))

    assert seen == {"server started": "first", "server stderr": "none", "server ended": "none"}


async def test_a_modern_client_of_a_legacy_server_is_refused_and_the_child_let_go() -> None:
    """Found out before its request is misunderstood; sessions are served as ever."""
    script = (
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    message = json.loads(line)\n"
        "    known = message['method'] == 'initialize'\n"
        "    answer = {'result': {}} if known else {'error': {'code': -32601, 'message': 'what?'}}\n"
        "    print(json.dumps({'jsonrpc': '2.0', 'id': message['id'], **answer}), flush=True)\n"
    )
    command = (sys.executable, "-S", "-c", script)
    with trio.fail_after(30):
        sink = StdioSink(StdioSinkConfig(command=command, stop_grace=0.5, translate=False), Context(id="files"))
        async with sink.open():
            for _ in range(2):
                with pytest.raises(UnsupportedVersion, match="initialize a session"):
                    await sink(exchange_of("x"))
            while sink.children:  # noqa: ASYNC110  # nobody tells
                await trio.sleep(0.01)
            client = legacy_client()
            reply = await sink(memory_exchange("initialize", {"protocolVersion": "2025-11-25"}, client=client))
            assert client.session is not None
            client.session.close()

    assert reply == Result({})


async def test_headers_are_compared_for_a_server_that_sees_none() -> None:
    """And a list that says its tools have changed makes the sink look again."""
    script = (
        "import json, sys\n"
        "schema = {'type': 'object', 'properties': {'region': {'type': 'string', 'x-mcp-header': 'Region'}}}\n"
        "for line in sys.stdin:\n"
        "    message = json.loads(line)\n"
        "    if message['method'] == 'tools/list':\n"
        "        result = {'tools': [{'name': 't', 'inputSchema': schema}]}\n"
        "    else:\n"
        "        result = {'supportedVersions': ['2026-07-28']}\n"
        "        print(json.dumps({'jsonrpc': '2.0', 'method': 'notifications/tools/list_changed'}))\n"
        "    print(json.dumps({'jsonrpc': '2.0', 'id': message['id'], 'result': result}), flush=True)\n"
    )
    command = (sys.executable, "-S", "-c", script)
    client = replace(MODERN_CLIENT, transport="http", headers={"mcp-param-region": "eu"})
    context, told = Context(id="files"), []
    context.changes.listen(lambda sink, notification: told.append((sink, notification.method)))

    def call(region: str) -> Exchange:
        return memory_exchange("tools/call", {"name": "t", "arguments": {"region": region}}, client=client)

    with trio.fail_after(30):
        sink = StdioSink(StdioSinkConfig(command=command, stop_grace=0.5), context)
        async with sink.open():
            assert isinstance(await sink(call("eu")), Result)
            with pytest.raises(HeaderMismatch):
                await sink(call("us"))

    assert {("files", "notifications/tools/list_changed")} == set(told)
