"""What sources that listen have in common: the options of the listener, whatever is spoken on it."""

from __future__ import annotations

import re
from typing import Any, Final

from attrs import frozen

from sluiceway.pipeline.model.options import SECOND, Duration, option

from .listening import SocketAccess, check_binds
from .server_tls import ServerTlsConfig

_PATH: Final = re.compile(r"/|(?:/[A-Za-z0-9._~-]+)+")


def is_endpoint_path(path: str) -> bool:
    """Whether an endpoint can be at a path: segments of unreserved characters, which nobody encodes otherwise."""
    return _PATH.fullmatch(path) is not None


def bind_option(port: int) -> Any:
    """The addresses of a source whose clients look for it at this port first."""
    return option(
        f"127.0.0.1:{port}",
        doc="Address to listen on: `host:port` or `unix:path`, or a list of them. Port 0 takes a free one.",
        example=[f"127.0.0.1:{port}", f"[::1]:{port}"],
    )


@frozen
class ListenerConfig:
    """Where a source listens, and whom it lets in."""

    bind: str | tuple[str, ...] = bind_option(8080)
    socket_access: SocketAccess = option(
        "owner", doc="Whose processes may connect to Unix sockets: the gateway's user, its group too, or all.",
        example="group",
    )  # fmt: skip
    tls: ServerTlsConfig | None = option(
        None,
        doc="Speak TLS, on TCP and on Unix sockets. In plain text when absent. The certificate is read again when its "
        "files change.",
        example={"cert": "./tls/gateway.pem", "key": "./tls/gateway.key"},
    )
    allowed_hosts: tuple[str, ...] = option(
        (),
        doc="Host names under which clients may address the source, with or without port; `*` for any. Loopback names "
        "are always allowed on a loopback address, and IP addresses elsewhere as long as the list is empty.",
        example=["gateway.example.com"],
    )
    allowed_origins: tuple[str, ...] = option(
        (),
        doc="Origins whose pages may use the source; `*` for any. Those of loopback names are always allowed on a "
        "loopback address.",
        example=["https://assistant.example.com"],
    )
    max_connections: int = option(
        4096, ge=1, doc="Connections at the same time; further ones are answered 503 and closed."
    )
    head_timeout: Duration = option(
        Duration(10 * SECOND), gt=0, doc="Time a client gets to send the head of a request, the first one included."
    )

    def __attrs_post_init__(self) -> None:
        check_binds(self.binds)

    @property
    def binds(self) -> tuple[str, ...]:
        """The addresses, always as a tuple."""
        return (self.bind,) if isinstance(self.bind, str) else self.bind
