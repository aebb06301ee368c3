"""How much memory this process has, as the operating system counts it."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Final

_STATM: Final = Path("/proc/self/statm")
_PAGE: Final = resource.getpagesize()


def resident_bytes() -> int:
    """
    Bytes resident now (Linux); elsewhere the most there ever were, which is all that can be had without a library.

    A read of procfs does not block: the kernel writes the answer while it is read.
    """
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
