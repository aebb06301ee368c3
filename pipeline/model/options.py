"""
Options: one attrs declaration per component, read by the parser, the linter, the docs, the schema and `explain`.

Units are in the YAML value (`250ms`, `64KiB`, `60/min`, `20%`) and out of it in Python: durations are float seconds,
sizes int bytes, ratios float 0..1. The `parse_` functions here are the only place that knows the spellings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NewType, TypeAlias, final

import attrs
from attrs import NOTHING, frozen

Duration = NewType("Duration", float)
"""Seconds. In YAML: `250ms`, `5s`, `2m`, `1h`, `7d`; a bare number is an error."""
Size = NewType("Size", int)
"""Bytes. In YAML: `512B`, `64KiB`, `10MiB`, `1GiB` (also kB, MB, GB in powers of ten); a bare number is an error."""
Ratio = NewType("Ratio", float)
"""A share from 0 to 1. In YAML: `20%` or `0.2`."""
ConfigPath = NewType("ConfigPath", Path)
"""A file path. In YAML relative to the file that names it; in Python absolute."""

KIB: Final = 1024
MIB: Final = 1024 * KIB
MILLISECOND: Final = 0.001
SECOND: Final = 1.0
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

_DURATIONS: Final = {"ms": MILLISECOND, "s": SECOND, "m": MINUTE, "min": MINUTE, "h": HOUR, "d": DAY}
_SIZES: Final = {
    "B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": KIB, "MiB": MIB, "GiB": 1024 * MIB,
}  # fmt: skip
_NUMBER: Final = r"[0-9]{1,15}(?:\.[0-9]{1,15})?"
_NUMBER_UNIT: Final = re.compile(rf"({_NUMBER})\s*([A-Za-z%]*)")


@final
@frozen
class Rate:
    """A count per time. In YAML: `60/min`, `10/s`, `100/h`, `5/250ms`."""

    count: float
    per_s: float
    """Length of the period in seconds."""

    def __str__(self) -> str:
        period = render_duration(self.per_s)
        if period[0] == "1" and period[1:] in _DURATIONS:
            period = "min" if period == "1m" else period[1:]
        return f"{_plain(self.count)}/{period}"


@final
@frozen(repr=False)
class Secret:
    """
    A value that is never printed. In YAML `{from_env: NAME}` or `{from_file: path}`, never the value itself.

    Resolved when its component opens, so that `check` needs no secrets.
    """

    from_env: str | None = None
    from_file: Path | None = None

    def resolve(self) -> str:
        """
        Read the value now; a file's trailing newline is dropped.

        Raises:
            LookupError: The variable is not set, or the file cannot be read. The text never holds the value.
        """
        if self.from_env is not None:
            value = os.environ.get(self.from_env)
            if value is None:
                raise LookupError(f"environment variable {self.from_env} is not set")
            return value
        assert self.from_file is not None
        try:
            return self.from_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise LookupError(f"secret file {self.from_file} cannot be read: {error}") from error

    def __repr__(self) -> str:
        origin = f"from_env={self.from_env}" if self.from_env is not None else f"from_file={self.from_file}"
        return f"Secret({origin})"


def _unit(text: str, units: dict[str, Any], noun: str, example: str) -> tuple[float, str]:
    match = _NUMBER_UNIT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected {noun} such as {example}, got {text!r}")
    number, unit = match.groups()
    if not unit:
        raise ValueError(f"{noun} needs a unit: write {number}{example.lstrip('0123456789')} if you mean that")
    if unit not in units:
        raise ValueError(f"unknown unit {unit!r} in {text!r}; use one of {', '.join(units)}")
    return float(number), unit


def parse_duration(text: str) -> Duration:
    """
    `250ms` -> 0.25.

    Raises:
        ValueError: With a sentence that says what to write instead.
    """
    number, unit = _unit(text, _DURATIONS, "a duration", "5s")
    return Duration(number * _DURATIONS[unit])


def parse_size(text: str) -> Size:
    """
    `64KiB` -> 65536.

    Raises:
        ValueError: Not a size, or not a whole number of bytes.
    """
    number, unit = _unit(text, _SIZES, "a size", "64KiB")
    size = number * _SIZES[unit]
    if size != int(size):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return Size(int(size))


def parse_ratio(text: str) -> Ratio:
    """
    `20%` -> 0.2.

    Raises:
        ValueError: Not a percentage, or outside 0 % to 100 %.
    """
    match = re.fullmatch(rf"({_NUMBER})\s*%", text.strip())
    if match is None:
        raise ValueError(f"expected a share such as 20%, got {text!r}")
    ratio = float(match[1]) / 100
    if ratio > 1:
        raise ValueError(f"{text!r} is more than 100%")
    return Ratio(ratio)


def parse_rate(text: str) -> Rate:
    """
    `60/min` -> Rate(60, 60.0).

    Raises:
        ValueError: With a sentence that says what to write instead.
    """
    count, slash, period = text.partition("/")
    if not slash or not re.fullmatch(rf"\s*{_NUMBER}\s*", count):
        raise ValueError(f"expected a rate such as 60/min, got {text!r}")
    period = period.strip()
    per_s = _DURATIONS[period] if period in _DURATIONS else parse_duration(period)
    if per_s <= 0 or float(count) <= 0:
        raise ValueError(f"a rate must be positive, got {text!r}")
    return Rate(float(count), per_s)


def render_duration(seconds: float) -> str:
    """The shortest spelling `parse_duration` reads back."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= _DURATIONS[unit] and seconds % _DURATIONS[unit] == 0:
            return f"{_plain(seconds / _DURATIONS[unit])}{unit}"
    return f"{_plain(seconds / MILLISECOND)}ms" if 0 < seconds < 1 else f"{_plain(seconds)}s"


def _plain(number: float) -> str:
    """A number without exponent, as the parsers take it."""
    return f"{number:.9f}".rstrip("0").rstrip(".")


def render_size(size: int) -> str:
    """The shortest spelling `parse_size` reads back."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _SIZES[unit] == 0:
            return f"{size // _SIZES[unit]}{unit}"
    return f"{size}B"


Refers: TypeAlias = Literal["sink", "store", "pipeline", "source"]
"""What an option's value can be the id of."""


@final
@frozen
class OptionInfo:
    """What an option says about itself beyond its type and default."""

    doc: str
    """One or two sentences; they become the reference, the schema's description and `explain`."""
    example: Any = None
    """A value as written in YAML; needed where the default does not show one."""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    since: str | None = None
    deprecated: str | None = None
    """What to use instead."""
    refers: Refers | None = None
    """The option holds ids of these; they must exist. Of a mapping, its keys."""

    def check_bounds(self, value: float, render: Callable[[float], str] = "{:g}".format) -> str | None:
        """A sentence about a violated bound, or None. `render` writes numbers as the option does."""
        if self.ge is not None and value < self.ge:
            return f"must be at least {render(self.ge)}, got {render(value)}"
        if self.gt is not None and value <= self.gt:
            return f"must be more than {render(self.gt)}, got {render(value)}"
        if self.le is not None and value > self.le:
            return f"must be at most {render(self.le)}, got {render(value)}"
        return None


OPTION: Final = "sluiceway.option"
"""Key of the `OptionInfo` in an attrs field's metadata."""


def option(
    default: Any = NOTHING,
    *,
    doc: str,
    example: Any = None,
    factory: Any = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    since: str | None = None,
    deprecated: str | None = None,
    refers: Refers | None = None,
) -> Any:
    """
    An `attrs.field` of a component's `Config`.

    Args:
        default: The value when the key is absent; without one the key is required.
        doc: One or two sentences: what it does, in the operator's words.
        example: A value as written in YAML; give one unless the default shows it.
        factory: Makes a mutable default.
        ge: Least value allowed (seconds for durations, bytes for sizes).
        gt: Value that must be exceeded.
        le: Greatest value allowed.
        since: Version that introduced it.
        deprecated: What to use instead.
        refers: The value is the id of a sink, store or pipeline (or several), which must exist. Text options named
            `store` or ending in `_store` refer to stores without saying so.
    """
    info = OptionInfo(
        doc=doc, example=example, ge=ge, gt=gt, le=le, since=since, deprecated=deprecated, refers=refers
    )  # fmt: skip
    if factory is not None:
        return attrs.field(factory=factory, metadata={OPTION: info})
    return attrs.field(default=default, metadata={OPTION: info})


def option_info(attribute: attrs.Attribute[Any]) -> OptionInfo:
    """
    The `OptionInfo` of a Config field.

    Raises:
        TypeError: The field was not made with `option()`.
    """
    info = attribute.metadata.get(OPTION)
    if not isinstance(info, OptionInfo):
        raise TypeError(f"{attribute.name} is not an option(); declare it with one")
    return info
