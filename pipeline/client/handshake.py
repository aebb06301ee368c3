"""
Which era and revision a server speaks (2026-07-28, basic/versioning; protocol sections 1 and 3).

`server/discover` is asked first. A discover result, or the error that lists supported versions, is modern; an error
that only a modern server can say is an answer; anything else means `initialize`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, final

import trio
from attrs import frozen

from ..protocol.errors import UnsupportedVersion, UpstreamProtocolError, render_error
from ..protocol.mcp import LATEST, LATEST_LEGACY, LEGACY_VERSIONS, MODERN_VERSIONS, Era, ErrorCode, MetaKey, meta_of
from ..protocol.messages import EMPTY, ErrorReply, Json, Notification, Reply
from .errors import HttpStatus, McpError, error_of
from .wire import Wire

EraChoice = Literal["auto", "legacy", "modern"]
"""`auto` asks the server; the others do not."""

Exchange = Callable[[str, Mapping[str, Json]], Awaitable[Reply]]
"""Makes one request (method, params) and returns its reply as data."""

_REFUSALS: Final = (ErrorCode.HEADER_MISMATCH, ErrorCode.MISSING_CLIENT_CAPABILITY)
_NO_ENTRY: Final = frozenset({401, 403, 407, 429})
"""Statuses that say nothing about the era: `initialize` would get them too."""


@final
@frozen
class Server:
    """What a server says about itself."""

    info: Mapping[str, Json] = EMPTY
    """Name, version and more; empty when it does not say."""
    capabilities: Mapping[str, Json] = EMPTY
    instructions: str = ""
    """Advice to models."""


async def negotiate(
    wire: Wire, exchange: Exchange, declared: Mapping[str, Json], info: Mapping[str, Json], era: EraChoice
) -> Server:
    """
    Settle era and revision on the wire and return what the server said.

    Args:
        wire: Where era and version are set.
        exchange: Makes requests over it.
        declared: The client's capabilities.
        info: The client's name and version.
        era: What to try.

    Raises:
        McpError: The server refuses, or has no revision in common with us.
        UpstreamFault: The server could not be reached, went away, or does not speak MCP.
        HttpStatus: An HTTP answer that is not MCP.
    """
    if era != "legacy":
        server = await _discover(wire, exchange, insist=era == "modern")
        if server is not None:
            return server
    return await _initialize(wire, exchange, declared, info)


async def _discover(wire: Wire, exchange: Exchange, *, insist: bool) -> Server | None:
    wire.era, wire.version = Era.MODERN, LATEST
    reply: Reply | None = None
    with trio.move_on_after(wire.probe_timeout_s):
        try:
            reply = await exchange("server/discover", EMPTY)
        except HttpStatus as error:
            if insist or error.status in _NO_ENTRY or error.status >= 500:
                raise
            return None
        except UnsupportedVersion as error:  # a sink in this process found out that its upstream is of the other era
            if insist:
                raise
            reply = render_error(error)
    if reply is None:
        if insist:
            raise UpstreamProtocolError(f"no answer to server/discover within {wire.probe_timeout_s:g} s")
        return None
    if isinstance(reply, ErrorReply):
        _raise_unless_legacy(reply, insist=insist)
        return None
    supported = reply.value.get("supportedVersions", [LATEST])
    common = [version for version in MODERN_VERSIONS if version in supported]
    if not common:
        return None
    wire.version = common[-1]
    return Server(
        meta_of(reply.value).get(MetaKey.SERVER_INFO, EMPTY),
        reply.value.get("capabilities", EMPTY),
        reply.value.get("instructions", ""),
    )


def _raise_unless_legacy(reply: ErrorReply, *, insist: bool) -> None:
    """Raise if the error is a modern server's answer; return if it means that the other era should be tried."""
    if insist or reply.code in _REFUSALS or reply.http_status in _NO_ENTRY:
        raise error_of(reply)
    if reply.code == ErrorCode.UNSUPPORTED_PROTOCOL_VERSION:
        supported = reply.data.get("supported", []) if isinstance(reply.data, dict) else []
        if not any(version in LEGACY_VERSIONS for version in supported):
            raise error_of(reply)


async def _initialize(wire: Wire, exchange: Exchange, declared: Mapping[str, Json], info: Mapping[str, Json]) -> Server:
    wire.era, wire.version = Era.LEGACY, ""
    reply = await exchange(
        "initialize", {"protocolVersion": LATEST_LEGACY, "capabilities": declared, "clientInfo": info}
    )
    if isinstance(reply, ErrorReply):
        raise error_of(reply)
    version = reply.value.get("protocolVersion")
    if version not in LEGACY_VERSIONS:
        raise McpError(
            ErrorCode.UNSUPPORTED_PROTOCOL_VERSION,
            f"the server speaks {version!r}; this client speaks {', '.join((*LEGACY_VERSIONS, *MODERN_VERSIONS))}",
        )
    wire.version = version
    await wire.send(Notification("notifications/initialized"))
    return Server(
        reply.value.get("serverInfo", EMPTY),
        reply.value.get("capabilities", EMPTY),
        reply.value.get("instructions", ""),
    )
