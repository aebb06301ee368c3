"""What a client on a WebSocket may cost: options of the `websocket` source, and of `websocket` of the `http` source."""

from __future__ import annotations

from typing import final

from attrs import frozen

from sluiceway.pipeline.model.options import KIB, MIB, SECOND, Duration, Size, option


@frozen(slots=False)  # a source has these beside the options of its listener, and two bases with slots cannot be
class ClientConfig:
    """Bounds of one client, and how it is told from one that is gone."""

    max_message: Size = option(
        Size(4 * MIB), ge=1 * KIB, doc="Bytes a message may have; a longer one ends the connection with code 1009."
    )
    max_in_flight_per_connection: int = option(
        64, ge=1, doc="Requests of one connection under way at once; above this they are refused.", example=64
    )
    max_unread: Size = option(
        Size(16 * MIB), ge=1 * KIB,
        doc="Bytes that may wait for a client to read them; above this its exchanges wait, and one that then goes on "
        "to send what is refused is cut.",
    )  # fmt: skip
    ping_interval: Duration = option(
        Duration(20 * SECOND), gt=0, doc="Silence after which a client is asked with a ping whether it is there."
    )
    ping_timeout: Duration = option(
        Duration(20 * SECOND), gt=0,
        doc="Time after a ping in which a client must send something, or read what was sent to it; else it is cut.",
    )  # fmt: skip


@final
@frozen
class WebSocketConfig(ClientConfig):
    """WebSockets beside HTTP, on the same listener, and what a client may cost there."""

    path: str | None = option(
        None, doc="Path at which clients open a WebSocket. That of the endpoint when absent.", example="/ws"
    )
