"""
The strict gate: what reads bytes from outside before anything else does.

Parsers disagree about duplicate keys, keys that differ only by case or Unicode form, lone surrogates, `NaN`, `1e400`
and nesting; who disagrees with the upstream can be made to permit what he meant to refuse. So the gate accepts only
JSON that every parser reads alike (RFC 8259 section 4 and 9, architecture decision 14), and bounds what reading costs.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

import jiter
from attrs import frozen

from .errors import ClientFault, InvalidMessage, MessageTooLarge, ParseError, UpstreamProtocolError
from .messages import Json

MIB: Final = 1024 * 1024

_GREATEST: Final = int(sys.float_info.max)


@frozen
class Limits:
    """How much one message may cost to read."""

    max_message_size: int = 10 * MIB
    """Bytes of one message."""
    max_separators: int = 200_000
    """Commas, opening brackets and opening braces together: a bound on the objects made while parsing."""
    max_depth: int = 64
    """Arrays and objects inside each other. The parser itself stops at 200."""
    max_batch: int = 1000
    """Messages in one JSON-RPC batch (2025-03-26 only)."""


DEFAULT_LIMITS: Final = Limits()


def fold(key: str) -> str:
    """The form in which two keys that a lenient parser could confuse are equal: NFKC and case folding."""
    if key.isascii():
        return key.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", key).casefold())


def parse(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Json:
    """
    The first half of `check`: size, separators, JSON syntax, UTF-8, duplicate keys.

    Raises:
        MessageTooLarge: More bytes than `max_message_size`.
        InvalidMessage: More separators than `max_separators`, a key twice in one object, or nested more than the 200
            levels where the parser stops.
        ParseError: Not JSON.
    """
    size = len(data)
    if size > limits.max_message_size:
        raise too_large(limits)
    if size > limits.max_separators:
        separators = data.count(b",") + data.count(b"[") + data.count(b"{")
        if separators > limits.max_separators:
            raise InvalidMessage(
                f"the message has more than max_separators ({limits.max_separators}) commas and opening brackets; "
                "send less structure in one message"
            )
    try:
        return jiter.from_json(data, catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError as error:
        reason = str(error)
        if reason.startswith("Detected duplicate key"):
            raise _ambiguous(f"{reason}; every key of an object must be unique") from error
        if reason.startswith("recursion limit exceeded"):
            raise _too_deep(limits) from error
        raise ParseError(f"the message is not JSON: {reason}") from error


def inspect(value: Json, data: bytes, limits: Limits = DEFAULT_LIMITS) -> None:
    """
    The second half of `check`: nesting, numbers, and keys that only look different, at every depth.

    Args:
        value: What `parse` made of the data.
        data: The text itself; tells cheaply whether keys can hold anything but ASCII.
        limits: For `max_depth`.

    Raises:
        InvalidMessage: Too deep, or two keys of one object differ only by case or Unicode form.
        ParseError: A number overflows a double.
    """
    plain = data.isascii() and b"\\u" not in data
    level: list[Json] = [value]
    depth = 0
    while level:
        if depth >= limits.max_depth and any(type(item) is dict or type(item) is list for item in level):
            raise _too_deep(limits)
        deeper: list[Json] = []
        for item in level:
            kind = type(item)
            if kind is str:
                continue
            if kind is dict:
                if len(item) > 1 and not (plain and "".join(item).islower()):
                    _refuse_twins(item)
                deeper.extend(item.values())
            elif kind is list:
                deeper.extend(item)
            elif (kind is int or kind is float) and not -_GREATEST <= item <= _GREATEST:
                raise ParseError("the message is not JSON that every parser reads alike: a number overflows a double")
        level = deeper
        depth += 1


def check(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Json:
    """
    Read JSON strictly, at every depth.

    Returns:
        The decoded value. Its objects are plain dicts; treat them as immutable.

    Raises:
        ParseError: Not JSON: syntax, invalid UTF-8, a byte order mark, a lone surrogate, NaN, a number that overflows
            a double, bytes after the value.
        InvalidMessage: JSON that parsers may read differently, or that is too complex: a key twice, keys that differ
            only by case or Unicode form, more than `max_separators`, deeper than `max_depth`.
        MessageTooLarge: More bytes than `max_message_size`.
    """
    value = parse(data, limits)
    inspect(value, data, limits)
    return value


def check_upstream(data: bytes) -> Json:
    """
    Read JSON that an upstream sent, as strictly as `check`.

    Raises:
        UpstreamProtocolError: For every reason that `check` knows.
    """
    try:
        return check(data)
    except ClientFault as error:
        raise UpstreamProtocolError(f"what the upstream sent cannot be inspected: {error}") from error


def refuse_lookalikes(keys: Iterable[str], known: Mapping[str, str], where: str) -> None:
    """
    Refuse a key that folds to a known one without being it: `Method`, `PARAMS`, fullwidth letters.

    Args:
        keys: The keys of one object.
        known: Folded key -> the key as it must be spelled; made by `known_keys`.
        where: Name of the object, for the message.

    Raises:
        InvalidMessage: There is one.
    """
    for key in keys:
        meant = known.get(fold(key), key)
        if meant != key:
            raise _ambiguous(f"{where} has the key {key!r}; write it {meant!r}")


def _ambiguous(text: str) -> InvalidMessage:
    """A message that parsers read differently: chance, or somebody who tries to get past a policy."""
    error = InvalidMessage(text)
    error.event = "ambiguous_message"
    return error


def known_keys(*keys: str) -> dict[str, str]:
    """The table that `refuse_lookalikes` takes."""
    return {fold(key): str(key) for key in keys}


def too_large(limits: Limits) -> MessageTooLarge:
    """The error about a message over `max_message_size`."""
    return MessageTooLarge(
        f"the message is larger than max_message_size ({limits.max_message_size} bytes); send less or raise the limit"
    )


def _too_deep(limits: Limits) -> InvalidMessage:
    return InvalidMessage(f"the message nests more than max_depth ({limits.max_depth}) deep; flatten it")


def _refuse_twins(item: Mapping[str, Json]) -> None:
    folded: dict[str, str] = {}
    for key in item:
        twin = folded.setdefault(fold(key), key)
        if twin is not key:
            raise InvalidMessage(
                f"the keys {twin!r} and {key!r} of one object differ only by case or Unicode form; rename one"
            )
