"""
Resource limits of a server process, as the kernel keeps them (setrlimit).

They are set on the server's side of the fork, by the shim, and hold for each process of the server's by itself. None
is set that nobody asked for but two: a bound on open files, and none of it may dump core.
"""

from __future__ import annotations

import math
import os
import resource
from typing import Final, final

from attrs import frozen

from sluiceway.pipeline.model.options import MIB, Duration, Size, option
from sluiceway.pipeline.protocol.errors import ConnectFailed

_OPTION_OF: Final = {"AS": "memory", "CPU": "cpu_time", "FSIZE": "file_size", "NOFILE": "open_files"}


@final
@frozen
class LimitsConfig:
    """What one process of a server may use."""

    memory: Size | None = option(
        None,
        ge=16 * MIB,
        doc="Address space (RLIMIT_AS). Node and Java reserve far more than they use.",
        example="2GiB",
    )
    cpu_time: Duration | None = option(
        None,
        ge=1,
        doc="CPU time of its whole life (RLIMIT_CPU), rounded up to seconds; then it is killed.",
        example="1h",
    )
    open_files: int = option(256, ge=16, doc="Open files and sockets (RLIMIT_NOFILE).", example=256)
    file_size: Size | None = option(None, doc="Size of a file that it writes (RLIMIT_FSIZE).", example="1GiB")

    def rlimits(self) -> dict[str, int]:
        """
        The limits by the end of their names in `resource`.

        Raises:
            ConnectFailed: One is above what the gateway itself may have, which only root can exceed.
        """
        wanted = {"AS": self.memory, "FSIZE": self.file_size, "NOFILE": self.open_files, "CORE": 0}
        if self.cpu_time is not None:
            wanted["CPU"] = math.ceil(self.cpu_time)
        limits = {name: int(value) for name, value in wanted.items() if value is not None}
        for name, value in limits.items():
            ours = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]
            if ours != resource.RLIM_INFINITY and value > ours and os.geteuid() != 0:
                raise ConnectFailed(
                    f"limits.{_OPTION_OF[name]} is {value}, but the gateway itself has only {ours}; "
                    f"lower it, or raise the gateway's own limit (ulimit)"
                )
        return limits
