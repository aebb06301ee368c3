"""
What a component holds: the sizes of its tables, and what is taken of its limiters, locks and channels.

The walk starts at the component and follows attributes and containers. It does not enter what is not the component's
own: its context and config, stores, modules, classes, functions, and objects of the libraries underneath.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any, Final, final

import trio
from attrs import frozen

from ..model.store import Store

_FOREIGN: Final = frozenset({"trio", "outcome", "structlog", "logging", "re", "random", "pathlib", "asyncio", "types"})
"""Top-level packages whose objects are not entered."""
_OTHERS: Final = frozenset({"config", "context", "behind"})
"""Attributes of a component that are not its own."""
_SAMPLE: Final = 200
"""Members of one container that are entered."""
_MAX_DEPTH: Final = 12


@final
@frozen
class Census:
    """A count of what is reachable, by path."""

    sizes: Mapping[str, int]
    """Entries of each table; same-shaped tables inside another table are added up."""
    taken: Mapping[str, int]
    """What is taken of each limiter, semaphore, lock and channel."""

    def grown_since(self, before: Census) -> list[str]:
        """One line for each table that has more entries than before."""
        return [
            f"{path} has {size} entries, {before.sizes.get(path, 0)} before"
            for path, size in self.sizes.items()
            if size > before.sizes.get(path, 0)
        ]

    def taken_since(self, before: Census) -> list[str]:
        """One line for each thing of which more is taken than before."""
        return [
            f"{path}: {count} taken, {before.taken.get(path, 0)} before"
            for path, count in self.taken.items()
            if count > before.taken.get(path, 0)
        ]


def take_census(component: object) -> Census:
    """Count what a component holds now."""
    sizes: dict[str, int] = {}
    taken: dict[str, int] = {}
    seen: set[int] = {id(getattr(component, name, None)) for name in _OTHERS}
    queue: deque[tuple[str, Any, int]] = deque([("self", component, 0)])
    while queue:
        path, value, depth = queue.popleft()
        if id(value) in seen or depth > _MAX_DEPTH or (isinstance(value, Store) and value is not component):
            continue
        seen.add(id(value))
        count = _taken(value)
        if count is not None:
            taken[path] = taken.get(path, 0) + count
            continue
        size = _size(value)
        if size is not None:
            sizes[path] = sizes.get(path, 0) + size
        queue.extend((below, child, depth + 1) for below, child in _children(path, value))
    return Census(sizes, taken)


def _taken(value: object) -> int | None:
    """How much is taken of a thing that can be taken; None for anything else."""
    match value:
        case trio.CapacityLimiter():
            return value.borrowed_tokens + value.statistics().tasks_waiting
        case trio.Semaphore():
            # only a bounded semaphore tells how much there was
            return (value.max_value - value.value if value.max_value is not None else -value.value) + (
                value.statistics().tasks_waiting
            )
        case trio.Lock() | trio.StrictFIFOLock():
            return int(value.locked()) + value.statistics().tasks_waiting
        case trio.Condition():
            return value.statistics().tasks_waiting
        case trio.Event():
            return value.statistics().tasks_waiting
        case trio.MemorySendChannel() | trio.MemoryReceiveChannel():
            return value.statistics().current_buffer_used
    return None


def _size(value: object) -> int | None:
    """Entries of a container that can grow without a bound of its own; None for anything else."""
    if isinstance(value, deque):
        return None if value.maxlen is not None else len(value)
    return len(value) if isinstance(value, dict | list | set | bytearray) else None


def _children(path: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for member in list(value.values())[:_SAMPLE]:
            yield f"{path}[...]", member
    elif isinstance(value, deque) and value.maxlen is not None:
        return  # its bound is the bound of all that is in it
    elif isinstance(value, list | tuple | deque | AbstractSet):
        for member in list(value)[:_SAMPLE]:
            yield f"{path}[...]", member
    elif _is_own(value):
        for name, member in _attributes(value):
            yield f"{path}.{name}", member


def _is_own(value: object) -> bool:
    if isinstance(value, type | Enum):
        return False
    package = type(value).__module__.partition(".")[0]
    return package != "builtins" and package not in _FOREIGN


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    yield from getattr(value, "__dict__", {}).items()
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield name, getattr(value, name)
