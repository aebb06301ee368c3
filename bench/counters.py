"""
Instructions of this process, from the processor's own counters (perf_event_open(2)).

They do not move with neighbours, clock or caches, and so tell a change of one per cent. Virtual machines rarely have
them, and containers rarely may ask; then there are none, and whoever wanted them says so.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Self

_NUMBERS = {"x86_64": 298, "aarch64": 241}
"""Of the system call."""
HARDWARE, INSTRUCTIONS = 0, 1
SOFTWARE, TASK_CLOCK = 1, 1
_SIZE = 112
_FLAGS = 0b1100001
"""Disabled until it is enabled; the kernel's and the hypervisor's work is not counted."""
_ENABLE, _DISABLE, _RESET = 0x2400, 0x2401, 0x2403


class Counter:
    """
    One counter of this process, as a context manager.

    Args:
        kind: Of counters, as perf_event_open(2) numbers them.
        event: Of that kind.
    """

    def __init__(self, kind: int = HARDWARE, event: int = INSTRUCTIONS) -> None:
        self._kind, self._event = kind, event
        self._descriptor = -1

    def __enter__(self) -> Self:
        """
        Raises:
            OSError: There is no such counter here, or it may not be asked.
        """
        number = _NUMBERS.get(platform.machine())
        if number is None:
            raise OSError(f"no counters are known for {platform.machine()}")
        attributes = struct.pack("=IIQQQQQ", self._kind, _SIZE, self._event, 0, 0, 0, _FLAGS).ljust(_SIZE, b"\0")
        library = ctypes.CDLL(None, use_errno=True)
        self._descriptor = library.syscall(number, attributes, 0, -1, -1, 0)
        if self._descriptor < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._descriptor)

    def of(self, work: Callable[[], object]) -> int:
        """What this comes to."""
        fcntl.ioctl(self._descriptor, _RESET, 0)
        fcntl.ioctl(self._descriptor, _ENABLE, 0)
        work()
        fcntl.ioctl(self._descriptor, _DISABLE, 0)
        return int(struct.unpack("=Q", os.read(self._descriptor, 8))[0])
