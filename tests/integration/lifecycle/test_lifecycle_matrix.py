"""
However a call ends early, on every sink and in both eras: what the upstream is told, what the client is, what comes
next.

Real sockets and real child processes, under the leak oracle: a task, child, descriptor or deadline that is left fails
the test. How long the upstream's notice takes is measured in bench/cancel.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import psutil
import pytest
import trio

from sluiceway.pipeline.runtime.engine import Engine

ERAS = pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
SINKS = pytest.mark.parametrize("sink", ["stdio", "http", "route-stdio", "route-http"])
pytestmark = [pytest.mark.real, ERAS, SINKS]


@attrs.define(eq=False)
class Scene:
    """A client, a gateway and an upstream."""

    world: Any
    client: Any
    engine: Engine

    async def seen(self, name: str, count: int = 1) -> Any:
        """The call as the upstream got it."""
        return await self.world.book.wait_for(count, what="request", name=name)

    async def works(self) -> None:
        """The next call is answered as if nothing had been."""
        assert await self.client.ask("echo", text="next") == "next"

    async def at_rest(self) -> None:
        """Nothing of the call is left in the gateway."""
        pipeline = self.engine.pipelines["main"]
        while pipeline.admission.in_flight or len(self.engine.deadlines):  # noqa: ASYNC110  # nobody tells
            await trio.sleep(0.001)


@pytest.fixture
def scene(world: Callable[..., Any], peer: Any, sink: str, modern: bool) -> Callable[..., Any]:
    """`async with scene(...) as s`: a gateway in this process whose client has shaken hands."""

    @asynccontextmanager
    async def make(*, pipeline: Any = None, **http: Any) -> AsyncIterator[Scene]:
        with trio.fail_after(30):
            async with world(sink, modern=modern) as around:
                engine = Engine(around.document(pipeline=pipeline, **http))
                async with engine.running():
                    port = int(str(engine.sources["web"].addresses[0]).rpartition(":")[2])  # type: ignore[attr-defined]  # an HTTP source
                    client = peer(port, modern=modern, prefix=around.prefix)
                    await client.start()
                    here = Scene(around, client, engine)
                    yield here
                    await client.leave()
                    await here.at_rest()

    return make


def reason(reply: Any) -> tuple[str, int]:
    """Why the gateway refused, and the code of that."""
    return reply["error"]["data"]["reason"], reply["error"]["code"]


async def test_a_client_that_is_gone(scene: Any, modern: bool) -> None:
    """Case 36. Modern: that is a cancel. Legacy: it is not, and whoever comes back gets the answer (2025-11-25)."""
    async with scene() as s:
        call = await s.client.call("hold", token="t")
        request = await s.seen("hold")
        if modern:
            await call.leave(rudely=True)
            await s.world.told_to_stop(request)
        else:
            await call.started()
            await call.leave(rudely=True)
            await s.client.ask("release")
            assert s.world.book.of(method="notifications/cancelled") == []
            again = await s.client.resume(call)
            assert (await again.reply())["result"]["content"][0]["text"] == "held"
            await again.leave()
        await s.works()


async def test_a_client_that_does_not_come_back(scene: Any) -> None:
    """When the window for resumption is over, the upstream is told in the legacy era as well."""
    async with scene(resume_window="1ms") as s:
        call = await s.client.call("hang")
        request = await s.seen("hang")
        await call.leave()
        await s.world.told_to_stop(request)
        await s.works()


async def test_a_call_that_is_cancelled(scene: Any, modern: bool) -> None:
    """With a notice, or by closing the stream that had begun; nobody is answered, and no notice is passed on twice."""
    async with scene() as s:
        call = await s.client.call("hang", token="t")
        request = await s.seen("hang")
        await call.started()
        if modern:
            await call.leave()
            await s.world.told_to_stop(request)
        else:
            status = await s.client.notify("notifications/cancelled", requestId=call.id, reason="enough")
            assert status == 202
            await s.world.told_to_stop(request)
            assert await call.reply() is None
            await call.leave()
        await s.works()
        assert len(s.world.book.of(method="notifications/cancelled")) <= 1


async def test_a_deadline_that_passes(scene: Any, modern: bool) -> None:
    """The client's own, although there was progress: 504 before the response has begun, an error in it afterwards."""
    async with scene(pipeline={"timeout_on_progress": "keep"}) as s:
        call = await s.client.call("hang", timeout_ms=300, token="t")
        request = await s.seen("hang")
        reply = await call.reply()
        await call.leave()

        assert reason(reply) == ("deadline_exceeded", 50400)
        assert reply["error"]["data"]["timeout_ms"] == 300
        assert call.status == 200  # it had begun
        await s.world.told_to_stop(request)
        await s.works()


async def test_an_upstream_that_hangs(scene: Any) -> None:
    """It says nothing at all; a child does not even read. What it was told, it finds when it wakes up."""
    async with scene() as s:
        await s.works()
        name, pid = ("hang", s.world.book.seen[-1]["pid"]) if s.world.over_stdio else ("silence", None)
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
        call = await s.client.call(name, timeout_ms=300)
        reply = await call.reply()
        await call.leave()

        assert reason(reply) == ("deadline_exceeded", 50400)
        assert call.status == (504 if s.world.modern else 200)
        if pid is not None:
            os.kill(pid, signal.SIGCONT)
        await s.world.told_to_stop(await s.seen(name))
        await s.works()


async def test_an_upstream_that_crashes_in_mid_call(scene: Any) -> None:
    """The client gets 502 with its own id; nobody is told to cancel what nobody serves; a child comes back."""
    async with scene() as s:
        call = await s.client.call("crash")
        crashed = await s.seen("crash")
        reply = await call.reply()
        await call.leave()

        assert reason(reply) == ("upstream_closed", 50201)
        assert reply["id"] == call.id
        if s.world.over_stdio:
            await s.world.book.wait_for(what="ended", pid=crashed["pid"])
            assert "exit code 7" in reply["error"]["message"] or "status 7" in reply["error"]["message"]
        assert s.world.book.of(method="notifications/cancelled") == []
        await s.works()
        assert [len(s.world.book.of(name="crash")), len(s.world.book.of(name="echo"))] == [1, 1]


async def test_an_upstream_that_cannot_start(world: Callable[..., Any], peer: Any, sink: str, modern: bool) -> None:
    """Its calls fail with why, behind a route only its own do (case 40); as soon as it can, it serves."""
    with trio.fail_after(30):
        async with world(sink, modern=modern, listening=False) as around:
            around.down.touch()
            engine = Engine(around.document())
            if around.over_stdio:
                await around.listen()  # the other one behind the route
            async with engine.running():
                port = int(str(engine.sources["web"].addresses[0]).rpartition(":")[2])  # type: ignore[attr-defined]  # an HTTP source
                client = peer(port, modern=modern, prefix=around.prefix)
                reply = await client.start()
                if modern or around.prefix:
                    call = await client.call("echo")
                    reply = await call.reply()
                    await call.leave()
                    assert reply["id"] == call.id

                if around.over_stdio:
                    assert reason(reply)[0] in ("upstream_closed", "upstream_unavailable")
                    assert "the licence has expired" in reply["error"]["message"]
                else:
                    assert reason(reply)[0] == (
                        "upstream_unavailable" if around.prefix and not modern else "connect_failed"
                    )
                    assert "Connection refused" in reply["error"]["message"]

                if around.prefix:
                    others = peer(port, modern=modern, prefix="other.", session=client.session)
                    assert await others.ask("echo", text="unaffected") == "unaffected"

                around.down.unlink()
                if not around.over_stdio:
                    await around.listen()
                await client.start()
                assert await client.ask("echo", text="next") == "next"
                await client.leave()


async def test_a_gateway_that_is_told_to_end(
    world: Callable[..., Any], peer: Any, sink: str, modern: bool, tmp_path: Path
) -> None:
    """SIGTERM with calls in flight: who is not done in time is refused as draining, upstreams are told, exit is 0."""
    with trio.fail_after(50):
        async with world(sink, modern=modern) as around:
            config = tmp_path / "gateway.yaml"
            config.write_text(json.dumps(around.data(run={"drain_timeout": "300ms", "log_level": "info"})))
            command = [sys.executable, "-c", "from sluiceway.pipeline.cli import main; import sys; sys.exit(main())"]
            process = subprocess.Popen([*command, "run", str(config)], stderr=subprocess.PIPE)  # noqa: ASYNC220  # a millisecond
            with process:
                assert process.stderr is not None
                port = await trio.to_thread.run_sync(_port, process.stderr)
                client = peer(port, modern=modern, prefix=around.prefix)
                await client.start()
                calls = [await client.call("hang", token=number) for number in range(3)]
                for number in range(3):
                    await around.book.wait_for(number + 1, what="request", name="hang")
                finishes = await client.call("hold")
                held = await around.book.wait_for(what="request", name="hold")
                family = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGTERM)
                refusals = [await call.reply() for call in [*calls, finishes]]
                for call in [*calls, finishes]:
                    await call.leave()
                await trio.to_thread.run_sync(process.stderr.read)
                code = await trio.to_thread.run_sync(process.wait)

            assert [reason(reply) for reply in refusals] == [("draining", 50300)] * 4
            assert code == 0
            assert held["id"] is not None
            notices = around.book.of(what="notice", method="notifications/cancelled")
            told = [each["params"]["requestId"] for each in notices] or [e["id"] for e in around.book.of(what="closed")]
            asked = [each["id"] for each in around.book.of(what="request") if each["name"] in ("hang", "hold")]
            assert sorted(told) == sorted(asked)
            assert not [each for each in family if each.is_running()]


def _port(stderr: Any) -> int:
    """Where a gateway listens that has just been started."""
    for line in stderr:
        event = json.loads(line) if line.startswith(b"{") else {}
        if event.get("event") == "gateway ready":
            return int(event["web"][0].rpartition(":")[2].removesuffix("/mcp"))
    raise AssertionError("the gateway did not become ready")
