"""Active probes, on the mock clock."""

from __future__ import annotations

import pytest
import trio

from sluiceway.pipeline.model.component import State
from sluiceway.pipeline.protocol.errors import CapacityExceeded, ConnectFailed, SessionNotFound, UnsupportedVersion
from sluiceway.pipeline.protocol.messages import ErrorReply, Result
from sluiceway.pipeline.replay.turns import taking_turns

FAST = {"probe": "discover", "interval": "10s", "timeout": "2s"}
FIRST_PROBES = {"a": 5.3, "b": 1.7, "c": 2.8}


async def test_nobody_waits_for_a_first_probe(autojump_clock, group):
    """Nothing bad is known of a new upstream."""
    async with group("a", health=FAST) as made:
        assert await made.call() == "a"
        assert made.ups["a"].probes == 0


async def test_a_dead_upstream_is_out_within_an_interval_and_back_within_another(autojump_clock, group):
    """Without a request that finds out; the supervisor hears of it."""
    async with group("a", "b", health=FAST, panic_threshold="0%") as made:
        await trio.sleep(30)
        made.ups["a"].error = ConnectFailed("dead")
        await trio.sleep(10 + 1 + 0.1)
        assert made.state("a") == "down"
        assert made.reports[-1] == (State.DEGRADED, "1 of 2 upstreams are out: a")
        assert await made.calls(20) == {"b": 20}
        made.ups["a"].error = None
        await trio.sleep(10.1)

        assert made.state("a") == "ready"
        assert made.reports[-1] == (State.READY, "")
        assert set(await made.calls(20)) == {"a", "b"}


async def test_an_upstream_that_hangs_is_down(autojump_clock, group):
    """Its time for an answer is over."""
    async with group("a", "b", health={**FAST, "unhealthy_after": 1}) as made:
        made.ups["a"].delay = 2.5
        made.ups["b"].delay = 1.5
        await trio.sleep(13)

        assert [made.state(name) for name in "ab"] == ["down", "ready"]


async def test_it_takes_so_many_probes_to_change(autojump_clock, group):
    """Three that fail, after the first one a tenth of the interval apart; then two that succeed."""
    health = {**FAST, "unhealthy_after": 3, "healthy_after": 2}
    async with group("a", "b", health=health) as made:
        made.ups["a"].error = ConnectFailed("dead")
        while made.ups["a"].probes < 2:  # noqa: ASYNC110  # the mock clock: nobody waits
            await trio.sleep(0.5)
        assert made.state("a") == "ready"
        await trio.sleep(1.5)
        assert made.state("a") == "down"
        made.ups["a"].error = None
        await trio.sleep(10.1)
        assert made.state("a") == "down"
        await trio.sleep(10)

        assert made.state("a") == "ready"


async def test_a_probe_takes_back_who_failures_have_put_out(autojump_clock, group):
    """Before its time, since it is well."""
    async with group("a", "b", health=FAST, eject={"consecutive": 1, "base": "10m", "max": "1h"}) as made:
        made.ups["a"].error = ConnectFailed("dead")
        await made.calls(10)
        assert made.state("a") == "ejected"
        made.ups["a"].error = None
        await trio.sleep(10.1)

        assert made.state("a") == "ready"


@pytest.mark.parametrize(
    "outcome", [UnsupportedVersion("no"), ErrorReply(-32601, "what?"), CapacityExceeded("our own limit"), Result()]
)
async def test_any_answer_is_a_sign_of_life(autojump_clock, group, outcome):
    """Also one that says no; and our own limits say nothing about it."""
    async with group("a", "b", health={**FAST, "unhealthy_after": 1}) as made:
        if isinstance(outcome, Exception):
            made.ups["a"].error = outcome
        else:
            made.ups["a"].answers["server/discover"] = lambda _: outcome
        await trio.sleep(30)

        assert made.ups["a"].probes >= 3
        assert made.state("a") == "ready"


async def test_an_upstream_that_breaks_is_down(autojump_clock, group):
    """-32603 is an answer, but not of somebody who is well."""
    async with group("a", "b", health={**FAST, "unhealthy_after": 1}) as made:
        made.ups["a"].answers["server/discover"] = lambda _: ErrorReply(-32603, "broken")
        await trio.sleep(11)

        assert made.state("a") == "down"


async def test_pings_go_through_a_session_of_their_own(autojump_clock, group):
    """Opened once, closed with the sink."""
    seen = []
    async with group("a", health={**FAST, "probe": "ping"}) as made:

        async def serve(exchange):
            seen.append((exchange.method, exchange.client.session))
            if exchange.method == "initialize":
                return Result({"protocolVersion": "2025-06-18"})
            return Result()

        made.sink._open.group.members[0].service = serve
        made.ups["a"].answers["initialize"] = lambda _: Result({"protocolVersion": "2025-06-18"})
        await trio.sleep(1)
    assert seen == []
    async with group("a", health={**FAST, "probe": "ping"}) as made:
        sessions = set()

        def note(exchange):
            sessions.add(exchange.client.session)
            return Result({"protocolVersion": "2025-06-18"})

        made.ups["a"].answers = dict.fromkeys(("initialize", "ping", "notifications/initialized"), note)
        await trio.sleep(35)
        (session,) = sessions
        assert session.version == "2025-06-18"
        assert made.ups["a"].probes >= 5
        assert not session.closed

    assert session.closed


async def test_a_session_that_was_forgotten_is_opened_again(autojump_clock, group):
    """An upstream that has restarted is well."""
    async with group("a", "b", health={**FAST, "probe": "ping", "unhealthy_after": 1}) as made:
        known = set()

        def hello(exchange):
            known.add(exchange.client.session)
            return Result({"protocolVersion": "2025-11-25"})

        def ping(exchange):
            if exchange.client.session not in known:
                raise SessionNotFound("no such session")
            return Result()

        made.ups["a"].answers = {"initialize": hello, "ping": ping}
        await trio.sleep(15)
        known.clear()
        await trio.sleep(11)

        assert len(known) == 1
        assert made.state("a") == "ready"


async def test_a_ping_that_cannot_open_a_session_fails(autojump_clock, group):
    """The upstream is not there."""
    async with group("a", "b", health={**FAST, "probe": "ping", "unhealthy_after": 1}) as made:
        made.ups["a"].error = ConnectFailed("dead")
        made.ups["b"].answers["initialize"] = lambda _: ErrorReply(-32602, "no such version")
        await trio.sleep(11)

        assert [made.state(name) for name in "ab"] == ["down", "ready"]


@pytest.mark.parametrize("last", [0, -1])
async def test_when_an_upstream_is_probed_does_not_depend_on_which_task_runs_first(autojump_clock, group, last):
    """Each draws from chance of its own, so that a replay probes when the gateway did."""
    with taking_turns(lambda tasks: tasks[last]):
        async with group("a", "b", "c", health=FAST) as made:
            times = {}
            while len(times) < 3:  # the mock clock: nobody waits
                await trio.sleep(0.1)
                for name in "abc":
                    if made.ups[name].probes:
                        times.setdefault(name, round(trio.current_time(), 1))

    assert times == FIRST_PROBES
