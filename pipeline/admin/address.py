"""Where the admin listener is bound, as written in `run.admin.bind`: `host:port` or `unix:path`."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import final

from attrs import frozen


@final
@frozen
class Address:
    """A TCP address, or the path of a Unix socket."""

    host: str = ""
    """Host name or IP address, without brackets; empty for a Unix socket."""
    port: int = 0
    """TCP port; 0 lets the system choose."""
    path: Path | None = None
    """The socket's path; None for TCP."""

    @property
    def private(self) -> bool:
        """Whether only this machine can reach it."""
        return self.path is not None or is_loopback(self.host)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(bind: str) -> Address:
    """
    `127.0.0.1:9464`, `[::1]:9464` or `unix:./sluiceway.sock`.

    Raises:
        ValueError: With a sentence that says what to write instead.
    """
    if bind.startswith("unix:"):
        path = bind.removeprefix("unix:")
        if not path:
            raise ValueError("a Unix socket needs a path: write unix:./sluiceway.sock")
        return Address(path=Path(path))
    host, colon, port = bind.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"an IPv6 address needs brackets: write [{host}]:{port}")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 2**16):
        raise ValueError(f"expected host:port or unix:path, got {bind!r}")
    return Address(host, int(port))


def is_loopback(host: str) -> bool:
    """Whether a host name or IP address means this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_literal(host: str) -> bool:
    """Whether a host is an IP address, which no DNS answer can redirect."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
