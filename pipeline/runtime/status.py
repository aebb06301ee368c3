"""What state every component is in, and whether the gateway is ready: the worst of what is required."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

import trio
from attrs import define, field

from ..model.component import ComponentKind, State

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
    """The state of one component."""

    id: str
    kind: ComponentKind
    required: bool
    state: State = State.STARTING
    reason: str = ""
    since: float = 0.0
    """Trio clock seconds of the latest change."""


@final
@define(eq=False)
class Board:
    """The states of all components of an engine."""

    watcher: Watcher | None = None
    _rows: dict[str, Row] = field(factory=dict)

    def add(self, component_id: str, kind: ComponentKind, *, required: bool = True) -> None:
        """List a component as starting; one of the same id from an earlier generation gives way."""
        self._rows[component_id] = Row(component_id, kind, required)
        self._tell(self._rows[component_id])

    def remove(self, component_id: str) -> None:
        """Take a component off the list."""
        self._rows.pop(component_id, None)

    def set(self, component_id: str, state: State, reason: str = "") -> None:
        """
        Record a change. The same state with another reason is a change.

        Raises:
            ValueError: The component cannot come into this state from the one it is in.
        """
        row = self._rows.get(component_id)
        if row is None or (row.state is state and row.reason == reason):
            return
        if state is not row.state and state not in _NEXT[row.state]:
            raise ValueError(f"{component_id} cannot become {state} while it is {row.state}")
        row.state, row.reason, row.since = state, reason, trio.current_time()
        self._tell(row)

    def _tell(self, row: Row) -> None:
        if self.watcher is not None:
            self.watcher(row.id, row.state, row.reason)

    @property
    def ready(self) -> bool:
        """Every required component is ready or degraded."""
        return all(row.state in (State.READY, State.DEGRADED) for row in self._rows.values() if row.required)

    def rows(self) -> list[dict[str, object]]:
        """Every component's id, kind, state and reason, in start order."""
        return [
            {"id": r.id, "kind": str(r.kind), "state": str(r.state), "reason": r.reason, "required": r.required}
            for r in self._rows.values()
        ]
