"""The queue in front of a pipe: order, joining, bounds, taking back."""

import pytest
import trio
import trio.testing

from sluiceway.transports.outbox import Notices, Outbox


class Recorder(trio.abc.SendStream):
    """A stream that remembers each write, and can be held up."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.gate = trio.Event()
        self.gate.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Record one write once the gate is open."""
        await self.gate.wait()
        self.writes.append(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Not used."""

    async def aclose(self) -> None:
        """Nothing to close."""


async def test_pending_messages_are_joined_into_one_write_in_order():
    """What waits goes out together, one message a line."""
    outbox, stream = Outbox(1000), Recorder()
    for message in (b"1", b"22", b"333"):
        outbox.put_nowait(message)
    outbox.close()

    await outbox.run(stream)

    assert stream.writes == [b"1\n22\n333\n"]
    assert outbox.size == 0


async def test_messages_that_come_during_a_write_are_written_next(nursery):
    """The loop goes on until it is closed, and then it is over."""
    outbox, stream = Outbox(1000), Recorder()
    done = trio.Event()

    async def run() -> None:
        await outbox.run(stream)
        done.set()

    stream.gate = trio.Event()
    nursery.start_soon(run)
    await trio.testing.wait_all_tasks_blocked()
    outbox.put_nowait(b"first")
    await trio.testing.wait_all_tasks_blocked()
    outbox.put_nowait(b"second")
    outbox.put_nowait(b"third")
    stream.gate.set()
    await trio.testing.wait_all_tasks_blocked()

    assert stream.writes == [b"first\n", b"second\nthird\n"]

    outbox.close()
    await trio.testing.wait_all_tasks_blocked()

    assert done.is_set()


class Narrow:
    """A pipe that takes so many bytes at once, and then none until it is waited for."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken = b""

    def send_nowait(self, data: bytes) -> int:
        """Take what there is room for; no room at all is a broken pipe."""
        if self.room < 0:
            raise trio.BrokenResourceError
        sent = data[: self.room]
        self.room -= len(sent)
        self.taken += sent
        return len(sent)

    async def send_all(self, data: bytes) -> None:
        """Take the rest."""
        await trio.lowlevel.checkpoint()
        if self.room < 0:
            raise trio.BrokenResourceError
        self.taken += data


async def test_a_message_that_is_alone_is_written_at_once(nursery):
    """Without a turn of the writer; it cannot be taken back any more, and does not count."""
    pipe = Narrow(100)
    outbox = Outbox(1000, pipe.send_nowait)
    nursery.start_soon(outbox.run, pipe)
    await trio.testing.wait_all_tasks_blocked()
    outbox.put_nowait(b"1", 1, alone=True)

    assert pipe.taken == b"1\n"
    assert outbox.size == 0
    assert not outbox.withdraw(1)


async def test_what_does_not_fit_at_once_goes_before_all_that_follows(nursery):
    """A line that was begun is ended first, and those behind it are not alone."""
    pipe = Narrow(3)
    outbox = Outbox(1000, pipe.send_nowait)
    outbox.put_nowait(b"first", alone=True)
    assert outbox.size == 3
    outbox.put_nowait(b"second", alone=True)
    outbox.put_nowait(b"third")
    assert pipe.taken == b"fir"
    outbox.close()
    await outbox.run(pipe)

    assert pipe.taken == b"first\nsecond\nthird\n"
    assert outbox.size == 0


async def test_a_writer_that_waits_writes_the_rest_of_a_line_that_was_begun(nursery):
    """It is woken for that."""
    pipe = Narrow(3)
    outbox = Outbox(1000, pipe.send_nowait)
    nursery.start_soon(outbox.run, pipe)
    await trio.testing.wait_all_tasks_blocked()
    outbox.put_nowait(b"first", alone=True)
    assert pipe.taken == b"fir"
    await trio.testing.wait_all_tasks_blocked()

    assert pipe.taken == b"first\n"


async def test_a_pipe_that_breaks_at_once_is_noticed_by_the_writer():
    """Whoever put the message learns of it as all others do."""
    pipe = Narrow(-1)
    outbox = Outbox(1000, pipe.send_nowait)
    outbox.put_nowait(b"1", alone=True)

    with pytest.raises(trio.BrokenResourceError):
        await outbox.run(pipe)


async def test_a_writer_that_waits_can_be_cancelled():
    """What comes later waits for the next one."""
    outbox, stream = Outbox(1000), Recorder()
    with trio.move_on_after(0.01) as scope:
        await outbox.run(stream)
    assert scope.cancelled_caught
    outbox.put_nowait(b"1")
    outbox.close()
    await outbox.run(stream)

    assert stream.writes == [b"1\n"]


async def test_a_full_outbox_refuses_and_a_large_message_fits_into_an_empty_one():
    """The bound is on bytes; one message always gets through."""
    outbox = Outbox(10)
    outbox.put_nowait(b"x" * 50)

    with pytest.raises(trio.WouldBlock):
        outbox.put_nowait(b"y")
    assert outbox.size == 51


async def test_bytes_being_written_count_against_the_bound(nursery):
    """A reader that has stopped reading is noticed although the queue itself is empty."""
    outbox, stream = Outbox(10), Recorder()
    stream.gate = trio.Event()
    outbox.put_nowait(b"123456789")
    nursery.start_soon(outbox.run, stream)
    await trio.testing.wait_all_tasks_blocked()

    with pytest.raises(trio.WouldBlock):
        outbox.put_nowait(b"x")

    outbox.close()
    stream.gate.set()


async def test_waiting_for_room_ends_when_a_write_made_some(nursery):
    """`put` waits exactly as long as there is no room."""
    outbox, stream = Outbox(10), Recorder()
    outbox.put_nowait(b"123456789")
    stream.gate = trio.Event()
    nursery.start_soon(outbox.run, stream)
    nursery.start_soon(outbox.put, b"late")
    await trio.testing.wait_all_tasks_blocked()
    stream.gate.set()
    await trio.testing.wait_all_tasks_blocked()

    assert stream.writes == [b"123456789\n", b"late\n"]

    outbox.close()


async def test_a_waiting_message_can_be_taken_back():
    """Withdrawn messages are never written and free their room; unknown keys are told apart."""
    outbox, stream = Outbox(1000), Recorder()
    outbox.put_nowait(b"stay")
    outbox.put_nowait(b"go", key=7)

    assert [outbox.withdraw(7), outbox.withdraw(7)] == [True, False]
    assert outbox.size == 5

    outbox.close()
    await outbox.run(stream)

    assert stream.writes == [b"stay\n"]


async def test_a_closed_outbox_takes_nothing_and_wakes_who_waits(nursery):
    """Whoever waited for room learns that there will be none."""
    outbox = Outbox(1)
    outbox.put_nowait(b"x")
    outcome: list[type[Exception]] = []

    async def wait() -> None:
        try:
            await outbox.put(b"y")
        except trio.ClosedResourceError as error:
            outcome.append(type(error))

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    outbox.close()
    await trio.testing.wait_all_tasks_blocked()

    assert outcome == [trio.ClosedResourceError]
    with pytest.raises(trio.ClosedResourceError):
        outbox.put_nowait(b"z")


async def test_notices_give_way_to_newer_ones_oldest_first():
    """By count, and by bytes; what others queued stays."""
    outbox, stream = Outbox(12), Recorder()
    notices = Notices(outbox, 2)
    outbox.put_nowait(b"reply")
    for message in (b"a", b"b", b"c"):
        notices.put_nowait(message)

    assert notices.dropped == 1

    notices.put_nowait(b"dddd")

    assert notices.dropped == 3

    notices.put_nowait(b"too long")

    assert notices.dropped == 5

    outbox.close()
    notices.put_nowait(b"e")
    await outbox.run(stream)

    assert stream.writes == [b"reply\n"]


async def test_notices_that_have_left_do_not_count(nursery):
    """The bound is on what waits."""
    outbox, stream = Outbox(100), Recorder()
    notices = Notices(outbox, 2)
    nursery.start_soon(outbox.run, stream)
    for message in (b"a", b"b", b"c", b"d"):
        notices.put_nowait(message)
        await trio.testing.wait_all_tasks_blocked()

    assert stream.writes == [b"a\n", b"b\n", b"c\n", b"d\n"]
    assert notices.dropped == 0

    outbox.close()


async def test_messages_that_go_one_by_one_go_together_up_to_a_size(nursery):
    """What is behind the first 64 KiB can be taken back while they are being sent."""
    outbox, gate = Outbox(1_000_000), trio.Event()
    batches: list[list[bytes]] = []

    async def send(messages) -> None:
        batches.append(list(messages))
        await gate.wait()

    for key, size in enumerate((100_000, 10_000, 20_000, 40_000, 5)):
        outbox.put_nowait(b"x" * size, key)
    outbox.close()
    nursery.start_soon(outbox.run_each, send)
    await trio.testing.wait_all_tasks_blocked()
    assert outbox.withdraw(2)
    gate.set()
    await trio.testing.wait_all_tasks_blocked()

    assert [[len(message) for message in batch] for batch in batches] == [[100_000], [10_000, 40_000, 5]]
    assert outbox.size == 0
