"""What a server offers of one kind: in order, without duplicates, and with somebody told of every change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar, final

_T = TypeVar("_T")


@final
class Catalog(Mapping[str, _T], Generic[_T]):
    """
    Items by key, in order of registration.

    Args:
        noun: What the items are, for error texts.
        changed: Called after every change.
    """

    def __init__(self, noun: str, changed: Callable[[], None]) -> None:
        self._noun = noun
        self._changed = changed
        self._items: dict[str, _T] = {}

    def __getitem__(self, key: str) -> _T:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, key: str, item: _T, *, replace: bool) -> None:
        """
        Add an item at the end; a replaced one keeps its place.

        Raises:
            ValueError: The key is taken and `replace` is not set.
        """
        if key in self._items and not replace:
            raise ValueError(f"{self._noun} {key!r} is registered already; pass replace=True to replace it")
        self._items[key] = item
        self._changed()

    def remove(self, key: str) -> None:
        """
        Take an item out.

        Raises:
            KeyError: There is none.
        """
        del self._items[key]
        self._changed()
