"""What state every component is in, and whether the gateway is ready: the worst of what is required."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

import trio
from attrs import define, field

from ..model.component import ComponentKind, State
from ..protocol.messages import Json

_NEXT: Final[Mapping[State, frozenset[State]]] = {
    State.STARTING: frozenset({State.READY, State.FAILED, State.STOPPING, State.STOPPED, State.DEGRADED}),
    State.READY: frozenset({State.DEGRADED, State.FAILED, State.STOPPING}),
    State.DEGRADED: frozenset({State.READY, State.FAILED, State.STOPPING, State.STARTING}),
    State.FAILED: frozenset({State.STARTING, State.STOPPING, State.STOPPED}),
    State.STOPPING: frozenset({State.STOPPED, State.FAILED}),
    State.STOPPED: frozenset({State.STARTING}),
}

Watcher = Callable[[str, State, str], None]
"""Told (id, state, reason) of every change; must not block."""


@final
@define(eq=False)
class Row:
    """The state of one hosted component."""

    id: str
    kind: ComponentKind
    required: bool = True
    state: State = State.STARTING
    reason: str = ""
    since: float = 0.0
    """Trio clock seconds of the latest change."""
    watcher: Watcher | None = field(default=None, repr=False)
    details: Callable[[], Mapping[str, Json]] | None = field(default=None, repr=False)
    """The component's own figures for `status`; asked only while it is open."""

    def become(self, state: State, reason: str = "") -> None:
        """
        Record a change. The same state with another reason is a change.

        Raises:
            ValueError: The component cannot come into this state from the one it is in.
        """
        if self.state is state and self.reason == reason:
            return
        if state is not self.state and state not in _NEXT[self.state]:
            raise ValueError(f"{self.id} cannot become {state} while it is {self.state}")
        self.state, self.reason, self.since = state, reason, trio.current_time()
        self.tell()

    def tell(self) -> None:
        """Tell the watcher how things stand."""
        if self.watcher is not None:
            self.watcher(self.id, self.state, self.reason)


@final
@define(eq=False)
class Board:
    """The rows of everything an engine hosts, in start order."""

    watcher: Watcher | None = None
    _rows: list[Row] = field(factory=list)

    def put(self, row: Row) -> None:
        """List a row; its watcher is ours from now on."""
        row.watcher = self.watcher
        self._rows.append(row)
        row.tell()

    def remove(self, row: Row) -> None:
        """Take a row off the list."""
        self._rows.remove(row)

    @property
    def ready(self) -> bool:
        """Every required component is ready or degraded."""
        return all(row.state in (State.READY, State.DEGRADED) for row in self._rows if row.required)

    def rows(self) -> list[dict[str, object]]:
        """Every component's id, kind, state, reason, whether it is required, and the details it has to tell."""
        return [_shown(row) for row in self._rows]


def _shown(row: Row) -> dict[str, object]:
    shown: dict[str, object] = {
        "id": row.id,
        "kind": str(row.kind),
        "state": str(row.state),
        "reason": row.reason,
        "required": row.required,
    }
    if row.details is not None and row.state in (State.READY, State.DEGRADED) and (details := row.details()):
        shown["details"] = dict(details)
    return shown
