"""
The strict cattrs converter: how each shape of value is read.

cattrs as it comes is lenient: it calls the type, so `"5"` is an int, `"false"` is true and a string is a list. Every
hook here is strict instead: a value has the type its field declares or it is a problem. Only text that came from
`${...}` takes the type of its field.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from cattrs import Converter
from cattrs.cols import list_structure_factory, mapping_structure_factory
from cattrs.errors import BaseValidationError
from cattrs.gen import make_dict_structure_fn, override

from ..model.options import (
    ConfigPath,
    Duration,
    Rate,
    Ratio,
    Secret,
    Size,
    parse_duration,
    parse_rate,
    parse_ratio,
    parse_size,
)
from ..model.when import When
from .declarations import (
    ATOMS,
    NULL,
    Atom,
    Choice,
    Group,
    ListOf,
    MapOf,
    OneOf,
    Option,
    Shape,
    flow,
    options_of,
    shape_of,
    to_data,
    words,
)
from .nodes import BROKEN, Text
from .problems import unknown
from .scalars import resolve_scalar

Hook: TypeAlias = Callable[[Any, Any], Any]


class Mismatch(ValueError):
    """A value does not fit its field; the text says what is expected."""

    def __init__(self, message: str, *, rule: str = "config/type", fix: str = "", hide: bool = False) -> None:
        super().__init__(message)
        self.rule = rule
        self.fix = fix
        self.hide = hide


class Silent(ValueError):
    """The value is `BROKEN`: its problem was reported before."""


def shown(value: Any) -> str:
    """A value in a message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"text {str(value)[:80]!r}"
    if isinstance(value, int | float):
        return f"number {value}"
    return "a list" if isinstance(value, list) else "a mapping"


def _expected(what: str, value: Any) -> NoReturn:
    if value is BROKEN:
        raise Silent
    fix = ""
    if what == "text" and isinstance(value, int | float):
        fix = "quote it"
    raise Mismatch(f"expected {what}, got {shown(value)}", fix=fix)


def _resolved(value: Any) -> Any:
    """A value as its field reads it: text from `${...}` means what it would mean had it been written there."""
    if isinstance(value, Text) and value.interpolated:
        try:
            return resolve_scalar(str(value))
        except ValueError as error:
            raise Mismatch(str(error)) from error
    return value


def _text(value: Any, words: str = "text") -> str:
    if not isinstance(value, str):
        _expected(words, value)
    return str(value)


def _integer(value: Any) -> int:
    number = _resolved(value)
    if not isinstance(number, int) or isinstance(number, bool):
        _expected("a whole number", value)
    return number


def _number(value: Any) -> float:
    number = _resolved(value)
    if not isinstance(number, int | float) or isinstance(number, bool):
        _expected("a number", value)
    if not math.isfinite(number):
        raise Mismatch("expected a finite number")
    return float(number)


def _boolean(value: Any) -> bool:
    truth = _resolved(value)
    if not isinstance(truth, bool):
        _expected("true or false", value)
    return truth


def _null(value: Any) -> None:
    if _resolved(value) is not None:
        _expected("nothing", value)


def _measured(parse: Callable[[str], Any], words: str) -> Callable[[Any], Any]:
    """A hook for a number with its unit. A bare number is an error that proposes one."""

    def hook(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            _expected(words, value)
        try:
            return parse(str(value))
        except ValueError as error:
            raise Mismatch(str(error), rule="config/unit") from error

    return hook


def _ratio(value: Any) -> Ratio:
    number = _resolved(value)
    if isinstance(number, int | float) and not isinstance(number, bool):
        if not 0 <= number <= 1:
            raise Mismatch(
                f"a share is from 0 to 1, or in percent: write {number:g}% if you mean that", rule="config/unit"
            )
        return Ratio(float(number))
    return Ratio(_measured(parse_ratio, "a share such as 20%")(value))


def _secret(value: Any) -> Secret:
    """The value itself is refused, and not shown: what is written in a file is no secret any more."""
    if value is BROKEN:
        raise Silent
    if not isinstance(value, dict):
        raise Mismatch("a secret is never written in the file", rule="config/secret", hide=True,
                       fix="write {from_env: NAME} or {from_file: path}")  # fmt: skip
    if len(value) != 1 or not value.keys() <= {"from_env", "from_file"}:
        raise Mismatch("a secret has exactly one key, from_env or from_file", rule="config/secret", hide=True)
    if "from_env" in value:
        return Secret(from_env=_text(value["from_env"], "the name of an environment variable"))
    return Secret(from_file=_path(value["from_file"]))


def _path(value: Any) -> ConfigPath:
    if not isinstance(value, Text) or not value:
        _expected("a path", value)
    return ConfigPath(value.source.base / str(value))


def _anything(value: Any) -> Any:
    if value is BROKEN:
        raise Silent
    if isinstance(value, dict):
        return {str(key): _anything(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_anything(item) for item in value]
    return str(value) if isinstance(value, Text) else value


_ATOM_HOOKS: dict[Any, Callable[[Any], Any]] = {
    str: _text, int: _integer, float: _number, bool: _boolean, None: _null, Ratio: _ratio, Secret: _secret,
    ConfigPath: _path, Any: _anything, Duration: _measured(parse_duration, "a duration such as 5s"),
    Size: _measured(parse_size, "a size such as 64KiB"), Rate: _measured(parse_rate, "a rate such as 60/min"),
}  # fmt: skip


def _choice_hook(shape: Choice) -> Hook:
    def hook(value: Any, _: Any) -> Any:
        candidates = [value, _resolved(value)]
        for known in shape.values:
            if any(type(known) is type(c) or isinstance(c, Text) for c in candidates) and known in candidates:
                return known if shape.make is None else shape.make(known)
        if not isinstance(value, str | int | float):
            _expected(words(shape), value)
        raise Mismatch(unknown("value", str(value), map(str, shape.values)), rule="config/value")

    return hook


def _list_hook(shape: ListOf, converter: Converter) -> Hook:
    structure = list_structure_factory(list[shape.item_type], converter)  # type: ignore[name-defined]  # made at run time

    def hook(value: Any, _: Any) -> Any:
        if isinstance(value, list):
            return shape.make(structure(value, list))
        if shape.item == ATOMS[Secret]:
            _secret(value if value is BROKEN else None)
        if isinstance(value, str | int | float):
            raise Mismatch(f"expected {words(shape)}, got {shown(value)}", fix=f"write [{value}]")
        return _expected(words(shape), value)

    return hook


def _map_hook(shape: MapOf, converter: Converter) -> Hook:
    structure = mapping_structure_factory(shape.type, converter)
    return lambda value, _: structure(value if isinstance(value, dict) else _expected(words(shape), value), shape.type)


def _union_hook(shape: OneOf, converter: Converter) -> Hook:
    """Of the members that are written like this value, the first that takes it."""

    def hook(value: Any, _: Any) -> Any:
        if value is BROKEN:
            raise Silent
        candidates = [t for s, t in zip(shape.shapes, shape.types, strict=True) if _written_like(s, value)]
        if not candidates:
            return _secret(value) if Secret in shape.types else _expected(words(shape), value)
        for candidate in candidates[:-1]:
            try:
                return converter.structure(value, candidate)
            except (Mismatch, BaseValidationError):
                continue
        return converter.structure(value, candidates[-1])

    return hook


def _written_like(shape: Shape, value: Any) -> bool:
    """Whether a shape is written as such a thing at all: nothing, a scalar, a list or a mapping."""
    if shape == ATOMS[Any]:
        return True
    if value is None:
        return shape == NULL
    if isinstance(value, list):
        return isinstance(shape, ListOf)
    if isinstance(value, dict):
        return isinstance(shape, MapOf | Group) or shape == ATOMS[Secret]
    if shape == NULL:
        return _resolved(value) is None
    return isinstance(shape, Atom | Choice) and shape != ATOMS[Secret]


def _group_hook(cls: type, converter: Converter) -> Hook:
    """A hook for an attrs class: no other keys, bounds checked; `When` takes one pattern for a list of one."""
    overrides = {option.name: override(struct_hook=_bounded(option, converter)) for option in options_of(cls)}
    structure: Hook = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, **overrides)  # type: ignore[arg-type]  # mypy takes the overrides for the flags

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            _expected("a mapping", value)
        if cls is When:
            value = {key: [item] if isinstance(item, str) else item for key, item in value.items()}
        return structure(value, cls)

    return hook


def _bounded(option: Option, converter: Converter) -> Hook:
    structure = converter.get_structure_hook(option.type)

    def hook(value: Any, _: Any) -> Any:
        result = structure(value, option.type)
        if isinstance(result, int | float) and not isinstance(result, bool):
            sentence = option.info.check_bounds(result, lambda number: flow(to_data(number, option.shape)))
            if sentence is not None:
                raise Mismatch(sentence, rule="config/bounds")
        return result

    return hook


def _hook_of(declared: Any, converter: Converter) -> Hook:
    shape = shape_of(declared)
    match shape:
        case Atom():
            atom = _ATOM_HOOKS[shape.type]
            return lambda value, _: atom(value)
        case Choice():
            return _choice_hook(shape)
        case ListOf():
            return _list_hook(shape, converter)
        case MapOf():
            return _map_hook(shape, converter)
        case Group():
            return _group_hook(shape.cls, converter)
        case OneOf():
            return _union_hook(shape, converter)


@cache
def strict_converter() -> Converter:
    """The strict converter: every type goes through the hooks of this module. One for all, since it compiles code."""
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook_factory(lambda _: True, _hook_of)
    hook_of = cache(lambda declared: _hook_of(declared, converter))
    for builtin in (str, int, float, bool, Path):  # found by class before any factory is asked, subclasses too
        converter.register_structure_hook(builtin, lambda value, declared: hook_of(declared)(value, declared))
    return converter
