"""What the workers of a gateway serve at a time."""

from __future__ import annotations

from typing import final

from attrs import frozen

from ...model.document import Document
from .messages import Snapshot
from .sockets import Sockets


@final
@frozen(eq=False)
class Plan:
    """A configuration, as the supervisor read it, and the sockets that are bound for it."""

    file: str
    """The main file."""
    overlays: tuple[str, ...]
    document: Document
    snapshot: Snapshot
    sockets: Sockets
