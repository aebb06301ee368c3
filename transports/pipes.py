"""
Our ends of a child's pipes, for those who read and write all the time.

Trio's own stream lets other tasks run before every read and every write. Here a read waits first, and a write waits
only if it must.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, final

import trio

_PIECE: Final = 64 * 1024
"""What a pipe holds, as a rule."""
_MAX_LINES: Final = 256
"""Lines of one read that are taken in one go."""
_PORTION: Final = 512
"""Bytes of what is cut."""


def portions(data: bytes) -> Iterator[bytes]:
    """
    What was read, whole, or cut if it has a lot of short lines: each takes its time, and others want their turn.

    64 KiB of lines that are no messages take half a second.
    """
    if data.count(b"\n") <= _MAX_LINES:
        yield data
        return
    for start in range(0, len(data), _PORTION):
        yield data[start : start + _PORTION]


class _End:
    """One end, which is made non-blocking and closed once."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    def close(self) -> None:
        """Close at once. Whoever waits gets `trio.ClosedResourceError`. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            trio.lowlevel.notify_closing(fd)
            os.close(fd)

    def _number(self) -> int:
        if self._fd < 0:
            raise trio.ClosedResourceError("the pipe is closed")
        return self._fd


@final
class ReadEnd(_End):
    """
    What a child says, for one reader.

    Args:
        fd: Owned by this object from now on.
    """

    async def receive_some(self) -> bytes:
        """
        All there is, up to 64 KiB; empty at the end. Always a checkpoint.

        Raises:
            trio.ClosedResourceError: It was closed, perhaps meanwhile.
            trio.BrokenResourceError: The kernel cannot read it.
        """
        while True:
            await trio.lowlevel.wait_readable(self._number())
            try:
                return os.read(self._number(), _PIECE)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError("the pipe cannot be read") from error


@final
class WriteEnd(_End):
    """
    What a child is told, by one writer.

    Args:
        fd: Owned by this object from now on.
    """

    def send_nowait(self, data: bytes | memoryview) -> int:
        """
        Write as much as there is room for.

        Returns:
            How many bytes that was; 0 if nobody reads at the other end.

        Raises:
            trio.ClosedResourceError: It was closed.
            trio.BrokenResourceError: The other end is closed.
        """
        try:
            return os.write(self._number(), data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError("nobody reads the pipe any more") from error

    async def send_all(self, data: bytes) -> None:
        """Write all of it; a checkpoint only if it has to wait. Raises as `send_nowait` does."""
        await trio.lowlevel.checkpoint_if_cancelled()
        rest: bytes | memoryview = data
        while (sent := self.send_nowait(rest)) < len(rest):
            rest = memoryview(rest)[sent:]
            await trio.lowlevel.wait_writable(self._number())
