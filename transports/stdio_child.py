"""
One child process as an upstream connection: its tasks, its end, and its last words.

A few tasks serve a child: one reads its messages, one writes ours, one keeps its standard error flowing, one waits for
its exit, and two watch how much noise it makes and whether anybody needs it. Whatever happens first (it exits, closes a
pipe, or is no longer wanted) starts the same way down: close its input, wait, SIGTERM, wait, SIGKILL, each to the whole
process group (MCP, transports, stdio, shutdown).
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, final

import trio

from sluiceway.pipeline.protocol.codec import StreamDecoder, decode_upstream
from sluiceway.pipeline.protocol.errors import ConnectFailed, UpstreamClosed, UpstreamFault
from sluiceway.pipeline.protocol.gate import Limits

from .lines import until_idle
from .multiplex import Multiplexer
from .outbox import Outbox
from .pipes import portions
from .process import Process, Tail
from .stdio_probe import Probe

_LOGGED_LINES: Final = 100
"""Lines of standard error that go to the log in one `_LOG_WINDOW_S`; more are only counted."""
_LOG_WINDOW_S: Final = 10.0
_NOISY_LINES: Final = 100
"""Lines of standard output in one `_NOISE_WINDOW_S` that are not MCP; a server that writes more is not well."""
_NOISE_WINDOW_S: Final = 60.0


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
        idle_s: Seconds without a request after which it is stopped; None for never.
        probe: Finds out if it hangs; None for nobody.
        on_death: Told at once how it ended if nobody had asked it to. Must not block.
        on_noise: Told when it begins, or ceases, to write a lot that is not MCP. Must not block.
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
        idle_s: float | None,
        probe: Probe | None,
        on_death: Callable[[Child], None],
        on_noise: Callable[[Child, bool], None],
        log: Any,
    ) -> None:
        self.connection = connection
        self.started_at = trio.current_time()
        """Trio clock seconds."""
        self.proven = False
        """It has answered a request."""
        self.ended = trio.Event()
        """Nothing of it is left."""
        self._name = name
        self._process = process
        self._outbox = outbox
        self._tail = tail
        self._graces_s = graces_s
        self._decoder = StreamDecoder(decode_upstream, Limits(max_message_size=max_message))
        self._idle_s = idle_s
        self._probe = probe
        self._heard_at = self.started_at
        self._on_death = on_death
        self._on_noise = on_noise
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

    @property
    def end_text(self) -> str:
        """How it ended, as far as is known; follows the words `the server`."""
        if error := self._process.start_error():
            return f"cannot be started: {error}"
        return self._process.status_text() if self._exited.is_set() else self._why or "was stopped by the gateway"

    def details(self) -> dict[str, Any]:
        """Its number, what is under way, and how much it has written of a line that has not ended."""
        held = self._decoder.buffer_stats()
        buffer = {"used": held.used, "capacity": held.capacity}
        return {"pid": self._process.pid, "in_flight": self.connection.in_flight, "buffer_bytes": buffer}

    def stop(self) -> None:
        """End the child politely, in its own task. Idempotent."""
        if not self.is_ending:
            self._why = "was stopped by the gateway"
            self._ending.set()

    async def run(self) -> None:
        """Serve until the child is gone; when cancelled, it is killed at once. Nothing of it is left afterwards."""
        try:
            async with trio.open_nursery() as tasks:
                for task in (self._read, self._write, self._drain, self._watch, self._watch_noise):
                    tasks.start_soon(task)
                if self._idle_s is not None:
                    tasks.start_soon(self._stop_when_idle, self._idle_s)
                if self._probe is not None:
                    tasks.start_soon(self._watch_hanging, self._probe)
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

    def _last_words(self) -> UpstreamFault:
        if error := self._process.start_error():
            return ConnectFailed(f"{self._name}: the server cannot be started: {error}")
        lines = self._tail.lines()
        said = f"; its last words: {lines[-1]}" if lines else ""
        data = {"stderr": lines} if lines else {}
        return UpstreamClosed(f"{self._name}: the server {self.end_text} before it answered{said}", data=data)

    def _end(self, why: str) -> None:
        """It ended by itself, or made itself useless."""
        if not self.is_ending:
            self._why = why
            self._ending.set()
            self._on_death(self)

    async def _read(self) -> None:
        decoder = self._decoder
        with suppress(trio.BrokenResourceError):
            while data := await self._process.stdout.receive_some():
                self._heard_at = trio.current_time()
                for portion in portions(data):
                    if portion is not data:
                        await trio.lowlevel.checkpoint()
                    for item in decoder.feed(portion):
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

    async def _watch_hanging(self, probe: Probe) -> None:
        self._end(await probe.watch(self.connection, lambda: self._heard_at))

    async def _watch_noise(self) -> None:
        noisy = False
        while True:
            before = self.connection.noise
            await trio.sleep(_NOISE_WINDOW_S)
            if noisy != (self.connection.noise - before > _NOISY_LINES):
                noisy = not noisy
                self._on_noise(self, noisy)

    async def _stop_when_idle(self, idle_s: float) -> None:
        await until_idle(self, idle_s)
        self._log.info("server stopped: nobody used it", idle_s=idle_s)
        self.stop()
