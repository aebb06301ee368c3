"""The one place where what goes wrong with a connection becomes an error that an exchange can end with."""

from __future__ import annotations

from types import TracebackType
from typing import Final, final

from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    ConnectFailed,
    GatewayError,
    UpstreamClosed,
    UpstreamProtocolError,
)

from .connect import AddressRefused, DialFailed
from .connection import PeerGone
from .parser import MalformedResponse
from .pool import PoolFull
from .response import BodyTooLarge

FAULTS: Final = (PeerGone, MalformedResponse, DialFailed, PoolFull, BodyTooLarge)
"""What can go wrong with a connection."""


@final
class Faults:
    """
    A `with` block out of which only `GatewayError`s come for what went wrong with a connection.

    Args:
        name: What the upstream is called in errors: the sink's id.
        max_message: Named where a body is too large, in bytes.
    """

    def __init__(self, name: str, max_message: int) -> None:
        self._name = name
        self._max_message = max_message

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(exc, FAULTS):
            raise self.translated(exc) from exc

    def translated(self, error: Exception) -> GatewayError:
        """The error that one of `FAULTS` is for an exchange, for those who catch it themselves."""
        name = self._name
        if isinstance(error, DialFailed):
            failed = ConnectFailed(f"{name}: the upstream cannot be reached: {error}")
            failed.event = "address_refused" if isinstance(error, AddressRefused) else ""
            return failed
        if isinstance(error, PoolFull):
            return CapacityExceeded(
                f"{name}: all connections to the upstream are in use, and as many requests wait as may; "
                "raise max_connections or max_streams"
            )
        if isinstance(error, BodyTooLarge):
            return UpstreamProtocolError(
                f"{name}: the upstream's message has more than {self._max_message} bytes (max_message)"
            )
        if isinstance(error, MalformedResponse):
            return UpstreamProtocolError(f"{name}: the upstream's answer is not {error.protocol}: {error}")
        assert isinstance(error, PeerGone)
        closed = UpstreamClosed(
            f"{name}: the upstream {error.how} before it had taken the request"
            if error.unsent
            else f"{name}: the upstream {error.how} before its answer was complete; the request may have run"
        )
        closed.retryable = error.unsent
        return closed
