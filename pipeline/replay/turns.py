"""
Who runs next, in one Trio run: the one thing that Trio leaves to chance, decided by somebody.

Trio takes everything that can run, and shuffles or reverses it, so that nobody comes to depend on an order. A replay
does depend on one: what happened in the same instant has an order on the tape. Trio has no public way to choose, but
one that its own test plugin uses: with `_ALLOW_DETERMINISTIC_SCHEDULING` it hands each batch to the `shuffle` of its
random generator. That of this module keeps one task and puts the others back. Trio is pinned to a minor version, and a
test says if this way is gone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from threading import Lock
from typing import Any, Final, final

import trio

Choose = Callable[[Sequence[trio.lowlevel.Task]], trio.lowlevel.Task | None]
"""Told all tasks that can run, oldest first, names the one that does; None to have all of them wait for `resume`."""

_SWITCH: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"
_trio: Final[Any] = import_module("trio._core._run")


@final
class Turns:
    """
    The order of one Trio run, while it is in force.

    Args:
        choose: Decides.
    """

    def __init__(self, choose: Choose) -> None:
        self.runner = _trio.GLOBAL_RUN_CONTEXT.runner
        """Trio's own, of the run in which this was made."""
        self._choose = choose
        self._held: list[trio.lowlevel.Task] = []

    def resume(self) -> None:
        """Ask again about tasks that were made to wait."""
        self.runner.runq.extend(self._held)
        self._held.clear()

    def arrange(self, batch: list[trio.lowlevel.Task]) -> None:
        """Leave in a batch who runs now."""
        if not batch:
            return
        chosen = self._choose(batch)
        if chosen is None:
            self._held += batch
            batch.clear()
        elif len(batch) > 1:
            self.runner.runq.extend(task for task in batch if task is not chosen)
            batch[:] = [chosen]


@final
class _Shuffler(random.Random):
    """Trio's random generator, but for runs whose turns somebody decides."""

    def shuffle(self, x: Any) -> None:
        """Called by Trio with what can run, in the order in which the tasks were made."""
        turns = _in_force.get(_trio.GLOBAL_RUN_CONTEXT.runner)
        if turns is None:
            super().shuffle(x)
        else:
            turns.arrange(x)


_in_force: Final[dict[Any, Turns]] = {}
_lock: Final = Lock()
"""Runs of several threads can begin and end at the same time."""
_trios_own: Final[list[Any]] = []
"""What was in place before the first: generator and switch."""


@contextmanager
def taking_turns(choose: Choose) -> Iterator[Turns]:
    """Decide who runs, in the current Trio run, until the block is left. Not to be nested."""
    turns = Turns(choose)
    with _lock:
        if not _in_force:
            _trios_own[:] = _trio._r, getattr(_trio, _SWITCH)
            _trio._r = _Shuffler(_trio._r.random())
            setattr(_trio, _SWITCH, True)
        _in_force[turns.runner] = turns
    try:
        yield turns
    finally:
        with _lock:
            del _in_force[turns.runner]
            if not _in_force:
                _trio._r = _trios_own[0]
                setattr(_trio, _SWITCH, _trios_own[1])
        turns.resume()
