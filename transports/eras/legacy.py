"""
The legacy era towards HTTP clients: what depends on the negotiated revision (2024-11-05 to 2025-11-25).

Sources: `basic/transports` and the changelog of each revision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sluiceway.pipeline.model.session import Client, Session
from sluiceway.pipeline.protocol.errors import UnsupportedVersion
from sluiceway.pipeline.protocol.mcp import ASSUMED_VERSION, BATCH_VERSION, LEGACY_VERSIONS, MODERN_VERSIONS, Era
from sluiceway.pipeline.protocol.messages import EMPTY, Json, Request, Result

SESSION_HEADER: Final = "mcp-session-id"
EVENT_HEADER: Final = "last-event-id"

_PRIMED_SINCE: Final = "2025-11-25"
_RESUMABLE_SINCE: Final = "2025-03-26"


def check_version(header: str | None) -> None:
    """
    Check the `MCP-Protocol-Version` of a request within a session; absent means 2025-03-26.

    Raises:
        UnsupportedVersion: With `supported` and `requested` (HTTP 400 since 2025-06-18).
    """
    version = ASSUMED_VERSION if header is None else header
    if version not in LEGACY_VERSIONS:
        raise UnsupportedVersion(
            f"protocol version {version[:40]!r} is not supported",
            data={"supported": [*LEGACY_VERSIONS, *MODERN_VERSIONS], "requested": version},
        )


def negotiated(reply: Result) -> str:
    """The version an `initialize` result settles on; what clients assume when it does not say."""
    version = reply.value.get("protocolVersion")
    return version if isinstance(version, str) else ASSUMED_VERSION


def has_batches(version: str | None) -> bool:
    """Whether a session of this revision may send JSON-RPC batches."""
    return version == BATCH_VERSION


def has_priming(version: str | None) -> bool:
    """Whether a stream opens with an event id and empty data. Earlier clients would try to parse the data."""
    return version is not None and version >= _PRIMED_SINCE


def has_event_ids(version: str | None) -> bool:
    """Whether events carry ids, so that a stream can be resumed. An unfinished handshake has nothing to resume."""
    return version is not None and version >= _RESUMABLE_SINCE


def client_of(
    session: Session, headers: Mapping[str, str], address: str | None, certificate: str | None = None
) -> Client:
    """The sender of a request within a session."""
    return Client(
        era=Era.LEGACY,
        version=session.version,
        capabilities=session.capabilities,
        info=session.info,
        session=session,
        transport="http",
        address=address,
        headers=headers,
        certificate=certificate,
    )


def introduction(request: Request) -> tuple[Mapping[str, Json], Mapping[str, Json]]:
    """Capabilities and `clientInfo` as declared in `initialize`; what is not an object counts as not declared."""
    capabilities, info = request.params.get("capabilities"), request.params.get("clientInfo")
    return capabilities if isinstance(capabilities, dict) else EMPTY, info if isinstance(info, dict) else EMPTY
