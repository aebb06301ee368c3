"""What clients of the modern era say in every request, looked at once for as long as they say the same."""

from __future__ import annotations

from typing import Final, final

from sluiceway.pipeline.model.options import KIB
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.mcp import MetaKey
from sluiceway.pipeline.protocol.messages import Json, Request

from ..eras import modern
from .media import JSON, accepts
from .request import HttpRequest, RequestHead

MAX_SAID: Final = 4 * KIB
"""Bytes of a body whose metadata stay with the connection: what a client that is idle makes us keep is small."""
_VERSION: Final = MetaKey.VERSION.value
_CAPABILITIES: Final = MetaKey.CLIENT_CAPABILITIES.value
_INFO: Final = MetaKey.CLIENT_INFO.value


@final
class Said:
    """
    What the last request on a connection said about its sender and about itself, and agreed with its head.

    Whoever says all of that again, in a head that is the same one, needs no checks, and is the same `Client`.

    Args:
        message: What was posted.
        request: As which.

    Raises:
        GatewayError: It does not agree; see `modern.check_request`.
    """

    __slots__ = (
        "_capabilities", "_exactly", "_head", "_info", "_meta", "_method", "_target", "_version",
        "client", "takes_json",
    )  # fmt: skip

    def __init__(self, message: Request, request: HttpRequest) -> None:
        head, meta = request.head, message.meta
        modern.check_request(message, head.headers, head.repeated)
        self._head = head
        self._meta = meta
        self._version, self._capabilities, self._info = meta.get(_VERSION), meta.get(_CAPABILITIES), meta.get(_INFO)
        about = self._capabilities, self._info
        self._exactly = repr(about) if any(map(_looks_like_others, about)) else None
        self._method, self._target = message.method, message.target
        self.takes_json: Final = accepts(head.headers.get("accept"), JSON)
        """Whether the sender takes plain JSON."""
        self.client: Final[Client] = modern.client_of(message, head.headers, request.address, request.certificate)

    def is_said_by(self, message: Request, head: RequestHead) -> bool:
        """Whether another request of the connection says the same."""
        if head is not self._head or message.method != self._method or message.target != self._target:
            return False
        meta = message.meta
        if meta != self._meta and (  # which differs in a progress token or a trace, mostly
            meta.get(_VERSION) != self._version
            or meta.get(_CAPABILITIES) != self._capabilities
            or meta.get(_INFO) != self._info
        ):
            return False
        return self._exactly is None or self._exactly == repr((meta.get(_CAPABILITIES), meta.get(_INFO)))


def _looks_like_others(value: Json) -> bool:
    """Whether it has a number or a truth value in it: 1, 1.0 and True are equal, and say different things in JSON."""
    if isinstance(value, dict):
        return any(map(_looks_like_others, value.values()))
    if isinstance(value, list):
        return any(map(_looks_like_others, value))
    return isinstance(value, int | float)
