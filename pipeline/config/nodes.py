"""
A configuration file as a tree that remembers where everything stands.

YAML, TOML and plain Python data all become this tree. Aliases and merge keys share nodes, so a node's place is always
where it was written. Nodes are never changed; a changed tree is a new tree.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, time
from typing import Any, Final, TypeAlias, final

from attrs import evolve, field, frozen

from .problems import SourceText, Span

MAX_DEPTH: Final = 64
"""Deepest nesting of lists and mappings."""

Path: TypeAlias = "tuple[str | int, ...]"
"""Keys and indices from the root of a tree."""


class Broken:
    """Stands for a value whose problem has been reported; whatever needs it stays silent."""

    def __repr__(self) -> str:
        return "BROKEN"


BROKEN: Final = Broken()


@final
class Text(str):
    """A text value on its way to its type. It knows its file, for relative paths, and whether it was interpolated."""

    source: SourceText
    interpolated: bool
    """Came from `${...}`: takes the type of the field it is for."""
    __slots__ = ("interpolated", "source")

    @classmethod
    def of(cls, value: str, source: SourceText, *, interpolated: bool = False) -> Text:
        """Text of a file."""
        text = cls(value)
        text.source = source
        text.interpolated = interpolated
        return text


Value: TypeAlias = "str | int | float | bool | Broken | None"


@final
@frozen(eq=False)
class Scalar:
    """One value. Numbers, truth values and null are already resolved; everything else is `str`."""

    value: Value
    span: Span
    interpolated: bool = False

    @property
    def plain(self) -> Any:
        """The value as the converter takes it."""
        if isinstance(self.value, str):
            return Text.of(self.value, self.span.source, interpolated=self.interpolated)
        return self.value


@final
@frozen(eq=False)
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    span: Span

    @property
    def plain(self) -> Any:
        """The items as the converter takes them."""
        return [item.plain for item in self.items]


@final
@frozen(eq=False)
class Entry:
    """One key of a mapping."""

    key: Span
    value: Node


@final
@frozen(eq=False)
class Mapping:
    """Keys and values, in the order written. Keys are always text."""

    entries: dict[str, Entry] = field()
    span: Span

    @property
    def plain(self) -> Any:
        """Keys and values as the converter takes them. A key is read as the type its field wants."""
        return {
            Text.of(key, entry.key.source, interpolated=True): entry.value.plain for key, entry in self.entries.items()
        }

    def get(self, key: str) -> Node | None:
        """The value of a key, or None."""
        entry = self.entries.get(key)
        return None if entry is None else entry.value

    def only(self, keys: Iterable[str]) -> Mapping:
        """The same mapping with no other keys than these."""
        wanted = frozenset(keys)
        return evolve(self, entries={k: e for k, e in self.entries.items() if k in wanted})

    def without(self, keys: Iterable[str]) -> Mapping:
        """The same mapping without these keys."""
        unwanted = frozenset(keys)
        return evolve(self, entries={k: e for k, e in self.entries.items() if k not in unwanted})


Node: TypeAlias = Scalar | Sequence | Mapping


def place_of(node: Node, path: Path) -> Span:
    """Where the value at a path stands; the nearest thing around it if there is none."""
    for step in path:
        below: Node | None = None
        if isinstance(node, Mapping):
            below = node.get(str(step))
        elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
            below = node.items[step]
        if below is None:
            break
        node = below
    return node.span


def key_of(node: Node, path: Path) -> Span:
    """Where the key at a path stands; its value's place where there is no key."""
    *above, last = path
    parent = node_at(node, tuple(above))
    if isinstance(parent, Mapping) and str(last) in parent.entries:
        return parent.entries[str(last)].key
    return place_of(node, path)


def node_at(node: Node, path: Path) -> Node | None:
    """The node at a path, or None."""
    for step in path:
        if isinstance(node, Mapping) and (below := node.get(str(step))) is not None:
            node = below
        elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
        else:
            return None
    return node


def render_path(path: Path) -> str:
    """`pipelines.main.chain[2]`"""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def tree_of(
    data: Any, source: SourceText, places: dict[Path, tuple[Span, Span]] | None = None, *, path: Path = ()
) -> Node:
    """
    A tree of plain data: dicts, lists, tuples and scalars; dates and times become text.

    Args:
        data: What to convert.
        source: Where it came from.
        places: Places of keys and their values, by path; without one, a value has the place of what is around it,
            or its path for a place if nothing around it has one.
        path: Where `data` stands in the whole.

    Raises:
        ValueError: Nested deeper than `MAX_DEPTH`.
        TypeError: Something that no configuration file can hold.
    """
    places = {} if places is None else places
    if len(path) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    around = next((places[path[:n]][1] for n in range(len(path), 0, -1) if path[:n] in places), None)
    around = Span(source, path=render_path(path)) if around is None else around
    if isinstance(data, dict):
        entries = {}
        for name, item in data.items():
            below = (*path, str(name))
            inside = around if around.line else Span(source, path=render_path(below))
            key = places[below][0] if below in places else inside
            entries[str(name)] = Entry(key, tree_of(item, source, places, path=below))
        return Mapping(entries, around)
    if isinstance(data, list | tuple):
        items = [tree_of(item, source, places, path=(*path, index)) for index, item in enumerate(data)]
        return Sequence(tuple(items), around)
    if isinstance(data, date | time):
        return Scalar(data.isoformat(), around)
    if data is None or isinstance(data, str | int | float):
        return Scalar(data, around)
    raise TypeError(f"{render_path(path)}: {type(data).__name__} cannot be in a configuration")
