"""A name that is looked up again: its upstream moves, goes and comes back."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
import trio.testing

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.transports import http_sink
from sluiceway.transports.http_upstream.config import HttpSinkConfig
from sluiceway.transports.http_upstream.following import FollowedName, lookup_of

CHANGED = [f"notifications/{name}/list_changed" for name in ("tools", "prompts", "resources")]
SERVER = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "fake", "version": "1"}}


class Names:
    """A resolver whose answers the test gives, one for each look-up; the last one stays."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = [None if each is None else frozenset(each.split()) for each in answers]
        self.asked: list[float] = []

    async def __call__(self) -> frozenset[str] | None:
        await trio.lowlevel.checkpoint()
        self.asked.append(trio.current_time())
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.mark.parametrize(
    ("answers", "events"),
    [
        (["a", "a", "a b", "b a"], []),
        (["a b", "b", "b c"], ["moved"]),
        (["a", None, "a"], []),
        (["a", "", "", "a"], ["moved", False, True]),
        (["", "", "a"], [False, True]),
        (["a", "b"], ["moved"]),
    ],
)
async def test_what_becomes_of_an_address_is_noticed(autojump_clock: Any, answers: Any, events: Any) -> None:
    """New addresses move nobody; one that is gone does; a resolver that does not know tells nothing."""
    names, seen = Names(*answers), []
    followed = FollowedName(names, 30, on_moved=lambda: seen.append("moved"), on_presence=seen.append)
    start = trio.current_time()
    with trio.move_on_after(200):
        await followed.run()

    assert seen == events
    assert [0, 30, 60, 90, 120, 150, 180] == [round(each - start) for each in names.asked]


@pytest.mark.parametrize(
    ("outcome", "found"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), frozenset()),
        (socket.gaierror(socket.EAI_AGAIN, "later"), None),
        (OSError("no"), None),
        (UnicodeError("no"), None),
        ([(2, 1, 6, "", ("10.0.0.1", 80)), (10, 1, 6, "", ("::1", 80, 0, 0))], frozenset({"10.0.0.1", "::1"})),
    ],
)
async def test_only_a_resolver_that_knows_says_that_there_is_no_such_name(
    monkeypatch: pytest.MonkeyPatch, outcome: Any, found: Any
) -> None:
    """A failure to ask is not an answer."""

    async def getaddrinfo(*_: Any, **__: Any) -> Any:
        await trio.lowlevel.checkpoint()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)

    assert await lookup_of("up.example", 80)() == found


async def test_a_sink_that_follows_its_name_moves_and_tells_of_it(
    autojump_clock, upstream, make_sink, peer, monkeypatch
):
    """Option follow_name: new connections, the state of the sink, and list_changed to sessions and caches."""
    names = Names("10.0.0.1", "10.0.0.2", "", "10.0.0.2")
    monkeypatch.setattr(http_sink, "lookup_of", lambda *_: names)

    async def handle(seen: Any, answer: Any) -> None:
        if seen.method == "GET":
            await answer.send(405)
        elif "id" not in (seen.json if seen.body else {}):
            await answer.send(202)
        elif seen.rpc == "initialize":
            await answer.result(seen, SERVER, mcp_session_id="s")
        else:
            await answer.result(seen, {"on": seen.connection})

    upstream.handle = handle
    states: list[str] = []
    told: list[str] = []
    context = Context(id="up", report=lambda state, reason: states.append(f"{state}: {reason}"))
    context.changes.listen(lambda sink, notification: told.append(notification.method))

    async def used(sink: Any) -> int:
        reply = await sink(peer.exchange("tools/call", {"name": "n"}))
        assert isinstance(reply, Result)
        return int(reply.value["on"])

    async with make_sink(context, follow_name=10.0, keep_idle=1000.0) as sink:
        await peer.start(sink)
        peer.session.version = "2025-11-25"
        first = await used(sink)
        assert first == await used(sink)
        await trio.sleep(11)
        second = await used(sink)
        assert second > first
        assert (states, told, peer.notices) == ([], [], [])
        await trio.sleep(10)
        assert states == ["degraded: up.example leads nowhere"]
        assert told == CHANGED
        assert [note.method for note in peer.notices] == CHANGED
        await trio.sleep(10)
        assert states[1:] == ["ready: "]
        assert told == CHANGED * 2


async def test_a_proxy_looks_names_up_itself() -> None:
    """Both options at once are a mistake."""
    with pytest.raises(ValueError, match="follow_name"):
        HttpSinkConfig(url="http://up.example/mcp", proxy="http://proxy.example:3128", follow_name=30.0)
