"""
Options of two configurations side by side: which values differ, wherever in them.

Compared are values as they are in force, never how they were written: defaults that were written out, `1m` for `60s`,
one text for a list of one, and mappings in another order are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, final

import attrs
from attrs import field, frozen

from ...config.declarations import Group, ListOf, MapOf, OneOf, Option, Shape, options_of, to_data
from ...model.document import Spec
from ...model.options import Secret
from ...protocol.messages import Json
from ...telemetry.redaction import MASK, Redaction

Kind = Literal["changed", "added", "removed", "order"]
Renames = Mapping[str, Mapping[str, str]]
"""Kind of component (`sink`, `store`, ...) to what old ids are called now."""

_redaction: Final = Redaction()


@final
@frozen
class Leaf:
    """One value that differs."""

    kind: Kind
    """`added` and `removed` are about an item of a list or mapping, `order` about a list with the same items."""
    option: str
    """The option of the component that it is in."""
    path: str
    """Where in it: `overrides[0].rate`."""
    old: Json
    """As it would be written, without what is secret. An item of a mapping: its value."""
    new: Json
    key: str = ""
    """Of an item of a mapping."""

    @property
    def item(self) -> Json:
        """What was added or removed, or the key of it."""
        return self.key or (self.new if self.kind == "added" else self.old)


@final
@frozen
class Side:
    """One of the two configurations."""

    base: Path | None = None
    """Directory of its file: paths are shown and compared as seen from there, so that it may lie elsewhere now."""
    renames: Renames = field(factory=dict)
    """What ids are called in the other one."""

    def config(self, config: Any, *, brief: bool = False) -> dict[str, Json]:
        """The options of a config as plain data: all, so that they can be compared, or those not at their default."""
        found = {}
        for each in _options(config):
            value = getattr(config, each.name)
            if not brief or value != each.default:
                found[each.name] = self.plain(self.ids(each, value), each.shape, brief=brief)
        return _shown(found) if brief else found

    def plain(self, value: Any, shape: Shape, *, brief: bool = False) -> Any:
        """A value as plain data: in full, settled, to be compared; or in brief, as it would be written."""
        settled = value if brief else _settled(value, shape)
        match inner := _inner(shape, settled, settled):
            case Group():
                return self.config(settled, brief=brief)
            case MapOf():
                return {str(key): self.plain(item, inner.value, brief=brief) for key, item in settled.items()}
            case ListOf():
                items = [self.plain(each, inner.item, brief=brief) for each in settled]
                return items[0] if brief and len(items) == 1 and isinstance(shape, OneOf) else items
            case _:
                return self._atom(settled, shape)

    def ids(self, option: Option, value: Any) -> Any:
        """The value of an option with ids as they are called in the other configuration."""
        kind = option.info.refers
        if kind is None and (option.name == "store" or option.name.endswith("_store")):
            kind = "store"
        names = self.renames.get(kind or "", {})
        if not names:
            return value
        if isinstance(value, str):
            return names.get(value, value)
        if isinstance(value, Mapping):
            return {names.get(key, key): item for key, item in value.items()}
        return tuple(names.get(each, each) for each in value) if isinstance(value, tuple | list) else value

    def _atom(self, value: Any, shape: Shape) -> Json:
        if isinstance(value, Path):
            return self._path(value)
        if isinstance(value, Secret) and value.from_file is not None:
            return {"from_file": self._path(value.from_file)}
        return to_data(value, shape)

    def _path(self, path: Path) -> str:
        if self.base is not None and path.is_relative_to(self.base):
            return f"./{path.relative_to(self.base)}"
        return str(path)


@final
@frozen
class Sides:
    """Compares the options of two components of one kind."""

    old: Side = Side()
    new: Side = Side()

    def same(self, old: Any, new: Any) -> bool:
        """Whether two configs say the same."""
        return self.old.config(old) == self.new.config(new)

    def renamed(self, kind: str, old: str) -> str:
        """What an id is called now."""
        return self.old.renames.get(kind, {}).get(old, old)

    def leaves(self, old: Any, new: Any) -> Iterator[Leaf]:
        """Every difference between two configs."""
        before = {each.name: each for each in _options(old)}
        for option in _options(new):
            known = before.pop(option.name, None)
            value = getattr(new, option.name)
            if known is not None:
                was = self.old.ids(option, getattr(old, option.name))
                yield from self._between(option.name, option.name, option.shape, was, value)
            elif value != option.default:
                yield Leaf("changed", option.name, option.name, None, self._now(value, option.shape))
        for option in before.values():
            value = getattr(old, option.name)
            if value != option.default:
                yield Leaf("changed", option.name, option.name, self._was(value, option.shape), None)

    def _between(self, option: str, path: str, shape: Shape, old: Any, new: Any) -> Iterator[Leaf]:
        old, new = _settled(old, shape), _settled(new, shape)
        if self.old.plain(old, shape) == self.new.plain(new, shape):
            return
        match inner := _inner(shape, old, new):
            case Group(cls):
                for each in options_of(cls):
                    values = getattr(old, each.name), getattr(new, each.name)
                    yield from self._between(option, f"{path}.{each.name}", each.shape, *values)
            case MapOf():
                yield from self._maps(option, path, inner, old, new)
            case ListOf() if not (isinstance(shape, OneOf) and len(old) == len(new) == 1):
                yield from self._lists(option, path, inner, list(old), list(new))
            case _:
                yield Leaf("changed", option, path, self._was(old, shape), self._now(new, shape))

    def _maps(self, option: str, path: str, shape: MapOf, old: Any, new: Any) -> Iterator[Leaf]:
        for key in dict.fromkeys((*old, *new)):
            where, inner = f"{path}.{key}", shape.value
            if key not in new:
                yield Leaf("removed", option, where, self._was(old[key], inner, key), None, str(key))
            elif key not in old:
                yield Leaf("added", option, where, None, self._now(new[key], inner, key), str(key))
            elif not _redaction.hides(str(key)):
                yield from self._between(option, where, inner, old[key], new[key])
            elif old[key] != new[key]:
                yield Leaf("changed", option, where, self._was(old[key], inner, key), self._now(new[key], inner, key))

    def _lists(self, option: str, path: str, shape: ListOf, old: list[Any], new: list[Any]) -> Iterator[Leaf]:
        was = [self.old.plain(each, shape.item) for each in old]
        now = [self.new.plain(each, shape.item) for each in new]
        gone, come = _surplus(was, now), _surplus(now, was)
        if not gone and not come:
            yield Leaf("order", option, path, self._was(old, shape), self._now(new, shape))
        elif len(gone) == len(come) and isinstance(shape.item, Group):
            for before, after in zip(gone, come, strict=True):
                yield from self._between(option, f"{path}[{after}]", shape.item, old[before], new[after])
        else:
            yield from (Leaf("removed", option, path, self._was(old[at], shape.item), None) for at in gone)
            yield from (Leaf("added", option, path, None, self._now(new[at], shape.item)) for at in come)

    def _was(self, value: Any, shape: Shape, key: object = "") -> Json:
        return _hidden(self.old.plain(value, shape, brief=True), key)

    def _now(self, value: Any, shape: Shape, key: object = "") -> Json:
        return _hidden(self.new.plain(value, shape, brief=True), key)


def in_force(spec: Spec) -> Any:
    """The options of a component with what follows from others written out."""
    return spec.cls.in_force(spec.config)


def _options(config: Any) -> tuple[Option, ...]:
    cls: type = type(config)
    return options_of(cls)


def _settled(value: Any, shape: Shape) -> Any:
    """One text for a list of one, a list for a mapping without settings: in the longer form, where there is one."""
    if not isinstance(shape, OneOf):
        return sorted(value) if isinstance(value, frozenset) else value
    maps = [each for each in shape.shapes if isinstance(each, MapOf)]
    lists = [each for each in shape.shapes if isinstance(each, ListOf)]
    if maps and lists and isinstance(value, tuple | list) and isinstance(maps[0].value, Group):
        return {item: maps[0].value.cls() for item in value}
    if lists and value is not None and not isinstance(value, tuple | list | frozenset | Mapping):
        return (value,)
    return value


def _inner(shape: Shape, old: Any, new: Any) -> Shape | None:
    """The shape that both values have, if it has parts that can be compared one by one."""
    for each in shape.shapes if isinstance(shape, OneOf) else (shape,):
        match each:
            case Group(cls) if _is_one(old, cls) and _is_one(new, cls):
                return each
            case MapOf() if isinstance(old, Mapping) and isinstance(new, Mapping):
                return each
            case ListOf() if isinstance(old, Sequence) and isinstance(new, Sequence) and not isinstance(old, str):
                return each
    return None


def _is_one(value: Any, cls: type) -> bool:
    """Whether a value is of a class, or of the one that a plugin had in its place when it was imported before."""
    return isinstance(value, cls) or (attrs.has(type(value)) and type(value).__qualname__ == cls.__qualname__)


def _surplus(these: list[Any], those: list[Any]) -> list[int]:
    """Indices of the items that the other list does not have, or not as often."""
    left = list(those)
    found = []
    for index, item in enumerate(these):
        if item in left:
            left.remove(item)
        else:
            found.append(index)
    return found


def _hidden(data: Json, key: object) -> Json:
    return MASK if isinstance(data, str) and _redaction.hides(str(key)) else _shown(data)


def _shown(data: Any) -> Any:
    """Plain data without passwords in uris, and without values whose keys look secret."""
    if isinstance(data, str):
        return _redaction.uri(data)
    if isinstance(data, list):
        return [_shown(each) for each in data]
    if isinstance(data, dict):
        return {k: MASK if isinstance(v, str) and _redaction.hides(k) else _shown(v) for k, v in data.items()}
    return data
