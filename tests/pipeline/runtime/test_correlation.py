"""Which answer belongs to whom, on a connection that many exchanges share."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from sluiceway.pipeline.model.changes import RESOURCE_UPDATED
from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    GatewayError,
    SlowConsumer,
    UpstreamClosed,
    UpstreamProtocolError,
)
from sluiceway.pipeline.protocol.mcp import LOG_MESSAGE, PROGRESS
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Request, Response, Result
from sluiceway.pipeline.runtime.correlation import Correlation, Entry, Item


def progress(token: str | int, value: int) -> Notification:
    """A progress notification."""
    return Notification(PROGRESS, {"progressToken": token, "progress": value})


def log(text: str) -> Notification:
    """A log message."""
    return Notification(LOG_MESSAGE, {"level": "info", "data": text})


def other(number: int) -> Notification:
    """A notification that must not be lost."""
    return Notification("notifications/tasks/status", {"taskId": f"t-{number}"})


def updated(number: int) -> Notification:
    """A notification of which only the last about the same resource counts."""
    return Notification(RESOURCE_UPDATED, {"uri": f"x://{number}"})


async def received(entry: Entry, count: int) -> list[Any]:
    """The next items of an entry."""
    return [await entry.receive() for _ in range(count)]


async def test_a_hundred_shuffled_replies_each_reach_their_waiter(autojump_clock: None) -> None:
    """Concurrent requests whose replies come in any order (S0-CM-04)."""
    table: Correlation[Entry] = Correlation()
    ids: list[int] = []
    got: dict[int, object] = {}

    async def wait() -> None:
        with table.register(Entry()) as entry:
            ids.append(entry.id)
            got[entry.id] = await entry.receive()

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        random.Random(1).shuffle(ids)
        for entry_id in ids:
            assert table.resolve(Response(entry_id, Result({"for": entry_id})))

    assert {entry_id: Result({"for": entry_id}) for entry_id in range(1, 101)} == got
    assert table.pending == 0


async def test_an_entry_lives_as_long_as_its_waiter(autojump_clock: None) -> None:
    """A deadline, a cancel or a crash of the waiter ends it; a reply that comes later is dropped and counted."""
    table: Correlation[Entry] = Correlation()
    with trio.move_on_after(30) as scope, table.register(Entry()) as entry:
        await entry.receive()
    assert scope.cancelled_caught
    assert trio.current_time() >= 30

    assert not table.resolve(Response(entry.id, Result()))
    stats = table.counts
    assert (table.pending, stats.unanswered, stats.late) == (0, 1, 1)
    assert not entry.answered


async def test_the_nearer_deadline_of_the_caller_wins(autojump_clock: None) -> None:
    """The table has none of its own (S0-CM-05)."""
    table: Correlation[Entry] = Correlation()
    start = trio.current_time()
    with trio.move_on_after(30), trio.move_on_after(10), table.register(Entry()) as entry:
        await entry.receive()

    assert trio.current_time() - start == pytest.approx(10)


def test_a_request_too_many_is_refused() -> None:
    """The default is 1000; one that ends makes room (S0-CM-02)."""

    async def main() -> None:
        table: Correlation[Entry] = Correlation()
        entries = [table.register(Entry()).__enter__() for _ in range(1000)]
        with pytest.raises(CapacityExceeded, match="1000 requests to this upstream wait for a reply; raise max_pend"):
            table.register(Entry())
        entries[0].__exit__(None, None, None)
        with table.register(Entry()) as entry:
            assert entry.id == 1001

    trio.run(main)


async def test_statistics_match_a_scripted_mix(autojump_clock: None) -> None:
    """Replies after 1 and 3 s, an error reply after 2 s, one time-out, two that wait (S0-CM-06)."""
    table: Correlation[Entry] = Correlation()
    assert (table.counts.success_rate, table.counts.average_response_s) == (1.0, 0.0)
    entries = [table.register(Entry()).__enter__() for _ in range(6)]
    for number, reply in enumerate([Result(), ErrorReply(-1, "no"), Result()]):
        await trio.sleep(1)
        table.resolve(Response(entries[number].id, reply))
        entries[number].__exit__(None, None, None)
    entries[3].__exit__(None, None, None)

    stats = table.counts
    assert (table.pending, stats.answered, stats.unanswered, stats.success_rate) == (2, 3, 1, 0.75)
    assert stats.average_response_s == pytest.approx(2.0)


async def test_what_comes_before_the_reply_is_received_before_it() -> None:
    """In the upstream's order, also when everything was there before the first `receive`; then the reply again."""
    table: Correlation[Entry] = Correlation()
    question = Request("q", "roots/list")
    with table.register(Entry()) as entry:
        items: list[Item] = [progress(entry.id, 1), question, log("a")]
        assert all(table.post(entry.id, item) for item in items)
        table.resolve(Response(entry.id, Result({"a": 1})))
        assert not table.post(entry.id, log("too late"))

        assert [*items, Result({"a": 1})] == await received(entry, 4)
        assert entry.answered
        assert await entry.receive() == Result({"a": 1})


async def test_a_waiter_is_woken_by_each_item(autojump_clock: None) -> None:
    """One that waits already gets what comes at once."""
    table: Correlation[Entry] = Correlation()
    got: list[object] = []

    async def wait(entry: Entry) -> None:
        while isinstance(item := await entry.receive(), Notification):
            got.append(item)
        got.append(item)

    with table.register(Entry()) as entry:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, entry)
            for item in (log("a"), log("b")):
                await wait_all_tasks_blocked()
                table.post(entry.id, item)
            await wait_all_tasks_blocked()
            assert [log("a"), log("b")] == got
            table.resolve(Response(entry.id, Result()))

    assert got[-1] == Result()


async def test_a_cancelled_receive_loses_nothing(autojump_clock: None) -> None:
    """The waiter may look at a deadline between two receives."""
    table: Correlation[Entry] = Correlation()
    with table.register(Entry()) as entry:
        with trio.move_on_after(1):
            await entry.receive()
        table.post(entry.id, log("a"))

        assert await entry.receive() == log("a")


@pytest.mark.parametrize("answered", [7, "1", None])
async def test_a_reply_nobody_waits_for_is_dropped_and_counted(answered: str | int | None) -> None:
    """An unknown id, the right digits as text, none at all."""
    table: Correlation[Entry] = Correlation()
    with table.register(Entry()) as entry:
        assert entry.id == 1
        assert not table.resolve(Response(answered, Result()))
        assert not entry.answered

    assert table.counts.late == 1


async def test_a_second_reply_is_dropped_and_counted() -> None:
    """The first counts."""
    table: Correlation[Entry] = Correlation()
    with table.register(Entry()) as entry:
        assert table.resolve(Response(entry.id, Result({"a": 1})))
        assert not table.resolve(Response(entry.id, Result({"a": 2})))

        assert await entry.receive() == Result({"a": 1})
    assert (table.counts.answered, table.counts.late) == (1, 1)


@pytest.mark.parametrize("token", [2, "1", 1.0, True, None, ["1"], {}])
async def test_a_notification_for_nobody_is_dropped(token: Any) -> None:
    """Whatever JSON type an upstream puts into a token: 1.0 and true are not 1."""
    table: Correlation[Entry] = Correlation()
    with table.register(Entry()):
        assert not table.post(token, log("a"))


async def test_everybody_fails_when_the_upstream_is_gone(autojump_clock: None) -> None:
    """Each with an error of its own; who has a reply keeps it; what was not received yet is lost."""
    table: Correlation[Entry] = Correlation()
    errors: list[GatewayError] = []

    async def wait() -> None:
        with table.register(Entry()) as entry:
            try:
                await entry.receive()
            except GatewayError as error:
                errors.append(error)

    with table.register(Entry()) as done, table.register(Entry()) as busy:
        table.resolve(Response(done.id, Result()))
        table.post(busy.id, log("a"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            table.fail_all(lambda: UpstreamClosed("gone"))
            table.fail_all(lambda: UpstreamClosed("again"))

        assert [("gone", UpstreamClosed)] * 2 == [(error.message, type(error)) for error in errors]
        assert errors[0] is not errors[1]
        assert await done.receive() == Result()
        with pytest.raises(UpstreamClosed, match="gone"):
            await busy.receive()
    assert not table.resolve(Response(busy.id, Result()))


async def test_a_single_waiter_can_be_failed() -> None:
    """When what came with its id cannot be its reply."""
    table: Correlation[Entry] = Correlation()
    with table.register(Entry()) as entry, table.register(Entry()) as bystander:
        assert table.fail(entry.id, UpstreamProtocolError("nonsense"))
        assert not table.fail(entry.id, UpstreamProtocolError("more"))
        assert not table.fail("x", UpstreamProtocolError("nobody"))

        with pytest.raises(UpstreamProtocolError, match="nonsense"):
            await entry.receive()
        table.resolve(Response(bystander.id, Result()))
        assert await bystander.receive() == Result()


async def test_progress_is_coalesced_when_the_inbox_is_full() -> None:
    """The latest of each token stays; nothing is dropped before."""
    table: Correlation[Entry] = Correlation(max_inbox=3)
    with table.register(Entry()) as entry:
        for item in (progress("a", 1), progress("b", 1), progress("a", 2), progress("a", 3), progress("b", 2)):
            table.post(entry.id, item)
        assert table.counts.coalesced == 2
        table.resolve(Response(entry.id, Result()))

        assert [progress("a", 2), progress("a", 3), progress("b", 2), Result()] == await received(entry, 4)


async def test_changes_of_the_same_are_coalesced_when_the_inbox_is_full() -> None:
    """A resource that was updated twice, a list that changed twice: once says it all. Another resource is another."""
    table: Correlation[Entry] = Correlation(max_inbox=3)
    one, other_one = updated(1), updated(2)
    listed = Notification("notifications/tools/list_changed")
    with table.register(Entry()) as entry:
        for item in (one, listed, other_one, listed, one, listed):
            table.post(entry.id, item)
        assert table.counts.coalesced == 3

        assert [other_one, one, listed] == await received(entry, 3)


async def test_log_messages_are_dropped_oldest_first_when_the_inbox_is_full() -> None:
    """And counted; also for a notification of another kind."""
    table: Correlation[Entry] = Correlation(max_inbox=3)
    with table.register(Entry()) as entry:
        for item in (log("a"), other(1), log("b"), log("c"), other(2)):
            table.post(entry.id, item)
        assert table.counts.dropped_logs == 2

        assert [other(1), log("c"), other(2)] == await received(entry, 3)


async def test_a_log_message_that_finds_no_room_is_dropped_itself() -> None:
    """It never costs anybody the exchange."""
    table: Correlation[Entry] = Correlation(max_inbox=2)
    with table.register(Entry()) as entry:
        for item in (other(1), other(2), log("a")):
            assert table.post(entry.id, item)
        assert table.counts.dropped_logs == 1

        assert [other(1), other(2)] == await received(entry, 2)


@pytest.mark.parametrize("last", [other(3), Request("q", "roots/list"), progress("new", 1)])
async def test_anything_else_fails_the_entry_when_the_inbox_is_full(last: Item) -> None:
    """Better an error than a gap nobody knows of; the reader goes on."""
    table: Correlation[Entry] = Correlation(max_inbox=2)
    with table.register(Entry()) as entry:
        for item in (other(1), other(2), last):
            assert table.post(entry.id, item)

        with pytest.raises(SlowConsumer, match="2 notifications of this request wait"):
            await entry.receive()
        assert not table.post(entry.id, log("a"))
    assert table.counts.unanswered == 1


async def test_a_malformed_progress_token_is_nobodys() -> None:
    """It is relayed like anything else, and never taken for an older one of its kind."""
    table: Correlation[Entry] = Correlation(max_inbox=1)
    with table.register(Entry()) as entry:
        for _ in range(2):
            table.post(entry.id, Notification(PROGRESS, {"progressToken": []}))

        with pytest.raises(SlowConsumer):
            await entry.receive()


async def test_the_inbox_is_bounded_in_bytes_too() -> None:
    """As many log messages go as make room; what was received gives its room back."""
    table: Correlation[Entry] = Correlation(max_inbox_bytes=300)
    with table.register(Entry()) as entry:
        for item in (log("a" * 60), log("b" * 60), other(1), log("c" * 120)):
            table.post(entry.id, item)

        assert table.counts.dropped_logs == 1
        assert [log("b" * 60), other(1)] == await received(entry, 2)
        table.post(entry.id, log("d" * 100))
        assert [log("c" * 120), log("d" * 100)] == await received(entry, 2)


async def test_one_item_fits_whatever_its_size() -> None:
    """A bound on what waits does not make a message impossible; the next one finds no room."""
    table: Correlation[Entry] = Correlation(max_inbox_bytes=100)
    big = Notification("notifications/big", {"text": "x" * 1000})
    with table.register(Entry()) as entry:
        table.post(entry.id, big)
        assert [big] == await received(entry, 1)
        table.post(entry.id, big)
        table.post(entry.id, Request("q", "roots/list", {"text": "y" * 10}))

        with pytest.raises(SlowConsumer, match="reads too slowly"):
            await entry.receive()


MAY_BE_LOST = (PROGRESS, LOG_MESSAGE, RESOURCE_UPDATED)
ITEMS = st.one_of(
    st.builds(progress, st.sampled_from(["a", "b"]), st.integers(0, 9)),
    st.builds(log, st.text(max_size=1)),
    st.builds(other, st.integers(0, 9)),
    st.builds(updated, st.integers(0, 1)),
)


@given(st.lists(ITEMS, max_size=30), st.integers(1, 6))
def test_the_inbox_is_bounded_and_loses_only_what_may_be_lost(items: list[Notification], bound: int) -> None:
    """For any traffic: in order, never too many, the last progress of each token kept, every loss counted."""

    async def main() -> None:
        table: Correlation[Entry] = Correlation(max_inbox=bound)
        with table.register(Entry()) as entry:
            for item in items:
                table.post(entry.id, item)
                assert len(entry._inbox) <= bound
            if entry._error is not None:
                return
            kept = list(entry._inbox)
            stats = table.counts
            rest = iter(items)
            assert all(any(kept_item is item for item in rest) for kept_item in kept)
            lost = Counter(map(id, items)) - Counter(map(id, kept))
            assert lost.total() == stats.coalesced + stats.dropped_logs
            assert not any(id(item) in lost for item in items if item.method not in MAY_BE_LOST)
            latest = {item.params["progressToken"]: item for item in items if item.method == PROGRESS}
            latest |= {item.params["uri"]: item for item in items if item.method == RESOURCE_UPDATED}
            assert all(any(item is kept_item for kept_item in kept) for item in latest.values())

    trio.run(main)
