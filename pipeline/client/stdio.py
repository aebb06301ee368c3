"""
The client's end of stdio: a child process, one JSON message a line (2025-11-25 and 2026-07-28, basic/transports).

The child leads a process group of its own, and the whole group is gone when the block ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Final, final

import trio
from attrs import define, field

from ..protocol.codec import StreamDecoder, decode_upstream, encode_message
from ..protocol.errors import ConnectFailed, GatewayError, UpstreamClosed, UpstreamProtocolError
from ..protocol.mcp import Era, MetaKey, meta_of
from ..protocol.messages import EMPTY, ErrorReply, Json, Message, Notification, Reply, Request, RequestId, Response
from ..runtime.nursery import farewell, open_background_nursery
from .client import CLIENT_INFO, McpClient
from .handlers import Handlers
from .handshake import EraChoice
from .wire import Deliver

GRACE_S: Final = 2.0
"""Time the child gets to end after its stdin is closed, and again after SIGTERM, in seconds."""

_PROBE_S: Final = 5.0
_READ: Final = 64 * 1024


@final
@define(eq=False)
class _Waiter:
    """One request in flight."""

    deliver: Deliver
    done: trio.Event = field(factory=trio.Event)
    reply: Reply | None = None


@final
class StdioWire:
    """One server behind two pipes. Everything received goes through one reader."""

    probe_timeout_s = _PROBE_S
    announces_cancel = True

    def __init__(self, writer: trio.abc.SendStream, reader: trio.abc.ReceiveStream, name: str) -> None:
        self._writer = writer
        self._reader = reader
        self._name = name
        self._writing = trio.Lock()
        self._waiters: dict[RequestId, _Waiter] = {}
        self._failure: GatewayError | None = None
        self.era = Era.LEGACY
        self.version = ""

    async def call(self, request: Request, deliver: Deliver, headers: Mapping[str, str] = EMPTY) -> Reply:
        """Write a request and wait until the reader has its reply; there are no headers. See `Wire.call`."""
        waiter = self._waiters[request.id] = _Waiter(deliver)
        try:
            await self.send(request)
            await waiter.done.wait()
        finally:
            del self._waiters[request.id]
        if waiter.reply is None:
            assert self._failure is not None
            raise self._failure
        return waiter.reply

    async def send(self, message: Message) -> None:
        """Write one line. See `Wire.send`."""
        if self._failure is not None:
            raise self._failure
        line = encode_message(message) + b"\n"
        async with self._writing:
            try:
                await self._writer.send_all(line)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise UpstreamClosed(f"{self._name} does not read any more") from error

    async def listen(self, deliver: Deliver) -> None:
        """What no request caused comes through the reader anyway. Not a checkpoint."""

    def forget(self) -> None:
        """There are no session ids on stdio."""

    async def read(self, hear: Deliver) -> None:
        """
        The reader: serves everybody until the server closes its end, or sends something that is not MCP.

        Args:
            hear: Takes what belongs to no request.
        """
        decoder = StreamDecoder(decode_upstream)
        try:
            while chunk := await self._reader.receive_some(_READ):
                for message in decoder.feed(bytes(chunk)):
                    await self._dispatch(message, hear)
            for message in decoder.end():
                await self._dispatch(message, hear)
            self._failure = UpstreamClosed(f"{self._name} closed its output")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._failure = UpstreamClosed(f"{self._name} broke its output")
        except UpstreamProtocolError as error:
            self._failure = error
        for waiter in self._waiters.values():
            waiter.done.set()

    async def _dispatch(self, message: Message | GatewayError, hear: Deliver) -> None:
        if isinstance(message, GatewayError):
            raise UpstreamProtocolError(str(message)) from message
        if not isinstance(message, Response):
            waiter = self._waiters.get(_stream_of(message)) if isinstance(message, Notification) else None
            await (waiter.deliver if waiter is not None else hear)(message)
        elif message.id is not None and message.id in self._waiters:
            waiter = self._waiters[message.id]
            waiter.reply = message.reply
            waiter.done.set()
        elif message.id is None and isinstance(message.reply, ErrorReply):
            await hear(Notification("notifications/message", {"level": "error", "data": message.reply.message}))


def _stream_of(notification: Notification) -> RequestId:
    """The request a notification belongs to: its progress token, which is our id, or its subscription."""
    params = notification.params
    token = params.get("progressToken", meta_of(params).get(MetaKey.SUBSCRIPTION_ID, ""))
    return token if isinstance(token, (str, int)) else ""


@asynccontextmanager
async def open_stdio_client(
    command: Sequence[str],
    *,
    handlers: Handlers | None = None,
    era: EraChoice = "auto",
    info: Mapping[str, Json] = CLIENT_INFO,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stderr: int | IO[bytes] | None = None,
) -> AsyncIterator[McpClient]:
    """
    Start a server and talk to it; the server and all it started are gone when the block has ended.

    Args:
        command: Program and arguments.
        handlers: Answers to the server's questions, and an ear for its notifications.
        era: What to try; `auto` prefers modern.
        info: The client's name and version.
        env: The child's environment; this process's own when None.
        cwd: The child's working directory.
        stderr: Where the child's stderr goes, as in `subprocess.Popen`; this process's own when None.

    Raises:
        ConnectFailed: The program cannot be started.
        McpError: The server refuses, or has no revision in common with us.
        UpstreamFault: The server went away, or does not speak MCP.
    """
    async with _open_child(command, env, cwd, stderr) as process, open_background_nursery() as nursery:
        assert process.stdin is not None
        assert process.stdout is not None
        wire = StdioWire(process.stdin, process.stdout, command[0])
        client = McpClient(wire, handlers or Handlers(), nursery, info)
        nursery.start_soon(wire.read, client.hear)
        await client.connect(era)
        yield client


@asynccontextmanager
async def _open_child(
    command: Sequence[str], env: Mapping[str, str] | None, cwd: Path | None, stderr: int | IO[bytes] | None
) -> AsyncIterator[trio.Process]:
    try:
        process = await trio.lowlevel.open_process(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise ConnectFailed(f"{command[0]} cannot be started: {error}") from error
    try:
        yield process
    finally:
        await _end(process)  # noqa: ASYNC102  # shields itself with farewell


async def _end(process: trio.Process) -> None:
    """Close stdin, then TERM, then KILL; the group is killed in any case, for the leader may leave others behind."""
    assert process.stdin is not None
    assert process.stdout is not None
    with farewell(2 * GRACE_S):
        await process.stdin.aclose()
        with trio.move_on_after(GRACE_S):
            await process.wait()
        if process.returncode is None:
            _signal_group(process, signal.SIGTERM)
            await process.wait()
    _signal_group(process, signal.SIGKILL)
    with farewell(GRACE_S):  # a killed process needs the kernel's time only
        await process.wait()
        await process.stdout.aclose()


def _signal_group(process: trio.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # gone already; EPERM is macOS's word for a zombie
        os.killpg(process.pid, number)
