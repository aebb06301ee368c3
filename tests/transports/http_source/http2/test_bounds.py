"""What one HTTP/2 client may cost: streams, windows, times."""

from __future__ import annotations

from typing import Any

import trio
from h2.errors import ErrorCodes


async def test_a_stream_too_many_is_refused_and_the_others_go_on(running: Any, dial: Any, autojump_clock: Any) -> None:
    """The client is told of max_streams; who does not heed it may send the request again, elsewhere or later."""
    async with running(max_streams=3) as served:
        peer = await dial(served)
        body = served.modern("tools/call", 7, name="slow")
        streams = [await peer.send("POST", "/mcp", body, served.mirror(body)) for _ in range(5)]
        answers = [await peer.response(stream) for stream in streams]
        again = await peer.ask("POST", "/mcp", body, served.mirror(body))

        assert peer.settings[3] == 3
        assert [(a.status, a.reset) for a in answers] == [*[(200, None)] * 3, *[(0, ErrorCodes.REFUSED_STREAM)] * 2]
        assert again.status == 200
        assert trio.current_time() == 10.0
