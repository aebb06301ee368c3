"""The log of messages between an exchange and whoever writes them."""

from __future__ import annotations

import pytest
import trio

from sluiceway.transports.http_source.delivery import parse_event_id
from sluiceway.transports.http_source.stream import OUTBOX, OUTBOX_BYTES, MessageStream, Replay


def kept(replay, *messages):
    stream = MessageStream(f"s{len(replay)}")
    stream.keep(replay)
    for message in messages:
        stream.put_nowait(message)
    return stream


async def test_messages_keep_their_numbers_and_are_taken_once():
    """Numbers count from 1; what was taken from an unkept stream is gone."""
    stream = MessageStream("s")
    stream.attach("a")
    stream.put_nowait(b"x")
    stream.put_reply(b"y")

    assert [(1, b"x"), (2, b"y")] == stream.take()
    assert ([], 0) == (stream.take(), stream.size)
    assert (2, 2, True) == (stream.last, stream.taken, stream.interim)
    assert not stream.attach("b", 0)
    assert stream.attach("b", 2)


async def test_a_kept_stream_can_be_read_from_any_number_it_has():
    """And not from the future, or from what was forgotten."""
    stream = kept(Replay(3, 1000), *[b"%d" % n for n in range(1, 6)])

    assert [True, False, True, False] == [stream.attach("r", n) for n in (2, 1, 5, 6)]
    assert stream.attach("r", 3)
    assert [(4, b"4"), (5, b"5")] == stream.take()
    assert 2 == stream.dropped


async def test_bytes_are_bounded_over_all_streams_and_the_oldest_forgets_first():
    """What a reader has still to take is not forgotten."""
    replay = Replay(100, 30)
    reading, idle = kept(replay, b"a" * 10), kept(replay, b"b" * 10)
    reading.attach("r")
    last = kept(replay, b"c" * 10, b"d" * 10)

    assert [10, 0, 20] == [each.size for each in (reading, idle, last)]
    reading.take()
    last.put_nowait(b"e" * 10)
    assert [0, 0, 30] == [each.size for each in (reading, idle, last)]
    last.discard()
    last.discard()
    assert (0, 2) == (replay.size, len(replay))


async def test_a_message_greater_than_the_bound_is_not_kept():
    """The bound holds whatever comes."""
    replay = Replay(100, 30)
    kept(replay, b"x" * 31)

    assert 0 == replay.size


async def test_an_exchange_waits_for_an_attached_reader_only(autojump_clock):
    """More than `OUTBOX` behind means waiting; detached, ended and discarded streams take everything at once."""
    stream = MessageStream("s")
    stream.attach("r")
    done = []

    async def produce():
        for n in range(100):
            await stream.put(b"%d" % n)
        done.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        await trio.testing.wait_all_tasks_blocked()
        assert OUTBOX + 1 == len(stream.take())
        await trio.sleep(1)
        assert not done
        assert stream.detach("r")
        await trio.testing.wait_all_tasks_blocked()

    assert [1.0] == done
    assert not stream.detach("r")


async def test_nothing_is_added_after_the_end():
    """Late messages are dropped."""
    stream = MessageStream("s")
    stream.end()
    stream.put_nowait(b"x")
    stream.put_reply(b"x")
    await stream.put(b"x")

    assert (0, False) == (stream.last, stream.interim)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("abc_1", ("abc", 1)), ("a_b_12", ("a_b", 12)), ("_1", None), ("abc", None), ("abc_", None), ("abc_-1", None),
        ("abc_1x", None), ("abc_\u0661", None), ("abc_" + "9" * 19, None),
    ],
)  # fmt: skip
def test_event_ids(text, parsed):
    """Stream and number, or nothing."""
    assert parsed == parse_event_id(text)


async def test_an_exchange_waits_by_bytes_too(autojump_clock):
    """A few large messages hold it up as many small ones do; one alone may be as large as it is."""
    stream, passed = MessageStream("s"), []
    stream.attach("r")

    async def produce():
        for n in range(4):
            await stream.put(b"x" * (OUTBOX_BYTES // 2))
            passed.append(n)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        await trio.testing.wait_all_tasks_blocked()
        assert [0, 1] == passed
        assert 3 == len(stream.take())
        await trio.testing.wait_all_tasks_blocked()

    assert [0, 1, 2, 3] == passed


async def test_what_is_read_again_counts_as_not_taken(autojump_clock):
    """A reader that resumes from further back has those bytes in front of it once more."""
    stream, passed = MessageStream("s"), []
    stream.keep(Replay(100, 10 * OUTBOX_BYTES))
    stream.attach("r")
    stream.put_nowait(b"x" * OUTBOX_BYTES)
    stream.take()
    assert stream.attach("again", 0)

    async def produce():
        await stream.put(b"y")
        passed.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        await trio.testing.wait_all_tasks_blocked()
        assert not passed
        stream.take()

    assert passed


async def test_a_long_reply_is_taken_piece_by_piece(autojump_clock):
    """The exchange waits until a piece was taken; without a reader pieces are dropped."""
    stream, passed = MessageStream("s"), []
    stream.attach("r")

    async def produce():
        for piece in (b"a", b"b", b"c"):
            await stream.put_piece(piece)
            passed.append(piece)
        stream.end_long(b"}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        await trio.testing.wait_all_tasks_blocked()
        assert stream.is_long
        assert b"a" == stream.take_pieces()
        await trio.testing.wait_all_tasks_blocked()
        assert [b"a"] == passed
        stream.detach("r")
        await trio.testing.wait_all_tasks_blocked()

    assert [b"a", b"b", b"c"] == passed
    assert stream.ended
    assert not stream.is_broken
