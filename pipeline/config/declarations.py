"""
One view of a `Config` class for everybody who reads declarations: the parser, the schema, the docs, `explain`.

`shape_of` reduces a Python type to the few shapes that a configuration value can have. A type that is none of them is
a mistake of the component's author, and a `TypeError` that names it.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, final, get_args, get_origin

import attrs
from attrs import NOTHING, frozen

from ..model.options import (
    ConfigPath,
    Duration,
    OptionInfo,
    Rate,
    Ratio,
    Secret,
    Size,
    option_info,
    render_duration,
    render_size,
)
from .scalars import resolve_scalar


@final
@frozen
class Atom:
    """A value that is written as one scalar (a secret: as a mapping with one key)."""

    type: Any
    """`str`, `int`, `float`, `bool`, `None`, `Duration`, `Size`, `Ratio`, `Rate`, `Secret`, `ConfigPath` or `Any`."""
    words: str
    """What is expected, as messages and docs say it."""


@final
@frozen
class Choice:
    """One of a few words or numbers; an enum's members by their values."""

    values: tuple[Any, ...]
    make: Any = None
    """The enum class, if it is one."""


@final
@frozen
class ListOf:
    """A list."""

    item: Shape
    item_type: Any
    make: Any
    """`tuple`, `list` or `frozenset`."""


@final
@frozen
class MapOf:
    """A mapping with keys of the operator's choice."""

    value: Shape
    type: Any


@final
@frozen
class Group:
    """A mapping with declared keys: an attrs class of options."""

    cls: type


@final
@frozen
class OneOf:
    """A union."""

    shapes: tuple[Shape, ...]
    types: tuple[Any, ...]


Shape: TypeAlias = Atom | Choice | ListOf | MapOf | Group | OneOf

_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./%:@+-]*(?<!:)")
"""Text that needs no quotes, not even inside `[]` and `{}`."""
_LONGEST_PLAIN = 60
"""Longer text is quoted: a longer number would be refused."""
NULL = Atom(None, "nothing")
ATOMS: Mapping[Any, Atom] = {
    str: Atom(str, "text"),
    int: Atom(int, "a whole number"),
    float: Atom(float, "a number"),
    bool: Atom(bool, "true or false"),
    type(None): NULL,
    Duration: Atom(Duration, "a duration such as 5s"),
    Size: Atom(Size, "a size such as 64KiB"),
    Ratio: Atom(Ratio, "a share such as 20%"),
    Rate: Atom(Rate, "a rate such as 60/min"),
    Secret: Atom(Secret, "{from_env: NAME} or {from_file: path}"),
    ConfigPath: Atom(ConfigPath, "a path"),
    Path: Atom(ConfigPath, "a path"),
    Any: Atom(Any, "anything"),
    object: Atom(Any, "anything"),
}


def shape_of(declared: Any) -> Shape:
    """
    The shape of values of a declared type.

    Raises:
        TypeError: No configuration value can have this type.
    """
    return _shape_of(declared, repr(declared))  # two `Literal`s with their values in another order are equal


@cache
def _shape_of(declared: Any, _written: str) -> Shape:
    if declared in ATOMS:
        return ATOMS[declared]
    origin, args = get_origin(declared), get_args(declared)
    if origin is Literal:
        return Choice(args)
    if isinstance(declared, type) and issubclass(declared, Enum):
        return Choice(tuple(member.value for member in declared), declared)
    if isinstance(declared, type) and attrs.has(declared):
        return Group(declared)
    if origin in (typing.Union, types.UnionType):
        return OneOf(tuple(map(shape_of, args)), args)
    if origin is tuple and len(args) == 2 and args[1] is ...:
        return ListOf(shape_of(args[0]), args[0], tuple)
    if origin in (list, Sequence) or origin in (set, frozenset):
        return ListOf(shape_of(args[0]), args[0], {list: list, Sequence: tuple}.get(origin, frozenset))
    if origin in (dict, Mapping):
        return MapOf(shape_of(args[1]), declared)
    raise TypeError(f"{declared!r} is not a type that an option can have")


def words(shape: Shape) -> str:
    """What a shape expects, as messages and docs say it."""
    match shape:
        case Atom():
            return shape.words
        case Choice():
            return "one of " + ", ".join(map(str, shape.values))
        case ListOf():
            return f"a list ({words(shape.item)})"
        case MapOf():
            return f"a mapping (name: {words(shape.value)})"
        case Group():
            return "a mapping"
        case OneOf():
            return " or ".join(words(each) for each in shape.shapes if each != NULL)


@final
@frozen
class Option:
    """One key of a `Config`."""

    name: str
    type: Any
    info: OptionInfo
    default: Any
    """The value when the key is absent; `NOTHING` if it is required."""

    @property
    def shape(self) -> Shape:
        """The shape of its value."""
        return shape_of(self.type)

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is NOTHING


@cache
def options_of(cls: type) -> tuple[Option, ...]:
    """
    The options of a `Config` class, in the order declared.

    Raises:
        TypeError: It is not an attrs class of `option()`s with types a configuration can hold.
    """
    if not attrs.has(cls):
        raise TypeError(f"{cls.__qualname__} is not an attrs class")
    try:
        hints = typing.get_type_hints(cls)
    except NameError as error:
        raise TypeError(f"{cls.__qualname__}: {error}; annotate with names of the module") from error
    options = []
    for attribute in attrs.fields(cls):
        if not attribute.init:
            continue
        default = attribute.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # typed as a function, is a class
            default = default.factory()
        option = Option(attribute.name, hints[attribute.name], option_info(attribute), default)
        try:
            shape_of(option.type)
        except TypeError as error:
            raise TypeError(f"{cls.__qualname__}.{option.name}: {error}") from error
        options.append(option)
    return tuple(options)


def walk(
    shape: Shape, value: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[Option, Any, tuple[str | int, ...]]]:
    """Every option inside a typed value, however deep, with its value and its path from there."""
    match shape:
        case Group(cls) if isinstance(value, cls):
            for option in options_of(cls):
                below = (*path, option.name)
                yield option, getattr(value, option.name), below
                yield from walk(option.shape, getattr(value, option.name), below)
        case ListOf() if isinstance(value, tuple | list):
            for index, item in enumerate(value):
                yield from walk(shape.item, item, (*path, index))
        case MapOf() if isinstance(value, Mapping):
            for key, item in value.items():
                yield from walk(shape.value, item, (*path, key))
        case OneOf():
            for each in shape.shapes:
                yield from walk(each, value, path)
        case _:
            return


def to_data(value: Any, shape: Shape) -> Any:
    """A typed value as it would be written: units in the value, secrets by their origin. JSON data."""
    match shape:
        case OneOf():
            return to_data(value, next((each for each in shape.shapes if _fits(each, value)), ATOMS[Any]))
        case ListOf():
            return [to_data(item, shape.item) for item in (value if shape.make is not frozenset else sorted(value))]
        case MapOf():
            return {str(key): to_data(item, shape.value) for key, item in value.items()}
        case Group(cls):
            return {o.name: to_data(v, o.shape) for o in options_of(cls) if (v := getattr(value, o.name)) != o.default}
        case Choice():
            return value.value if isinstance(value, Enum) else value
        case Atom():
            return _atom_data(value, shape)


def _atom_data(value: Any, shape: Atom) -> Any:
    if shape.type is Duration:
        return render_duration(value)
    if shape.type is Size:
        return render_size(value)
    if shape.type is Ratio:
        return f"{value * 100:g}%"
    if isinstance(value, Secret):
        return {"from_env": value.from_env} if value.from_env is not None else {"from_file": str(value.from_file)}
    if isinstance(value, Rate | Path):
        return str(value)
    return value


_PYTHON: Mapping[Any, tuple[type, ...]] = {
    str: (str,), bool: (bool,), int: (int,), float: (float, int), None: (type(None),), Duration: (float, int),
    Size: (int,), Ratio: (float, int), Rate: (Rate,), Secret: (Secret,), ConfigPath: (Path,), Any: (object,),
}  # fmt: skip


def _fits(shape: Shape, value: Any) -> bool:
    """Whether a typed value is one of this shape."""
    match shape:
        case Atom():
            return isinstance(value, _PYTHON[shape.type]) and (not isinstance(value, bool) or shape.type in (bool, Any))
        case Choice():
            return value in shape.values or (shape.make is not None and isinstance(value, shape.make))
        case ListOf():
            return isinstance(value, tuple | list | frozenset)
        case MapOf():
            return isinstance(value, Mapping)
        case Group(cls):
            return isinstance(value, cls)
        case OneOf():
            return any(_fits(each, value) for each in shape.shapes)


def flow(data: Any) -> str:
    """JSON data as YAML on one line, as briefly as it reads back."""
    if isinstance(data, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {flow(value)}" for key, value in data.items()) + "}"
    if isinstance(data, list | tuple):
        return "[" + ", ".join(map(flow, data)) + "]"
    return _scalar(data)


def _scalar(data: Any) -> str:
    if isinstance(data, float) and data.is_integer():
        return f"{data:.0f}"
    if not isinstance(data, str):
        return "null" if data is None else str(data).lower()
    if _PLAIN.fullmatch(data) and len(data) <= _LONGEST_PLAIN and resolve_scalar(data) is data:
        return data
    return '"' + "".join(_escaped(character) for character in data) + '"'


def _escaped(character: str) -> str:
    if character in '\\"':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"
