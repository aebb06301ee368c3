"""Who gets a place on which HTTP/2 connection, and how long connections are kept."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hyperframe.frame import GoAwayFrame, SettingsFrame

from sluiceway.pipeline.protocol.errors import CapacityExceeded, ConnectFailed, UpstreamClosed
from sluiceway.transports.http_client.client import Use
from sluiceway.transports.http_client.connect import AddressRefused, DialFailed
from sluiceway.transports.http_client.statistics import End, figures_of, shown

MAX_STREAMS = SettingsFrame.MAX_CONCURRENT_STREAMS


def holding(gate: trio.Event, settings: dict[int, int] | None = None) -> Any:
    """A server that answers nothing before the gate is open, and notes the most it had in hand."""

    async def serve(peer: Any) -> None:
        await peer.greet(settings)
        peer.in_hand = peer.most = 0
        async with trio.open_nursery() as nursery:

            async def answer(asked: Any) -> None:
                peer.in_hand += 1
                peer.most = max(peer.most, peer.in_hand)
                await gate.wait()
                peer.in_hand -= 1
                await peer.answer(asked, asked.body)

            while True:
                nursery.start_soon(answer, await peer.request())

    return serve


def ended(kit: Any, use: str = "call") -> dict[str, int]:
    """How many connections were closed, by reason."""
    return {end.value: count for end, count in kit.client.reports()[use].counts.ended.items() if count}


async def test_the_peers_limit_holds_and_who_waits_is_served_in_order(h2, autojump_clock):
    """With one connection: three at a time, first come, first served."""
    gate, order = trio.Event(), []
    async with h2.speaking(holding(gate, {MAX_STREAMS: 3}), max_connections=1) as kit:

        async def one(number: int) -> None:
            await kit.ask(b"%d" % number)
            order.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(one, number)
                await trio.sleep(0.1)
            report = kit.client.reports()["call"]
            assert (report.open, report.requests, report.waiting) == (1, 3, 9)
            gate.set()

        assert sorted(order) == list(range(12))
        assert order[3:] == sorted(order[3:])
        assert kit.server.peers[0].most == 3
        assert kit.client.reports()["call"].counts.waited == 10


async def test_another_connection_is_opened_when_all_are_full(h2, autojump_clock):
    """As few as carry the requests, and no more than there may be."""
    gate = trio.Event()
    async with h2.speaking(holding(gate, {MAX_STREAMS: 2}), max_connections=3) as kit, trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(kit.ask)
            await trio.sleep(1)
        assert [peer.most for peer in kit.server.peers] == [2, 2, 2]
        assert kit.client.reports()["call"].waiting == 2
        gate.set()


async def test_a_burst_opens_no_more_connections_than_it_needs(h2, autojump_clock):
    """Those that come while one is being opened wait for it."""
    gate = trio.Event()
    gate.set()
    async with h2.speaking(holding(gate)) as kit:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(kit.ask)
        assert len(kit.server.peers) == 1


@pytest.mark.parametrize("busy", [0, 1])
async def test_the_fullest_connection_with_room_is_used(h2, autojump_clock, busy):
    """Be it the older or the younger one."""
    gates = [trio.Event() for _ in range(5)]

    async def serve(peer: Any) -> None:
        await peer.greet({MAX_STREAMS: 2})
        peer.asked = []
        async with trio.open_nursery() as nursery:

            async def answer(asked: Any) -> None:
                await gates[int(asked.body)].wait()
                await peer.answer(asked)

            while True:
                asked = await peer.request()
                peer.asked.append(int(asked.body))
                nursery.start_soon(answer, asked)

    async with h2.speaking(serve) as kit, trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(kit.ask, b"%d" % number)
            await trio.sleep(1)
        assert [peer.asked for peer in kit.server.peers] == [[0, 1], [2, 3]]
        for number in {0, 1, 2, 3} - {2 * busy}:
            gates[number].set()
        await trio.sleep(1)
        nursery.start_soon(kit.ask, b"4")
        await trio.sleep(1)
        assert kit.server.peers[busy].asked[-1] == 4
        for gate in gates:
            gate.set()


async def test_a_connection_that_is_not_needed_comes_to_rest(h2, autojump_clock):
    """And is closed."""
    gate = trio.Event()
    async with h2.speaking(holding(gate, {MAX_STREAMS: 2}), idle_s=10.0) as kit:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(kit.ask)
            await trio.sleep(1)
            gate.set()
        for _ in range(20):
            await kit.ask()
            await trio.sleep(1)
        assert kit.client.reports()["call"].open == 1
        assert ended(kit) == {"idle": 1}


async def test_a_limit_that_is_raised_lets_more_in(h2, autojump_clock):
    """Settings may change at any time; nought means: not now."""

    async def serve(peer: Any) -> None:
        await peer.greet({MAX_STREAMS: 0})
        await trio.sleep(5)
        await peer.send(SettingsFrame(0, settings={MAX_STREAMS: 1}))
        await peer.serve()

    async with h2.speaking(serve) as kit:
        started = trio.current_time()
        assert await kit.ask(b"x") == b"200 x"
        assert trio.current_time() - started > 5
        assert len(kit.server.peers) == 1


async def test_a_limit_that_is_lowered_is_honoured_for_what_comes_next(h2, autojump_clock, nothing_left):
    """What is under way goes on."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        asked = [await peer.request() for _ in range(3)]
        await peer.send(SettingsFrame(0, settings={MAX_STREAMS: 1}))
        await trio.sleep(5)
        for each in asked:
            await peer.answer(each, each.body)
        await peer.serve()

    async with h2.speaking(serve, max_connections=1) as kit:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(kit.ask)
            await trio.sleep(1)
            nursery.start_soon(kit.ask)
            await trio.sleep(1)
            assert kit.client.reports()["call"].waiting == 1
        nothing_left(kit)


async def test_only_so_many_may_wait_and_who_gives_up_makes_room(h2, autojump_clock, nothing_left):
    """One more is refused, whatever is free later."""
    gate = trio.Event()
    async with h2.speaking(holding(gate, {MAX_STREAMS: 1}), max_connections=1, max_waiting=2) as kit:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kit.ask)
            await trio.sleep(1)
            with trio.move_on_after(1):
                async with trio.open_nursery() as inner:
                    inner.start_soon(kit.ask)
                    inner.start_soon(kit.ask)
                    await trio.sleep(0.5)
                    with pytest.raises(CapacityExceeded, match="raise max_connections"):
                        await kit.ask()
            assert kit.client.reports()["call"].waiting == 0
            nursery.start_soon(kit.ask)
            gate.set()
        nothing_left(kit)
        assert kit.client.reports()["call"].counts.refused == 1


async def test_streams_words_and_calls_have_connections_of_their_own(h2, autojump_clock, nothing_left):
    """What needs a place in order to give one back never waits for the same one; a stream too many is refused."""
    gate = trio.Event()
    async with h2.speaking(holding(gate), max_streams=2) as kit, trio.open_nursery() as nursery:
        for use in (Use.CALL, Use.STREAM, Use.STREAM, Use.WORD):
            nursery.start_soon(lambda use=use: kit.ask(use=use))
        await trio.sleep(1)
        assert {use: report.requests for use, report in kit.client.reports().items()} == {
            "call": 1,
            "stream": 2,
            "word": 1,
        }
        with pytest.raises(CapacityExceeded):
            await kit.ask(use=Use.STREAM)
        gate.set()


@pytest.mark.parametrize("kind", [DialFailed, AddressRefused])
async def test_who_waits_for_a_connection_that_cannot_be_opened_is_told(h2, autojump_clock, nothing_left, kind):
    """All of them, with the reason; the next one tries again."""
    async with h2.speaking(h2.greeted) as kit:
        kit.server.failure = kind("no way")
        async with trio.open_nursery() as nursery:

            async def fails() -> None:
                with pytest.raises(ConnectFailed, match="up: the upstream cannot be reached: no way") as caught:
                    await kit.ask()
                assert (caught.value.event == "address_refused") is (kind is AddressRefused)

            for _ in range(5):
                nursery.start_soon(fails)
        nothing_left(kit)
        kit.server.failure = None
        assert await kit.ask(b"x") == b"200 x"


async def test_while_others_serve_nobody_fails_because_one_more_cannot_be_opened(h2, autojump_clock):
    """A place may become free."""
    gate = trio.Event()
    async with h2.speaking(holding(gate, {MAX_STREAMS: 1})) as kit, trio.open_nursery() as nursery:
        nursery.start_soon(kit.ask)
        await trio.sleep(1)
        kit.server.failure = DialFailed("no way")
        for _ in range(3):
            nursery.start_soon(kit.ask, b"patient")
        for _ in range(100):
            await kit.server.peers[0].window(0, 1)
            await trio.sleep(0.02)
        assert kit.server.dialled <= 7
        gate.set()


async def test_who_is_cancelled_while_a_connection_is_opened_takes_nothing_from_the_others(
    h2, autojump_clock, nothing_left
):
    """It is opened all the same."""
    async with h2.speaking(h2.greeted) as kit:
        with trio.move_on_after(0.005):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(kit.ask)
                await trio.sleep(0.001)
                nursery.start_soon(kit.ask)
        assert await kit.ask() == b"200 hello"
        assert len(kit.server.peers) == 1
        nothing_left(kit)


@pytest.mark.parametrize("settings_too", [False, True])
async def test_a_peer_that_closes_every_connection_at_once_is_not_dialled_for_ever(
    h2, autojump_clock, nothing_left, settings_too
):
    """Before or after its settings."""

    async def serve(peer: Any) -> None:
        if settings_too:
            await peer.greet()
            await peer.goaway(0)

    async with h2.speaking(serve) as kit:
        with pytest.raises((ConnectFailed, UpstreamClosed)):
            await kit.ask()
        assert len(kit.server.peers) <= 3
        nothing_left(kit)
        await trio.sleep(2)
        assert kit.server.open == 0


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_a_peer_that_does_not_speak_http2_is_not_waited_for(h2, autojump_clock, nothing_left, says):
    """Nor if it says nothing at all."""

    async def serve(peer: Any) -> None:
        if says:
            await peer.raw(says)
        await trio.sleep(60)

    async with h2.speaking(serve) as kit:
        with pytest.raises(ConnectFailed, match="HTTP/2"):
            await kit.ask()
        assert trio.current_time() < 20
        assert kit.server.open == 0
        nothing_left(kit)


async def test_a_connection_at_rest_is_closed_with_a_goodbye(h2, autojump_clock):
    """After keep_idle."""
    goodbyes: list[int] = []

    async def serve(peer: Any) -> None:
        await peer.greet()
        await peer.answer(await peer.request())
        goodbyes.append((await peer.until(GoAwayFrame)).error_code)

    async with h2.speaking(serve, idle_s=30.0) as kit:
        await kit.ask()
        await trio.sleep(29)
        assert kit.server.open == 1
        await trio.sleep(10)
        assert kit.server.open == 0
        assert goodbyes == [0]
        assert ended(kit) == {"idle": 1}


@pytest.mark.parametrize(
    ("limits", "connections"),
    [({}, 1), ({"soft_uses": 3}, 4), ({"hard_uses": 3}, 4), ({"soft_uses": 3, "max_connections": 1}, 4)],
)
async def test_a_worn_connection_is_replaced_between_requests(h2, autojump_clock, limits, connections):
    """No request notices."""
    async with h2.speaking(h2.greeted, **limits) as kit:
        for number in range(10):
            assert await kit.ask(b"%d" % number) == b"200 %d" % number
        assert len(kit.server.peers) == connections
        assert ended(kit) == ({"old": connections - 1} if connections > 1 else {})


@pytest.mark.parametrize(("limits", "moved"), [({}, True), ({"max_connections": 1}, False)])
async def test_a_worn_connection_under_load_is_left_by_new_requests(h2, autojump_clock, nothing_left, limits, moved):
    """If another may be opened; what is on it goes on."""
    gate = trio.Event()
    async with h2.speaking(holding(gate), soft_age_s=10.0, **limits) as kit:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kit.ask)
            await trio.sleep(12)
            nursery.start_soon(kit.ask)
            await trio.sleep(1)
            assert [peer.in_hand for peer in kit.server.peers] == ([1, 1] if moved else [2])
            gate.set()
        await trio.sleep(1)
        nothing_left(kit)
        assert ended(kit) == {"old": 1}


async def test_after_renew_new_requests_go_on_new_connections(h2, autojump_clock, nothing_left):
    """Also if one was being opened; those under way end where they are."""
    gate = trio.Event()
    async with h2.speaking(holding(gate)) as kit:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kit.ask)
            await trio.sleep(1)
            kit.client.renew()
            nursery.start_soon(kit.ask)
            await trio.sleep(0.005)
            kit.client.renew()
            await trio.sleep(1)
            assert [peer.in_hand for peer in kit.server.peers if hasattr(peer, "in_hand")] == [1, 0, 1]
            gate.set()
        await trio.sleep(1)
        assert kit.server.open == 1
        assert ended(kit) == {"renewed": 2}
        nothing_left(kit)


async def test_a_closed_pool_serves_nobody(h2, autojump_clock, nothing_left):
    """Who waits is told, what is under way may end, and nothing is opened any more."""
    gate = trio.Event()
    async with h2.speaking(holding(gate, {MAX_STREAMS: 1}), max_connections=1) as kit:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kit.ask)
            await trio.sleep(1)

            async def told() -> None:
                with pytest.raises(UpstreamClosed):
                    await kit.ask()

            nursery.start_soon(told)
            await trio.sleep(1)
            kit.client.close()
            await trio.sleep(1)
            gate.set()
        with pytest.raises(UpstreamClosed):
            await kit.ask()
        await trio.sleep(1)
        assert kit.server.open == 0
        nothing_left(kit)


async def test_caps_hold_under_races(h2, autojump_clock, nothing_left):
    """Many tasks, some cancelled at any moment, peers that come and go: never more than allowed, never one lost."""

    async def serve(peer: Any) -> None:
        await peer.greet({MAX_STREAMS: 4})
        peer.most = peer.in_hand = 0
        async with trio.open_nursery() as nursery:

            async def answer(asked: Any) -> None:
                peer.in_hand += 1
                peer.most = max(peer.most, peer.in_hand)
                await trio.sleep(0.01 * (asked.stream_id % 7))
                peer.in_hand -= 1
                await peer.answer(asked, asked.body)

            for _ in range(30):
                nursery.start_soon(answer, await peer.request())
            await peer.goaway(peer.seen[-1].stream_id or 0x7FFFFFFF)
            while True:
                await peer.frame()

    async with h2.speaking(serve, max_connections=3) as kit:
        done = {"answered": 0, "cancelled": 0, "closed": 0}

        async def one(number: int) -> None:
            with trio.move_on_after(0.005 * (number % 40) if number % 3 else 300) as scope:
                try:
                    assert await kit.ask(b"%d" % number) == b"200 %d" % number
                    done["answered"] += 1
                except UpstreamClosed:
                    done["closed"] += 1
                assert kit.server.open <= 3
            done["cancelled"] += scope.cancelled_caught

        async with trio.open_nursery() as nursery:
            for number in range(400):
                nursery.start_soon(one, number)
                if number % 10 == 0:
                    await trio.sleep(0.01)

        assert sum(done.values()) == 400
        assert done["answered"] >= 134
        assert done["closed"] == 0
        assert len(kit.server.peers) > 3
        nothing_left(kit)


async def test_what_pools_count_is_shown_as_figures_and_in_status(h2, autojump_clock):
    """Open, idle, in use, waiting, opened, closed by reason, reused, waited."""
    gate = trio.Event()
    async with h2.speaking(holding(gate, {MAX_STREAMS: 1}), max_connections=1) as kit:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kit.ask)
            await trio.sleep(1)
            nursery.start_soon(kit.ask)
            await trio.sleep(2)
            assert shown(kit.client.reports()) == {"call": {"open": 1, "idle": 0, "requests": 1, "waiting": 1}}
            gate.set()
        kit.client.renew()
        await trio.sleep(1)
        figures = {(f.name, *f.labels.values()): f.value for f in figures_of(kit.client.reports())}

    assert {key[0]: value for key, value in figures.items() if key[1:] == ("call",)} == {
        "pool_connections": 0,
        "pool_idle": 0,
        "pool_requests": 0,
        "pool_waiting": 0,
        "pool_opened_total": 1,
        "pool_reused_total": 0,
        "pool_waited_total": 2,
        "pool_waited_seconds_total": pytest.approx(2.01),
        "pool_refused_total": 0,
    }
    assert {key[2]: value for key, value in figures.items() if len(key) == 3 and key[1] == "call"} == {
        end.value: int(end is End.RENEWED) for end in End
    }


async def test_an_origin_may_choose_http1(h2, autojump_clock, nothing_left):
    """The connection on which it did is used, everybody else opens one, and nobody asks again until it is renewed."""
    dialled = 0

    async def serve(peer: Any) -> None:
        while await peer._read(peer_request(peer)):
            await peer.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nh1")

    def peer_request(peer: Any) -> int:
        return len(request)

    async def http1() -> Any:
        nonlocal dialled
        dialled += 1
        return await kit.server.dial()

    async with h2.speaking(serve, only=False, http1=http1) as kit:
        request = kit.head + b"content-length: 5\r\n\r\nhello"
        kit.server.http2 = False
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(kit.ask)
        assert (len(kit.server.peers), dialled) == (3, 2)
        assert await kit.ask() == b"200 h1"
        nothing_left(kit)

        kit.client.renew()
        kit.server.http2, kit.server.serve = True, h2.greeted
        assert await kit.ask() == b"200 hello"
        assert (len(kit.server.peers), dialled) == (4, 2)


@pytest.mark.parametrize("whole_connection", [False, True])
@pytest.mark.parametrize("only", [False, True])
async def test_an_origin_may_want_http1_for_what_it_is_asked(h2, autojump_clock, nothing_left, whole_connection, only):
    """HTTP_1_1_REQUIRED (section 7): so it is asked, if that is allowed."""

    async def serve(peer: Any) -> None:
        if peer.number == 1 and not only:
            await peer._read(10)
            await peer.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nh1")
            await trio.sleep(60)
        await peer.greet()
        asked = await peer.request()
        if whole_connection:
            await peer.goaway(0, 13)
        else:
            await peer.reset(asked.stream_id, 13)
        while True:
            await peer.frame()

    async def http1() -> Any:
        return await kit.server.dial()

    async with h2.speaking(serve, only=only, http1=http1) as kit:
        if only:
            with trio.move_on_after(100), pytest.raises(UpstreamClosed, match="HTTP_1_1_REQUIRED"):
                await kit.ask()
        else:
            assert await kit.ask() == b"200 h1"
            await trio.sleep(1)
            assert [transport.closed for transport in kit.server.transports] == [True, False]
        nothing_left(kit)
