"""
Who may open a WebSocket: what is checked before it is accepted. Pure.

A browser lets every page open a WebSocket to everywhere, credentials included, and tells only by `Origin`; so this is
the only place where a foreign page can be kept out (RFC 6455 section 10.2). The checks are those of the `http` source.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Final, final

import h11
from attrs import frozen

from sluiceway.pipeline.protocol.errors import Forbidden, Misdirected

from ..http_source.answers import HttpError
from ..http_source.hosts import HostPolicy, split_host
from ..http_source.protection import refuse_query_token
from ..http_source.request import read_headers

SUBPROTOCOL: Final = "mcp"
"""What clients and servers of MCP call it on a WebSocket; no revision of the specification defines the transport."""

_ONCE: Final = ("host", "origin", "authorization", "upgrade", "sec-websocket-key", "sec-websocket-version")
_KEY_BYTES: Final = 16


@final
@frozen
class Visit:
    """A request to open a WebSocket."""

    path: str
    query: bytes
    """As sent, without the question mark."""
    headers: Mapping[str, str]
    """Names in lower case; values of a repeated name joined with commas."""
    repeated: frozenset[str]
    """Names that stood more than once."""
    offered: Sequence[str]
    """Sub-protocols to choose from."""
    address: str | None = None
    """Remote address without port."""
    certificate: str | None = None
    """The client certificate that was verified, in PEM."""


def asks_for_websocket(request: h11.Request) -> bool:
    """Whether a request for something else than a response is one for a WebSocket (RFC 9110 section 7.8)."""
    headers, _ = read_headers(request.headers)
    return request.method == b"GET" and request.http_version >= b"1.1" and _names_websocket(headers)


def parse_head(head: bytes) -> h11.Request:
    """
    The request in the head of an HTTP/1.1 message that the edge guard let pass.

    Args:
        head: With the empty line at its end.

    Raises:
        HttpError: It is none.
    """
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(head)
    try:
        request = parser.next_event()
    except h11.RemoteProtocolError as error:
        raise HttpError(error.error_status_hint, "this is not an HTTP request") from error
    if not isinstance(request, h11.Request):
        raise HttpError(400, "this is not an HTTP request")
    return request


def read_upgrade(request: h11.Request, address: str | None, certificate: str | None = None) -> Visit:
    """
    What a request to open a WebSocket says.

    Args:
        request: As it came.
        address: Where it came from.
        certificate: The client's, if one was verified.

    Raises:
        HttpError: It is no such request (RFC 6455 section 4.2.1).
    """
    if request.method != b"GET":
        raise HttpError(405, "a WebSocket is opened with GET", {"allow": "GET"})
    headers, repeated = read_headers(request.headers)
    if request.http_version < b"1.1" or not _names_websocket(headers):
        raise HttpError(426, "only WebSockets are served here", {"upgrade": "websocket"})
    _check_upgrade(headers)
    path, _, query = request.target.partition(b"?")
    return Visit(
        path.decode("ascii"), query, headers, frozenset(repeated), _tokens(headers, "sec-websocket-protocol"),
        address, certificate,
    )  # fmt: skip


def check_visit(visit: Visit, path: str, policy: HostPolicy) -> None:
    """
    Check whether a client may open a WebSocket here.

    Args:
        visit: The request.
        path: Of the endpoint.
        policy: Who may address it, and from which pages.

    Raises:
        HttpError: It is wrong.
        GatewayError: It is not allowed.
    """
    for name in _ONCE:
        if name in visit.repeated:
            raise HttpError(400, f"header {name} stands more than once")
    host, origin = visit.headers.get("host"), visit.headers.get("origin")
    if host is None or split_host(host) is None:
        raise HttpError(400, "a request needs one Host header, host or host:port")
    if not policy.allows_host(host):
        raise Misdirected(f"host {host[:100]!r} is not served here; if it should be, list it in allowed_hosts")
    if origin is not None and not policy.allows_origin(origin):
        refusal = Forbidden(f"origin {origin[:100]!r} is not allowed; if it should be, list it in allowed_origins")
        refusal.event = "foreign_origin"
        raise refusal
    refuse_query_token(visit.query)
    if visit.path != path:
        raise HttpError(404, f"nothing here; the endpoint is {path}")


def choose_subprotocol(offered: Sequence[str]) -> str | None:
    """
    `mcp`, or none if the client offers none at all: simple clients do not.

    Raises:
        HttpError: It offers others only; it wants to speak something else.
    """
    if SUBPROTOCOL in offered:
        return SUBPROTOCOL
    if offered:
        raise HttpError(400, f"the sub-protocol here is {SUBPROTOCOL}; offer it, or none")
    return None


def _names_websocket(headers: Mapping[str, str]) -> bool:
    connection = [token.lower() for token in _tokens(headers, "connection")]
    return headers.get("upgrade", "").lower() == "websocket" and "upgrade" in connection


def _check_upgrade(headers: Mapping[str, str]) -> None:
    if headers.get("sec-websocket-version") != "13":
        raise HttpError(426, "the version of WebSocket here is 13", {"sec-websocket-version": "13"})
    if "content-length" in headers or "transfer-encoding" in headers:
        raise HttpError(400, "a request for an upgrade has no body")
    try:
        key = base64.b64decode(headers.get("sec-websocket-key", ""), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise HttpError(400, "Sec-WebSocket-Key must be 16 bytes in base64")


def _tokens(headers: Mapping[str, str], name: str) -> list[str]:
    return [token for each in headers.get(name, "").split(",") if (token := each.strip())]
