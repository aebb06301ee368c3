"""The parts of the protocol that no request reaches by itself."""

from __future__ import annotations

import trio

from sluiceway.transports.http_source.protocol import MAX_UNREAD, Inbox


def body(size):
    return {"type": "http.request", "body": b"x" * size, "more_body": True}


async def test_an_inbox_holds_back_the_connection_when_it_is_full(autojump_clock):
    """Until somebody reads, or nobody will any more."""
    inbox = Inbox()
    await inbox.put(body(MAX_UNREAD))
    done = []

    async def put(size):
        await inbox.put(body(size))
        done.append(size)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert [] == done
        await inbox.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert [1] == done
        nursery.start_soon(put, MAX_UNREAD)
        await trio.testing.wait_all_tasks_blocked()
        inbox.abandon()
        await inbox.put(body(10 * MAX_UNREAD))

    assert [1, MAX_UNREAD] == done


async def test_who_left_stays_gone(autojump_clock):
    """Asked again, an inbox says so again."""
    inbox = Inbox()
    await inbox.put({"type": "http.disconnect"})

    assert ["http.disconnect"] * 2 == [(await inbox.receive())["type"] for _ in range(2)]
