"""
Instructions of this process: from the processor's own counters (perf_event_open(2)), or counted by valgrind.

They do not move with neighbours, clock or caches, and so tell a change of one per cent. Virtual machines rarely have
counters, and containers rarely may ask for them; under `valgrind --tool=callgrind` this process can ask valgrind
instead, which counts everywhere, without the kernel's part, and is some fifty times as slow.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import re
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
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


class Callgrind:
    """
    Valgrind's count of what this process executes, as a context manager.

    Valgrind takes requests from the program that it runs: a pointer to six numbers in a register, in front of a row of
    instructions that change nothing (valgrind.h; here for x86-64). They are called as a function of machine code.

    Args:
        out: The file that valgrind was told to write to (`--callgrind-out-file`).
    """

    _CODE = bytes.fromhex(
        "4889f8 31d2"  # mov rax, rdi; xor edx, edx
        "48c1c703 48c1c70d 48c1c73d 48c1c733"  # rol rdi, 3; 13; 61; 51: all of it once round
        "4887db 4889d0 c3"  # xchg rbx, rbx; mov rax, rdx; ret
    )
    _RUNNING = 0x1001
    _ZERO, _DUMP, _START, _STOP = ((ord("C") << 24 | ord("T") << 16) + number for number in (1, 0, 4, 5))

    def __init__(self, out: Path) -> None:
        """
        Raises:
            OSError: Valgrind does not run this process, or not on this processor.
        """
        self._out, self._dumps = out, 0
        if platform.machine() != "x86_64":
            raise OSError(f"no way to talk to valgrind is known for {platform.machine()}")
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(self._CODE)
        place = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._call = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)(place)
        self._asked = (ctypes.c_size_t * 6)()
        if not self._ask(self._RUNNING):
            raise OSError("this process is not run by valgrind")

    def _ask(self, what: int) -> int:
        self._asked[0] = what
        return self._call(ctypes.addressof(self._asked))

    def __enter__(self) -> Self:
        self._ask(self._START)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ask(self._STOP)

    def begin(self) -> None:
        """From here on."""
        self._ask(self._ZERO)

    def end(self) -> int:
        """What it came to since `begin`."""
        self._ask(self._DUMP)
        self._dumps += 1
        path = self._out.with_name(f"{self._out.name}.{self._dumps}")
        found = re.search(r"^totals: (\d+)", path.read_text(), re.MULTILINE)
        path.unlink()
        assert found is not None
        return int(found[1])

    def of(self, work: Callable[[], object]) -> int:
        """What this comes to."""
        self.begin()
        work()
        return self.end()


def under_valgrind(out: Path, command: Sequence[str]) -> list[str]:
    """
    The command that has valgrind run another, for `Callgrind` in it.

    Raises:
        OSError: There is no valgrind here.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise OSError("there is no valgrind here (Debian's package is called that)")
    return [valgrind, "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}", *command]
