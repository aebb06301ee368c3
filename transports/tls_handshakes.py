"""From an accepted connection to one that speaks TLS: how long that may take, and how many may be at it."""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final, final

import trio

from sluiceway.pipeline.model.figures import Figure

from .server_tls import Certificates, ServerTlsConfig
from .tls_stream import TlsStream

_MAX_REASONS: Final = 50
"""Different reasons of failed handshakes that get a line in the log each."""
_PLAIN_HTTP: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: 40\r\n\r\n"
    b"this port speaks TLS; use https instead\n"
)


@final
class Handshakes:
    """
    Those under way on one source, and how others ended.

    Args:
        config: The options.
        log: A structured logger.
        now: The date, in seconds since 1970.
        protocols: What is spoken over TLS, for ALPN, best first.
    """

    def __init__(
        self,
        config: ServerTlsConfig,
        log: Any,
        now: Callable[[], float],
        protocols: tuple[str, ...] = ("http/1.1",),
    ) -> None:
        self.certificates = Certificates(config, log, now, protocols)
        """Load it before the first connection, and have it watched."""
        self.failed = 0
        """Handshakes that came to nothing."""
        self._config = config
        self._log = log
        self._reasons: set[str] = set()
        self._under_way: OrderedDict[trio.CancelScope, None] = OrderedDict()

    async def secure(self, stream: trio.SocketStream) -> TlsStream | None:
        """
        Have a client shake hands.

        Returns:
            The connection from now on; None, and it is closed, if it came to nothing.
        """
        secured = TlsStream(stream, self.certificates.context)
        scope = trio.CancelScope(deadline=trio.current_time() + self._config.handshake_timeout)
        self._make_room()
        self._under_way[scope] = None
        done = False
        try:
            with scope:
                done = await self._shake(secured, stream)
        finally:
            self._under_way.pop(scope, None)
            if not done:
                self.failed += 1
                await stream.aclose()  # noqa: ASYNC102  # closes even when it is cancelled
        return secured if done else None

    def _make_room(self) -> None:
        if len(self._under_way) >= self._config.max_handshakes:
            oldest, _ = self._under_way.popitem(last=False)
            oldest.cancel()

    async def _shake(self, secured: TlsStream, stream: trio.SocketStream) -> bool:
        try:
            await secured.do_handshake()
        except ssl.SSLError as error:
            self._note(error)
            if error.reason == "HTTP_REQUEST":
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(_PLAIN_HTTP)
        except trio.BrokenResourceError:
            pass  # scanners and health checks do that
        else:
            return True
        return False

    def _note(self, error: ssl.SSLError) -> None:
        """Tell the operator why, once for each reason, so that nobody can flood the log."""
        reason = getattr(error, "verify_message", "") or (error.reason or str(error)).lower().replace("_", " ")
        if reason not in self._reasons and len(self._reasons) < _MAX_REASONS:
            self._reasons.add(reason)
            self._log.warning("a TLS handshake failed; logged once per reason", reason=reason)


def tls_figures(handshakes: Handshakes) -> Iterator[Figure]:
    """What a source that speaks TLS counts."""
    ends, refused = handshakes.certificates.ends_at, handshakes.certificates.refused
    yield Figure("tls_handshakes_failed_total", handshakes.failed, "counter", "Handshakes that came to nothing.")
    yield Figure(
        "tls_certificate_ends_seconds", ends, "gauge", "When the certificate ends, in seconds since 1970.", across="min"
    )
    yield Figure("tls_certificate_refused_total", refused, "counter", "New certificates that could not be used.")
