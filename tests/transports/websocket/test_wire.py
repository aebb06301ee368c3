"""The wire of a WebSocket, where it meets a peer that is gone."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from sluiceway.transports.websocket.wire import Refused, WireLimits, accept


async def test_a_client_that_left_before_it_was_answered_has_just_left(autojump_clock: trio.testing.MockClock) -> None:
    """That is no failure of ours which anybody should read of in the log."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def gone() -> None:
        raise trio.BrokenResourceError

    ours.send_stream.send_all_hook = gone
    limits = WireLimits(1024, 20.0, 20.0)
    with pytest.raises(Refused, match="left"):
        async with accept(ours, "dGhlIHNhbXBsZSBub25jZQ==", "mcp", first=b"", limits=limits):
            pass  # pragma: no cover  # nobody gets here
    await theirs.aclose()
