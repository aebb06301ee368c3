"""Several workers behind one address: what dies, what is changed, what ends, and what nobody notices of it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h11
import psutil
import pytest
import trio

from .conftest import Client, Gateway, gone, kill, tools

pytestmark = pytest.mark.real

HUNG_UP = (OSError, trio.BrokenResourceError, h11.RemoteProtocolError)


class Load:
    """Clients that call without end, and come back when their connection breaks."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.answered = 0
        self.broken = 0
        self.wrong: list[Any] = []
        self._more = trio.Event()

    async def run(self) -> None:
        while True:
            with suppress(*HUNG_UP):
                async with Client(self._gateway.port) as client:
                    while not client.is_over:
                        await self._call(client)
            self.broken += 1
            await trio.sleep(0.01)

    async def _call(self, client: Client) -> None:
        answer = await client.call(text="x")
        if not isinstance(answer, dict) or "result" not in answer:
            self.wrong.append(answer)
        self.answered += 1
        self._more.set()

    async def until(self, more: int) -> None:
        """Wait until so many more calls are answered."""
        wanted = self.answered + more
        while self.answered < wanted:
            self._more = trio.Event()
            await self._more.wait()


async def test_a_worker_that_is_killed_takes_its_own_calls_with_it_and_is_replaced(
    start: Callable[..., Any],
) -> None:
    """The others go on, what a client asks anew is served, and soon there are as many workers as before."""
    with trio.fail_after(60), start() as gateway:
        load = Load(gateway)
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(load.run)
            await load.until(40)
            victim, other = gateway.workers()
            kill(victim)
            died = await gateway.event("worker died", pid=victim.pid)
            back = await gateway.event("worker ready", worker=died["worker"])
            await load.until(40)
            status = await gateway.admin("/-/status")
            nursery.cancel_scope.cancel()

    assert died["how"] == "ended by signal 9"
    assert back["web"] == [f"127.0.0.1:{gateway.port}"]
    assert load.wrong == []
    assert load.broken <= 4
    assert [row["state"] for row in status["workers"]] == ["ready", "ready"]
    assert other.pid in {row["pid"] for row in status["workers"]}
    assert victim.pid not in {row["pid"] for row in status["workers"]}


async def test_nothing_outlives_a_supervisor_that_is_killed(start: Callable[..., Any]) -> None:
    """Its workers answer what they have, end, and the address can be bound again."""
    answers = []

    async def call(client: Client) -> None:
        answers.append(await client.call("countdown", seconds=1))

    with trio.fail_after(60), start() as gateway:
        async with Client(gateway.port) as client, trio.open_nursery() as nursery:
            await client.call(text="x")
            family = gateway.family()
            nursery.start_soon(call, client)
            await _in_flight(gateway, 1)
            kill(psutil.Process(gateway.pid))
        await gone(family)
        again = await trio.open_tcp_listeners(gateway.port, host="127.0.0.1")
        for listener in again:
            await listener.aclose()

    assert len(family) == 3
    assert "result" in answers[0]


async def test_sigterm_drains_all_workers(start: Callable[..., Any]) -> None:
    """What is under way is answered, whoever has it; then all end, with exit code 0."""
    answers = []

    async def call() -> None:
        async with Client(gateway.port) as client:
            answers.append(await client.call("countdown", seconds=1))

    with trio.fail_after(60), start() as gateway:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(call)
            await _in_flight(gateway, 4)
            status = await gateway.admin("/-/status")
            family = gateway.family()
            gateway.signal(signal.SIGTERM)
        code = await trio.to_thread.run_sync(gateway.wait)
        await gone(family)

    assert code == 0
    assert [("result" in answer) for answer in answers] == [True] * 4
    assert sum(row["connections"] for row in status["workers"]) == 4


async def test_a_reload_is_served_by_every_worker_or_by_none(start: Callable[..., Any]) -> None:
    """A good one reaches both; one that a worker cannot open changes nothing; nor does a file that is broken."""
    with trio.fail_after(60), start() as gateway:
        changed = tools()
        changed["run"] = gateway.data["run"]
        changed["sinks"]["demo"] = {"embedded": {"name": "another name"}}
        gateway.write(changed)
        gateway.signal(signal.SIGHUP)
        await gateway.event("reloaded", workers=2)
        names = [await _server_name(gateway, number) for number in (0, 1)]

        gateway.write({**changed, "stores": {"s": {"sqlite": {"path": "/nowhere/at/all.db"}}}})
        gateway.signal(signal.SIGHUP)
        unopened = await gateway.event("reload refused; every worker goes on with the running configuration")
        gateway.write("version: 1\npipelines: {main: {")
        gateway.signal(signal.SIGHUP)
        unread = await gateway.event("reload refused; every worker goes on with the running configuration")

        victim = gateway.workers()[0]
        kill(victim)  # who comes in its place must not read the broken file
        died = await gateway.event("worker died", pid=victim.pid)
        await gateway.event("worker ready", worker=died["worker"])
        after = [await _server_name(gateway, number) for number in (0, 1)]
        status = await gateway.admin("/-/status")

    assert names == after == ["another name", "another name"]
    assert "stores.s" in unopened["error"]
    assert "gateway.yaml" in unread["error"]
    assert status["generation"] == 2


async def test_workers_are_renewed_one_by_one_and_nobody_notices(start: Callable[..., Any]) -> None:
    """
    Every process is another one, even an address has changed, and nobody was turned away: at most a request that came
    in the moment in which its worker began to drain was asked to come again.
    """
    with trio.fail_after(60), start() as gateway:
        load = Load(gateway)
        before = {worker.pid for worker in gateway.workers()}
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(load.run)
            await load.until(20)
            more = json.loads(gateway.file.read_text())
            more["sources"]["more"] = {"http": {"bind": "127.0.0.1:0"}, "pipeline": "main"}
            gateway.write(more)
            gateway.signal(signal.SIGUSR2)
            await gateway.event("workers renewed", workers=2)
            await load.until(20)
            status = await gateway.admin("/-/status")
            nursery.cancel_scope.cancel()
        after = {worker.pid for worker in gateway.workers()}

    assert {answer["error"]["data"]["reason"] for answer in load.wrong} <= {"draining"}
    assert len(load.wrong) <= 4
    assert len(before | after) == 4
    assert "sources.more" in {row["id"] for row in status["components"]}


async def test_what_workers_say_comes_out_as_of_one_gateway(start: Callable[..., Any]) -> None:
    """Counts are added up in status and metrics, actions reach all, and each worker can be asked by its number."""
    data = tools()
    data["pipelines"]["main"]["chain"] = ["trace", "request_id", "metrics", "cache"]
    with trio.fail_after(60), start(data) as gateway:
        for _ in range(2):
            async with Client(gateway.port) as one, Client(gateway.port) as two:
                for client in (one, two):
                    assert "result" in await client.ask("tools/list")
        status = await gateway.admin("/-/status")
        metrics = await gateway.admin("/-/metrics")
        each = [await gateway.admin(f"/-/workers/{number}/status") for number in (0, 1)]
        spans = (await gateway.admin("/-/traces"))["spans"]
        parts = [(await gateway.admin(f"/-/workers/{number}/traces"))["spans"] for number in (0, 1)]
        latest = (await gateway.admin("/-/traces?limit=2"))["spans"]
        one = (await gateway.admin(f"/-/traces?trace={parts[1][0]['trace_id']}"))["spans"]
        cache = await gateway.admin("/-/components/pipelines.main.cache")
        done = await gateway.admin("/-/components/pipelines.main.cache/purge", "POST")
        unknown = await gateway.admin("/-/workers/7/status")
        async with Client(gateway.port) as client:
            healthy, _, _ = await client.send("GET", "/healthz")
            ready, _, _ = await client.send("GET", "/readyz")
        await gateway.admin("/-/components/run.workers/renew", "POST")
        await gateway.event("workers renewed")

    assert (healthy, ready) == (200, 200)
    assert status["pipelines"][0]["served"] == 4
    assert sum(row["pipelines"][0]["served"] for row in each) == 4
    assert 'sluiceway_pipeline_exchanges_total{end="served",pipeline="main"} 4.0' in metrics
    assert 'sluiceway_workers{state="ready"} 2.0' in metrics
    assert spans == sorted((*parts[0], *parts[1]), key=lambda span: span["start_ns"], reverse=True)
    assert all(parts)
    assert latest == spans[:2]
    assert {span["trace_id"] for span in one} == {parts[1][0]["trace_id"]}
    assert "purge" in cache["actions"]
    assert "result" in done
    assert "there are: 0, 1" in unknown["error"]


async def _in_flight(gateway: Gateway, number: int) -> None:
    """Wait until so many calls are under way."""
    while True:
        status = await gateway.admin("/-/status")
        if sum(row["in_flight"] for row in status["pipelines"]) >= number:
            return
        await trio.sleep(0.02)


async def _server_name(gateway: Gateway, number: int) -> str:
    """What the server of one worker calls itself, asked on connections until that worker has one."""
    while True:
        before = await gateway.admin(f"/-/workers/{number}/status")
        async with Client(gateway.port) as client:
            answer = await client.ask("server/discover")
            after = await gateway.admin(f"/-/workers/{number}/status")
        if after["pipelines"][0]["served"] > before["pipelines"][0]["served"]:
            return str(answer["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"])


async def test_a_session_is_served_whichever_worker_its_client_meets(start: Callable[..., Any]) -> None:
    """Calls, progress, the session's own stream and its end reach the worker in which it lives."""
    with trio.fail_after(60), start() as gateway:
        async with Client(gateway.port) as first, Client(gateway.port) as second, Client(gateway.port) as third:
            session = await first.begin()
            second.session = third.session = session  # of three connections, both workers have one
            sums = [await each.call("add", a=1, b=2) for each in (first, second, third, first, second, third)]
            told = await second.call("countdown", seconds=1)
            headers = {"mcp_session_id": session, "mcp_protocol_version": "2025-11-25"}
            ended = [(await each.send("DELETE", "/mcp", b"", **headers))[0] for each in (third, second)]
            stranger = await second.send("DELETE", "/mcp", mcp_session_id=f"{session[:-1]}9")
        metrics = await gateway.admin("/-/metrics")

    counts = dict(line.rpartition("{")[::2] for line in metrics.splitlines() if line.startswith("sluiceway_http_"))
    passed, moved = (counts[f"sluiceway_http_{name}_total"].rpartition(" ")[2] for name in ("passed_on", "moved"))
    assert [each["result"]["content"][0]["text"] for each in sums] == ["3.0"] * 6
    assert "result" in told
    assert ended == [200, 404]
    assert stranger[0] == 404
    assert passed == moved
    assert float(passed) in (1.0, 2.0)  # each client that met the wrong worker was passed on once, and then followed


STUCK = '''
import time

from sluiceway.pipeline.model.component import Middleware


class Stuck(Middleware):
    """Waits as nothing may that shares its event loop with others."""

    name = "stuck"

    async def __call__(self, exchange, call_next):
        if exchange.request.params.get("arguments", {}).get("text") == "stick":
            time.sleep(600)
        return await call_next(exchange)
'''


async def test_a_worker_that_hangs_is_ended_and_replaced(start: Callable[..., Any], tmp_path: Path) -> None:
    """The log says where it hung; the other one serves meanwhile, and an alert fires."""
    plugin = tmp_path / "stuck.py"
    plugin.write_text(STUCK)
    data = tools(hang_timeout="4s", alerts={"every": "100ms"})
    data["plugins"] = [str(plugin)]
    data["pipelines"]["main"]["chain"] = ["stuck"]
    with trio.fail_after(60), start(data) as gateway:
        async with Client(gateway.port) as unlucky, trio.open_nursery() as nursery:

            async def stick() -> None:
                with suppress(*HUNG_UP):
                    await unlucky.call(text="stick")

            nursery.start_soon(stick)
            hung = await gateway.event("worker hangs, and is ended")
            died = await gateway.event("worker died", pid=hung["pid"])
            fired = await gateway.event("alert firing", rule="worker_hung")
            await gateway.event("worker ready", worker=died["worker"])
            nursery.cancel_scope.cancel()
        async with Client(gateway.port) as client:
            answer = await client.call(text="x")
        metrics = await gateway.admin("/-/metrics")
        alerts = await gateway.admin("/-/alerts")

    assert died["how"] == "it hung"
    assert any("stuck.py" in line["event"] for line in gateway.seen)
    assert "result" in answer
    assert fired["severity"] == "critical"
    assert "sluiceway_worker_hangs_total 1.0" in metrics
    assert 'sluiceway_alerts{rule="worker_hung",severity="critical"} 1.0' in metrics
    assert "worker_hung" in {alert["rule"] for alert in alerts["alerts"]}
    assert [rule["firing"] for rule in alerts["rules"] if rule["rule"] == "worker_hung"] == [1]
