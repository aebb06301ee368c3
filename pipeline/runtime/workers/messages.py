"""
What supervisor and workers say to each other, over a socket pair that nobody else has. Values only.

Every question has a number; its answer has the same one. The end of the connection is a message, too: a worker whose
supervisor is gone drains and ends.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from ...model.figures import Distribution, Figure


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a configuration as the supervisor read them: every worker serves the same, whenever it starts."""

    contents: dict[str, bytes]
    """By absolute path, in the order in which they were read."""
    matches: dict[str, list[str]]
    """What each include glob matched."""


class Begin(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The first word to a worker: what to serve, and as whom."""

    file: str
    overlays: list[str]
    snapshot: Snapshot
    slot: int
    mark: str
    secret: bytes
    """Known to all workers of this run: what one of them seals, another can open."""
    board: int
    """Descriptor of the shared counts, inherited."""
    slots: int
    sockets: dict[str, list[int]]
    """Inherited descriptors of the listening sockets of each source, by component id."""
    announced: bool
    """Whether all workers have been ready once."""


class Announce(msgspec.Struct, frozen=True, tag=True):
    """All workers are ready, so the gateway is."""


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Stop accepting, finish what is under way, end."""


class Stop(msgspec.Struct, frozen=True, tag=True):
    """End at once."""


class Prepare(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Load this configuration and open it beside the one that is served. `Prepared` answers."""

    number: int
    snapshot: Snapshot


class Verdict(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What comes of a configuration that was prepared: every worker serves it, or none. `Switched` answers."""

    number: int
    prepared: int
    """The number of the `Prepare`."""
    serve: bool


class Ask(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A request to the admin endpoints of one worker. `Answered` answers."""

    number: int
    method: str
    path: str
    query: str = ""
    body: bytes = b""


class Count(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Everything that is counted. `Counted` answers."""

    number: int


class Ping(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Whether its event loop turns. `Pong` answers."""

    number: int


class Take(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """With a descriptor, for this source: a connection from another worker, or one of a client that it had."""

    source: str
    client: bool = False


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Everything is open, and clients are served."""


class Prepared(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """It is open, or why it cannot be."""

    number: int
    problem: str = ""


class Switched(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The prepared configuration is served; or it is closed again."""

    number: int
    notes: list[str] = []
    """What it says that only a restart can bring about."""


class Answered(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The answer of an admin endpoint."""

    number: int
    status: int
    content_type: str
    body: bytes


class Counted(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What a worker counts at one moment."""

    number: int
    figures: list[Figure]
    distributions: list[Distribution]


class Pong(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """It does."""

    number: int


class Hand(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """With a descriptor: what to give to a source in the worker of this mark (`Take`). Closed if there is none."""

    mark: str
    source: str
    client: bool = False


Order: TypeAlias = Begin | Announce | Drain | Stop | Prepare | Verdict | Ask | Count | Ping | Take
"""What a supervisor says."""
Report: TypeAlias = Ready | Prepared | Switched | Answered | Counted | Pong | Hand
"""What a worker says."""
Reply: TypeAlias = Prepared | Switched | Answered | Counted | Pong
"""Those reports that answer an order."""
