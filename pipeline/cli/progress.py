"""What is shown while something takes time: on a terminal only, on stderr, and gone when it is over."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Final, final

from ..model.component import State
from .output import console, printable

if TYPE_CHECKING:
    from rich.table import Table

_MARKS: Final = {
    State.STARTING: ("·", "yellow"),
    State.READY: ("✓", "green"),
    State.DEGRADED: ("!", "yellow"),
    State.FAILED: ("✗", "red"),
    State.STOPPING: ("·", "dim"),
    State.STOPPED: ("✗", "dim"),
}


@final
class StartDisplay:
    """One line a component with its state, redrawn in place until it is closed."""

    def __init__(self) -> None:
        from rich.live import Live

        self._rows: dict[str, tuple[State, str]] = {}
        self._live = Live(console=console(sys.stderr), transient=True, get_renderable=self._table, auto_refresh=False)

    def __enter__(self) -> StartDisplay:
        self._live.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the display away; later changes are not shown. Idempotent."""
        self._live.stop()

    def __call__(self, component_id: str, state: State, reason: str) -> None:
        """Show a change."""
        self._rows[component_id] = (state, reason)
        if self._live.is_started:
            self._live.refresh()

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        for component_id, (state, reason) in self._rows.items():
            mark, style = _MARKS[state]
            table.add_row(Text(mark, style), component_id, Text(state, "dim"), reason)
        return table


def start_display() -> AbstractContextManager[StartDisplay | None]:
    """The display, or None where stderr is not a terminal."""
    return StartDisplay() if sys.stderr.isatty() else nullcontext()


@final
class CallBar:
    """A bar that follows the progress notifications of one call."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (BarColumn(), TextColumn("{task.percentage:.0f}%"), TextColumn("{task.description}", markup=False))
        self._bar = Progress(*columns, console=console(sys.stderr), transient=True, auto_refresh=False)
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Callable[[float, float | None, str], Awaitable[None]]:
        self._bar.start()
        return self._report

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    async def _report(self, done: float, total: float | None, message: str) -> None:
        """Show one report. Not a checkpoint."""
        self._bar.update(self._task, completed=done, total=total, description=printable(message), refresh=True)
