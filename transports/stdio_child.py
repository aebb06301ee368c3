"""
One child process as an upstream connection: its tasks, its end, and its last words.

Four tasks serve a child: one reads its messages, one writes ours, one keeps its standard error flowing, one waits for
its exit. Whatever happens first (it exits, closes a pipe, or is no longer wanted) starts the same way down: close its
input, wait, SIGTERM, wait, SIGKILL, each to the whole process group (MCP, transports, stdio, shutdown).
"""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import Any, Final, final

import trio

from sluiceway.pipeline.protocol.codec import StreamDecoder, decode_upstream
from sluiceway.pipeline.protocol.errors import UpstreamClosed
from sluiceway.pipeline.protocol.gate import Limits

from .multiplex import Multiplexer
from .outbox import Outbox
from .process import Process, Tail

_LOGGED_LINES: Final = 100
"""Lines of standard error that go to the log in one `_LOG_WINDOW_S`; more are only counted."""
_LOG_WINDOW_S: Final = 10.0


@final
class Child:
    """
    A running server and the exchanges on it.

    Args:
        name: What it is called in errors: the sink's id.
        process: Just spawned; owned by this object from here on.
        connection: What the child says goes there.
        outbox: What the connection says to the child comes from there.
        tail: Keeps the end of the child's standard error.
        graces_s: Seconds from closing its input to SIGTERM, and from there to SIGKILL.
        max_message: Bytes of one line of its output.
        log: A structured logger.
    """

    def __init__(
        self,
        name: str,
        process: Process,
        connection: Multiplexer,
        outbox: Outbox,
        tail: Tail,
        *,
        graces_s: tuple[float, float],
        max_message: int,
        log: Any,
    ) -> None:
        self.connection = connection
        self.ended = trio.Event()
        """Nothing of it is left."""
        self._name = name
        self._process = process
        self._outbox = outbox
        self._tail = tail
        self._graces_s = graces_s
        self._max_message = max_message
        self._log = log.bind(pid=process.pid)
        self._why = ""
        self._ending = trio.Event()
        self._silent = [trio.Event(), trio.Event()]
        """Standard output and standard error are at their end."""
        self._exited = trio.Event()

    @property
    def is_ending(self) -> bool:
        """It takes no more exchanges."""
        return self._ending.is_set()

    def stop(self) -> None:
        """End the child politely, in its own task. Idempotent."""
        self._end("was stopped by the gateway")

    async def run(self) -> None:
        """Serve until the child is gone; when cancelled, it is killed at once. Nothing of it is left afterwards."""
        try:
            async with trio.open_nursery() as tasks:
                for task in (self._read, self._write, self._drain, self._watch):
                    tasks.start_soon(task)
                await self._ending.wait()
                self._outbox.close()
                await self._climb_down()
                tasks.cancel_scope.cancel()
        finally:
            self._lose()
            await self._process.kill_and_reap()  # noqa: ASYNC102  # shields itself, for seconds at most
            self._log.info(
                "server ended",
                status=self._process.status_text(),
                noise=self.connection.noise,
                unclaimed=self.connection.unclaimed,
            )
            self.ended.set()

    async def _climb_down(self) -> None:
        to_term, to_kill = self._graces_s
        if not await self._gone_within(to_term):
            self._lose()
            self._process.signal_group(signal.SIGTERM)
            await self._gone_within(to_kill)

    async def _gone_within(self, seconds: float) -> bool:
        """Whether the child, and everybody who holds its pipes, is gone in time."""
        with trio.move_on_after(seconds):
            for event in (self._exited, *self._silent):
                await event.wait()
            return True
        return False

    def _lose(self) -> None:
        """There will be no more answers: fail who waits for one."""
        self._ending.set()
        self.connection.close(self._last_words)

    def _last_words(self) -> UpstreamClosed:
        status = self._process.status_text() if self._exited.is_set() else self._why or "was stopped by the gateway"
        lines = self._tail.lines()
        said = f"; its last words: {lines[-1]}" if lines else ""
        data = {"stderr": lines} if lines else {}
        return UpstreamClosed(f"{self._name}: the server {status} before it answered{said}", data=data)

    def _end(self, why: str) -> None:
        self._why = self._why or why
        self._ending.set()

    async def _read(self) -> None:
        decoder = StreamDecoder(decode_upstream, Limits(max_message_size=self._max_message))
        with suppress(trio.BrokenResourceError):
            while data := await self._process.stdout.receive_some():
                for item in decoder.feed(data):
                    self.connection.receive(item)
        for item in decoder.end():
            self.connection.receive(item)
        self._silent[0].set()
        self._end("closed its standard output")

    async def _write(self) -> None:
        try:
            await self._outbox.run(self._process.stdin)
        except trio.BrokenResourceError:
            self._end("closed its standard input")
        self._process.stdin.close()

    async def _drain(self) -> None:
        window_end, logged = 0.0, 0
        with suppress(trio.BrokenResourceError):
            while data := await self._process.stderr.receive_some():
                if trio.current_time() >= window_end:
                    window_end, logged = trio.current_time() + _LOG_WINDOW_S, 0
                lines = self._tail.feed(data)
                for line in lines[: max(0, _LOGGED_LINES - logged)]:
                    self._log.info("server stderr", line=line)
                logged += len(lines)
        self._silent[1].set()

    async def _watch(self) -> None:
        await self._process.wait_exited()
        self._exited.set()
        self._end("")
