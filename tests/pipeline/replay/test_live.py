"""What clients sent is sent to a gateway that runs, here in memory, and its answers are compared."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from sluiceway.pipeline.client.client import McpClient
from sluiceway.pipeline.protocol.errors import ConnectFailed
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import EMPTY, ErrorReply, Json, Reply, Result
from sluiceway.pipeline.replay import live
from sluiceway.pipeline.replay.entries import (
    FORMAT,
    VERSION,
    Begun,
    CancelAsked,
    ClientData,
    Ended,
    Entry,
    ErrorData,
    Header,
    MessageData,
    ReplyData,
    SessionClosed,
    SessionOpened,
    Trailer,
)
from sluiceway.pipeline.replay.live import Resender, Resent
from sluiceway.pipeline.replay.reading import Tape
from sluiceway.pipeline.replay.writing import Bounds, TapeWriter


class Gateway:
    """Stands for the connections to a gateway."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, str, Any]] = []
        self.open: list[Era] = []
        self.closed = 0
        self.busiest = 0
        self.busy = 0
        self.cancelled: list[str] = []

    @asynccontextmanager
    async def connect(self, era: Era) -> AsyncIterator[McpClient]:
        """A connection, counted."""
        self.open.append(era)
        client: Any = self
        yield client
        self.closed += 1

    async def exchange(self, method: str, params: Mapping[str, Json], _deliver: Any = None) -> Reply:
        """What the gateway answers to what tool."""
        self.sent.append((trio.current_time(), method, params.get("name")))
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            return await self._answer(params.get("name"))
        except trio.Cancelled:
            self.cancelled.append(params["name"])
            raise
        finally:
            self.busy -= 1

    async def _answer(self, name: str) -> Reply:
        match name:
            case "slow":
                await trio.sleep(5)
            case "refused":
                return ErrorReply(42900, "limit", {"incident": "x"})
            case "gone":
                raise ConnectFailed("nobody is there")
        await trio.lowlevel.checkpoint()
        return Result({"content": []})

    async def notify(self, method: str, params: Mapping[str, Json] = EMPTY) -> None:
        """A notification."""
        await trio.lowlevel.checkpoint()
        if params.get("name") == "gone":
            raise ConnectFailed("nobody is there")
        self.sent.append((trio.current_time(), method, params.get("name")))


@pytest.fixture
def gateway() -> Gateway:
    """The gateway."""
    return Gateway()


@pytest.fixture
def tape(tmp_path: Path) -> Callable[[list[Entry]], Tape]:
    """Writes a tape."""

    def write(entries: list[Entry]) -> Tape:
        path = tmp_path / "t.jsonl"
        header = Header(
            t=0.0, format=FORMAT, version=VERSION, sluiceway="0.1", recording="r", part=1, began="", epoch=1.0
        )
        writer = TapeWriter(path, header, Bounds(min_free=0))
        writer.open()
        writer.append(entries)
        writer.close([Trailer(t=entries[-1].t)])
        return Tape(path)

    return write


def begun(number: int, t: float, name: str, *, session: int | None = None, **more: Any) -> Begun:
    """A call comes in."""
    facts: dict[str, Any] = {"source": "in", "message": MessageData("tools/call", {"name": name}, number), **more}
    client = ClientData(era="legacy" if session else "modern", session=session)
    return Begun(t=t, exchange=number, client=client, **facts)


def ended(number: int, t: float, **error: Any) -> Ended:
    """A call is answered."""
    reply = ReplyData(error=ErrorData(**error)) if error else ReplyData(result={"content": []})
    return Ended(t=t, exchange=number, reply=reply)


async def resent(gateway: Gateway, tape: Tape, *, speed: float = 1.0, places: int = 16, **more: Any) -> Resent:
    """Send it."""
    return await Resender(gateway.connect, speed, places, **more).run(tape)


@pytest.mark.parametrize(("speed", "expected"), [(1.0, [1.0, 3.0]), (2.0, [0.5, 1.5]), (0.0, [0.0, 0.0])])
async def test_requests_are_sent_at_their_times_or_faster(gateway, tape, autojump_clock, speed, expected):
    """A factor, or as fast as it goes."""
    zero = trio.current_time()
    found = await resent(
        gateway, tape([begun(1, 1.0, "a"), ended(1, 1.0), begun(2, 3.0, "b"), ended(2, 3.0)]), speed=speed
    )

    assert [t - zero for t, _, _ in gateway.sent] == expected
    assert (found.sent, found.answered, found.compared, found.count) == (2, 2, 2, 0)
    assert (gateway.open, gateway.closed) == ([Era.MODERN], 1)


async def test_other_answers_are_told(gateway, tape, autojump_clock):
    """Whichever comes first: that of the tape, or that of the gateway. Incidents are made anew."""
    found = await resent(
        gateway,
        tape(
            [begun(1, 0.0, "refused"), begun(2, 0.0, "a"), ended(1, 0.0), ended(2, 9.0, code=1, message="no"),
             begun(3, 9.0, "refused"), ended(3, 9.0, code=42900, message="limit", data={"incident": "y"})]
        ),
    )  # fmt: skip

    assert found.count == 2
    assert [(each.number, each.title, {place.path for place in each.places}) for each in found.changed] == [
        (1, "tools/call refused", {"reply.result", "reply.error"}),
        (2, "tools/call a", {"reply.result", "reply.error"}),
    ]


async def test_what_is_ignored_is_not_compared(gateway, tape, autojump_clock):
    """Globs of paths."""
    found = await resent(gateway, tape([begun(1, 0.0, "refused"), ended(1, 0.0)]), ignored=["reply.*"])

    assert (found.compared, found.count) == (1, 0)


async def test_no_more_than_so_many_are_under_way(gateway, tape, autojump_clock):
    """Time stands still meanwhile."""
    entries: list[Entry] = [begun(number, 0.0, "slow") for number in range(1, 8)]
    found = await resent(gateway, tape([*entries, *(ended(number, 5.0) for number in range(1, 8))]), places=3)

    assert gateway.busiest == 3
    assert (found.answered, found.compared) == (7, 7)


async def test_a_call_is_cancelled_when_it_was(gateway, tape, autojump_clock):
    """There is nothing to compare then."""
    zero = trio.current_time()
    found = await resent(
        gateway, tape([begun(1, 0.0, "slow"), CancelAsked(t=2.0, exchange=1, by="client"), Ended(t=2.0, exchange=1)])
    )

    assert gateway.cancelled == ["slow"]
    assert trio.current_time() - zero == pytest.approx(2)
    assert (found.sent, found.answered, found.compared) == (1, 0, 0)


async def test_a_session_is_a_connection_of_its_own(gateway, tape, autojump_clock):
    """It ends when it ended; its handshake is made anew."""
    found = await resent(
        gateway,
        tape(
            [SessionOpened(t=0.0, session=1, source="in"),
             begun(1, 0.0, "", session=1, message=MessageData("initialize", {}, 1)),
             begun(2, 1.0, "a", session=1), ended(2, 1.0),
             begun(3, 1.0, "a", session=2), ended(3, 1.0), SessionClosed(t=2.0, session=1), begun(4, 9.0, "a"),
             ended(4, 9.0)]
        ),
    )  # fmt: skip

    assert gateway.open == [Era.LEGACY, Era.LEGACY, Era.MODERN]
    assert gateway.closed == 3
    assert found.sent == 3


async def test_too_many_sessions_share_one(gateway, tape, autojump_clock, monkeypatch):
    """The last one."""
    monkeypatch.setattr(live, "MAX_SESSIONS", 2)
    await resent(gateway, tape([begun(number, 0.0, "a", session=number) for number in range(1, 5)]))

    assert len(gateway.open) == 2


async def test_calls_of_components_are_not_sent(gateway, tape, autojump_clock):
    """No client sent them."""
    parts: list[Entry] = [begun(1, 0.0, "a", source=""), begun(2, 0.0, "a", source="", kind="listen")]
    found = await resent(gateway, tape([*parts, begun(3, 0.0, "a"), ended(3, 0.0)]))

    assert (found.sent, found.listened) == (1, 0)


@pytest.mark.parametrize(
    ("entries", "until"),
    [([CancelAsked(t=2.0, exchange=1, by="client")], 2), ([Ended(t=3.0, exchange=1)], 3), ([], 4)],
)
async def test_who_listens_does_so_until_the_tape_says(gateway, tape, autojump_clock, entries, until):
    """Cancelled, ended, or when the tape ends; it takes no place of those who wait for an answer."""
    zero, over = trio.current_time(), []

    async def exchange(method: str, params: Mapping[str, Json], _deliver: Any = None) -> Reply:
        if params["name"] == "listens":
            try:
                await trio.sleep_forever()
            finally:
                over.append(trio.current_time() - zero)
        return Result({"content": []})

    gateway.exchange = exchange
    found = await resent(
        gateway, tape([begun(1, 0.0, "listens", kind="listen"), *entries, begun(2, 4.0, "a"), ended(2, 4.0)]), places=1
    )

    assert over == [pytest.approx(until)]
    assert (found.sent, found.listened, found.answered, found.compared) == (2, 1, 1, 1)


async def test_listeners_have_a_bound_and_may_fail(gateway, tape, autojump_clock, monkeypatch):
    """Further ones are left out; those that the gateway refuses are counted."""
    monkeypatch.setattr(live, "MAX_LISTENERS", 1)
    found = await resent(
        gateway, tape([begun(1, 0.0, "slow", kind="listen"), begun(2, 0.0, "a", kind="listen"), ended(2, 1.0),
                       Ended(t=1.0, exchange=1), begun(3, 2.0, "gone", kind="listen"), begun(4, 3.0, "a")])
    )  # fmt: skip

    assert (found.listened, found.failed) == (2, 1)


async def test_clients_bring_back_what_they_are_given_now(gateway, tape, autojump_clock):
    """A cursor under the seal of the gateway of the tape would be refused."""
    brought = []

    async def exchange(method: str, params: Mapping[str, Json], _deliver: Any = None) -> Reply:
        brought.append(params.get("cursor"))
        return Result({"tools": [], "nextCursor": "new"})

    gateway.exchange = exchange
    pages = [MessageData("tools/list", {}, 1), MessageData("tools/list", {"cursor": "old"}, 2)]
    page = ReplyData(result={"tools": [], "nextCursor": "old"})
    found = await resent(
        gateway,
        tape([begun(1, 0.0, "", message=pages[0]), Ended(t=0.0, exchange=1, reply=page),
              begun(2, 1.0, "", message=pages[1]), Ended(t=1.0, exchange=2, reply=page)]),
    )  # fmt: skip

    assert brought == [None, "new"]
    assert (found.compared, found.count) == (2, 0)


async def test_notifications_are_sent(gateway, tape, autojump_clock):
    """And counted; there is no answer."""
    told = [MessageData("notifications/x", {"name": name}) for name in ("a", "gone")]
    found = await resent(gateway, tape([begun(number, 0.0, "", message=each) for number, each in enumerate(told, 1)]))

    assert [(method, name) for _, method, name in gateway.sent] == [("notifications/x", "a")]
    assert (found.sent, found.failed) == (2, 1)


async def test_requests_that_nobody_answers_are_counted(gateway, tape, autojump_clock):
    """They are different, too."""
    found = await resent(gateway, tape([begun(1, 0.0, "gone"), ended(1, 0.0)]))

    assert (found.failed, found.count) == (1, 1)
    assert "ConnectFailed: nobody is there" in str(found.changed[0].places)


async def test_what_waits_to_be_compared_has_a_bound(gateway, tape, autojump_clock, monkeypatch):
    """The rest is sent, and not compared."""
    monkeypatch.setattr(live, "MAX_WAITING", 1)
    found = await resent(gateway, tape([begun(1, 0.0, "slow"), begun(2, 0.0, "a"), ended(1, 1.0), ended(2, 1.0)]))

    assert (found.sent, found.answered, found.compared) == (2, 2, 1)
