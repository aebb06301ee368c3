"""Two workers that serve one source: whoever is asked, the session answers."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from sluiceway.pipeline.model.worker import elsewhere, marked
from sluiceway.transports.http_source.config import SseConfig


class Place:
    """One of two workers in this process."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.is_announced = True
        self.others: dict[str, Any] = {}
        """The sources of the others, by mark."""
        self.reached = 0
        self.connections = 0
        self.sockets: list[socket.socket] = []

    def key(self, purpose: str) -> str:
        return purpose

    def take_sockets(self, source: str) -> list[socket.socket]:
        assert source == "web"
        return self.sockets

    def count(self, difference: int) -> None:
        self.connections += difference

    def lead(self) -> int:
        return 0

    async def reach(self, mark: str, source: str) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        self.reached += 1
        ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in socket.socketpair())
        if mark in self.others:
            self.others[mark].take(theirs)
        else:
            await theirs.aclose()
        return ours

    async def move(self, mark: str, source: str, client: int) -> None:
        await trio.lowlevel.checkpoint()
        self.others[mark].adopt(socket.socket(fileno=os.dup(client)))


@asynccontextmanager
async def both(running: Any, *, bound: bool = False, **options: Any) -> AsyncIterator[tuple[Any, Any, Place]]:
    """Two sources that serve as workers `w1` and `w2`, and the place of the first."""
    here, there = Place("w1"), Place("w2")
    if bound:
        here.sockets = [socket.create_server(("127.0.0.1", 0))]
    async with (
        running(worker=here, bound=bound, **options) as first,
        running(worker=there, **options) as second,
    ):
        here.others["w2"], there.others["w1"] = second.source, first.source
        yield first, second, here
        for served in (first, second):
            served.source._fellows.close()


def figures(served: Any) -> dict[str, float]:
    """What a source counts, by name."""
    return {figure.name: figure.value for figure in served.source.figures()}


def test_a_session_says_where_it_lives() -> None:
    """Only ids of other workers lead there; one that says nothing, or names us, is ours or nobody's."""
    place = Place("w1")

    assert marked("abc", None) == "abc"
    assert marked("abc", place) == "abc.w1"
    assert elsewhere("abc.w2", place) == "w2"
    assert [elsewhere(each, place) for each in ("abc.w1", "abc", "", "abc.")] == [None] * 4
    assert elsewhere("abc.w2", None) is None


async def test_what_belongs_to_another_worker_is_answered_by_it(running: Any) -> None:
    """Calls with progress, notifications, batches and the end of a session; one connection carries all of them."""
    with trio.fail_after(5):
        async with both(running) as (first, second, place):
            session = await second.session("2025-03-26")
            call = await first.post(first.calling("echo"), **session)
            progress = await first.post(first.calling("progress", 2, times=3), **session)
            told = await first.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, **session)
            batch = await first.post([first.calling("echo", 3), first.calling("echo", 4)], **session)
            ended = [await first.ask("DELETE", **session) for _ in range(2)]

            assert (
                call.headers["content-type"]
                == (await second.post_modern(second.modern("ping"))).headers["content-type"]
            )
            assert call.json["result"]["name"] == "echo"
            assert [message.get("method", "reply") for message in progress.messages][-4:] == [
                "notifications/progress", "notifications/progress", "notifications/progress", "reply",
            ]  # fmt: skip
            assert told.status == 202
            assert len(batch.json) == 2
            assert [answer.status for answer in ended] == [200, 404]
            assert place.reached == 1
            assert figures(first)["http_passed_on_total"] == figures(second)["http_taken_total"] == 6


async def test_a_question_and_its_answer_may_meet_the_wrong_worker(running: Any) -> None:
    """The stream on which it is asked, and the POST that answers it, are both passed on."""
    with trio.fail_after(5):
        async with both(running) as (first, second, _):
            session = await second.session()
            wire = first.connect()
            await wire.send("POST", "/mcp", first.calling("ask"), session)
            await wire.head()
            asked = await wire.next_message()
            answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept"}}
            posted = await first.post(answer, **session)
            replied = await wire.next_message()

            assert asked["method"] == "elicitation/create"
            assert posted.status == 202
            assert replied["result"] == {"answer": {"action": "accept"}}


async def test_the_other_worker_hears_of_a_client_that_leaves(running: Any) -> None:
    """The session's own stream, which has one reader at a time, is free again."""
    with trio.fail_after(5):
        async with both(running) as (first, second, _):
            session = await second.session()
            wire = first.connect()
            await wire.send("GET", "/mcp", None, {**session, "accept": "text/event-stream"})
            await wire.head()
            http_session = second.source.sessions.find(session["mcp_session_id"])

            assert http_session.standalone.attached
            await wire.aclose()
            while http_session.standalone.attached:  # noqa: ASYNC110  # nobody tells
                await trio.sleep(0.001)


async def test_a_worker_that_is_gone_took_its_sessions_with_it(running: Any) -> None:
    """The client is told to initialize again, as after any restart."""
    with trio.fail_after(5):
        async with both(running) as (first, _, place):
            session = {"mcp_session_id": "abc.w9", "mcp_protocol_version": "2025-11-25"}
            answer = await first.post(first.calling("echo"), **session)

            assert answer.status == 404
            assert place.reached == 1
            assert figures(first)["http_passed_on_total"] == 0


async def test_messages_for_an_event_stream_find_the_worker_that_has_it(running: Any) -> None:
    """HTTP+SSE of 2024-11-05: the stream is here, the POST comes there."""
    with trio.fail_after(5):
        async with both(running, sse=SseConfig(path="/sse")) as (first, second, _):
            wire = second.connect()
            await wire.send("GET", "/sse", None, {"accept": "text/event-stream"})
            await wire.head()
            path = (await wire.next_events())[0].data
            body = first.request("initialize", 0, protocolVersion="2024-11-05", capabilities={})
            posted = await first.ask("POST", path, body)
            reply = await wire.next_message()

            assert posted.status == 202
            assert reply["result"]["protocolVersion"] == "2024-11-05"


async def test_a_client_on_a_plain_socket_follows_its_session(running: Any) -> None:
    """One request is passed on; the next one on the same connection comes to the right worker by itself."""
    with trio.fail_after(5):
        async with both(running, bound=True) as (first, second, place):
            session = await second.session()
            [address] = first.source.addresses
            async with await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2])) as stream:
                lines = [f"{name.replace('_', '-')}: {value}" for name, value in session.items()]
                answers = []
                for number in (1, 2, 3):
                    await stream.send_all(first.raw_post(first.calling("echo", number), *lines))
                    answers.append(await stream.receive_some(65536))
                    await trio.testing.wait_all_tasks_blocked(0.01)

                assert [answer.split(b" ", 2)[1] for answer in answers] == [b"200"] * 3
                assert (figures(first)["http_passed_on_total"], figures(first)["http_moved_total"]) == (1, 1)
                assert place.connections == 0
                assert second.source.server.connections == 1


async def test_a_drain_waits_for_what_others_have_passed_on(running: Any) -> None:
    """A call of another worker's client is answered before its session's worker is done."""
    with trio.fail_after(5):
        async with both(running) as (first, second, _):
            session = await second.session()
            async with trio.open_nursery() as nursery:
                wire = first.connect()
                await wire.send("POST", "/mcp", first.calling("slow", seconds=0.1), session)
                await trio.testing.wait_all_tasks_blocked(0.01)
                nursery.start_soon(second.source.delivered)
                second.source.stop_accepting()
                await trio.testing.wait_all_tasks_blocked(0.01)
                waiting = len(nursery.child_tasks)
                answer = await wire.response()

            assert waiting == 1
            assert answer.status == 200


@pytest.mark.parametrize("serves", [True, False])
async def test_what_comes_too_early_or_too_late_is_closed(running: Any, serves: bool) -> None:
    """A source that does not serve takes neither connections of others nor their clients."""
    with trio.fail_after(5):
        async with both(running) as (first, _, _):
            if serves:
                first.source.stop_accepting()
            else:
                first.source._serving = None
            ours, theirs = socket.socketpair()
            first.source.adopt(theirs)
            async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
                assert await stream.receive_some() == b""
