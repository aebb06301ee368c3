"""
From a message stream to an HTTP response: one JSON body when that is all there is, else an event stream.

A reply that comes alone and soon is `application/json`. As soon as anything comes before it, or nothing comes for a
while, the response becomes `text/event-stream`, which proxies keep open as long as comments flow through it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, final

import trio

from ..sse_codec import COMMENT, encode_event
from .answers import Answer
from .media import EVENTS, JSON
from .request import HttpRequest
from .response import HttpResponse
from .stream import MessageStream

RETRY_MS: Final = 1000
"""What a client of 2025-11-25 is asked to wait before it reconnects, in milliseconds (SEP-1699)."""

EVENT_HEADERS: Final[Mapping[str, str]] = {
    "content-type": EVENTS,
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


@final
class Delivery:
    """
    Carries one stream to one client, until the stream ends or the client, or another reader, takes over.

    Args:
        stream: What to carry.
        response: Where to.
        keep_alive_s: Seconds of silence after which a comment is sent.
        event_ids: Whether events carry ids.
        primed: Whether the event stream opens with an id and empty data (2025-11-25).
    """

    def __init__(
        self,
        stream: MessageStream,
        response: HttpResponse,
        *,
        keep_alive_s: float,
        event_ids: bool = False,
        primed: bool = False,
    ) -> None:
        self.gone = False
        """Whether the client left before the stream ended."""
        self._stream = stream
        self._response = response
        self._keep_alive_s = keep_alive_s
        self._event_ids = event_ids
        self._primed = primed

    async def run(
        self,
        request: HttpRequest,
        *,
        after: int | None = None,
        on_start: Callable[[], Mapping[str, str]] = dict,
        on_gone: Callable[[], None] = lambda: None,
        whole: Callable[[], Answer | None] = lambda: None,
        json: bool = False,
        patience_s: float = 0.0,
    ) -> bool:
        """
        Deliver.

        Args:
            request: Whose client is watched.
            after: Number behind which to continue; None for where the last reader stopped.
            on_start: Called when the response becomes an event stream; returns further headers.
            on_gone: Called at once when the client leaves before the end.
            whole: Makes the one answer of a stream that ended without becoming an event stream, and takes its messages;
                None, and nothing is taken, if only an event stream will do.
            json: Whether a long reply may be JSON too, with the headers of `on_start`.
            patience_s: Seconds to wait for that; infinite to never become an event stream.

        Returns:
            False if the stream no longer has what comes behind `after`; nothing was sent then.
        """
        stream = self._stream
        if not stream.attach(self, after):
            return False

        def leave() -> None:
            self.gone = True
            stream.wake()
            if stream.detach(self):
                on_gone()

        with request.watch(leave):
            try:
                if patience_s > 0 and await self._deliver_whole(whole, on_start if json else None, patience_s):
                    return True
                if stream.reads(self):
                    await self._deliver_events(on_start)
            finally:
                if not stream.ended:
                    leave()
                stream.detach(self)
        return True

    async def _deliver_whole(
        self,
        whole: Callable[[], Answer | None],
        headers: Callable[[], Mapping[str, str]] | None,
        patience_s: float,
    ) -> bool:
        """Wait until it is clear what this will be; whether it was one answer, or nobody is there for any."""
        stream = self._stream
        with trio.move_on_after(patience_s):
            while not stream.ended and not stream.is_long and stream.reads(self) and self._may_be_whole(patience_s):
                await stream.changed()
        if not stream.reads(self):
            return True
        if stream.is_long and headers is not None and self._may_be_whole(patience_s):
            await self._response.start(200, {**headers(), "content-type": JSON})
            await self._write_pieces()
            await self._response.write(b"", last=True)
            return True
        if stream.ended and self._may_be_whole(patience_s):
            answer = whole()
            if answer is not None:
                await self._response.answer(answer)
                return True
        return False

    def _may_be_whole(self, patience_s: float) -> bool:
        return not self._stream.interim or patience_s == math.inf

    async def _write_pieces(self) -> None:
        """
        Write a long reply as it comes.

        Raises:
            trio.BrokenResourceError: It broke off, and so must the response.
        """
        stream = self._stream
        while stream.reads(self):
            piece = stream.take_pieces()
            if piece:
                await self._response.write(piece)
            elif stream.ended:
                break
            else:
                await stream.changed()
        if stream.is_broken:
            raise trio.BrokenResourceError("the reply broke off")

    async def _deliver_events(self, on_start: Callable[[], Mapping[str, str]]) -> None:
        stream = self._stream
        await self._response.start(200, {**EVENT_HEADERS, **on_start()})
        pending = b""
        if self._primed:
            pending = encode_event(b"", event_id=self._event_id(stream.taken), retry_ms=RETRY_MS)
        pending += self._render()
        if not pending and not stream.ended:
            pending = COMMENT  # the head goes out with the first bytes of the body
        while not stream.ended and not stream.is_long:
            await self._response.write(pending)
            await self._news()
            if not stream.reads(self):
                break
            pending = self._render()
            if not pending and not stream.ended:
                pending = COMMENT
        if stream.is_long and stream.reads(self):
            await self._response.write(pending + self._render() + b"data: ")
            await self._write_pieces()
            pending = b"\n\n"
        if self.gone:
            return
        if stream.reads(self):
            await self._response.write(pending + self._render(), last=True)
        else:
            await self._response.write(b"", last=True)  # another reader took over

    async def _news(self) -> None:
        """Wait for something to write or somebody else to write it, at most as long as may pass in silence."""
        stream = self._stream
        with trio.move_on_after(self._keep_alive_s):
            while stream.reads(self) and not stream.ended and not stream.is_long and stream.taken == stream.last:
                await stream.changed()

    def _render(self) -> bytes:
        """Everything the reader has not seen, as events."""
        return b"".join(
            encode_event(message, event_id=self._event_id(number) if self._event_ids else None)
            for number, message in self._stream.take()
        )

    def _event_id(self, number: int) -> str:
        return f"{self._stream.id}_{number}"


def parse_event_id(value: str) -> tuple[str, int] | None:
    """The stream and the number in a `Last-Event-ID`; None if it is not one of ours."""
    stream_id, _, number = value.rpartition("_")
    if not stream_id or not (number.isascii() and number.isdigit()) or len(number) > 18:
        return None
    return stream_id, int(number)
