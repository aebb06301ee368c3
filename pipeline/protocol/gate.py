"""
The strict gate: what reads bytes from outside before anything else does.

Parsers disagree about duplicate keys, keys that differ only by case or Unicode form, lone surrogates, `NaN`, `1e400`
and nesting; who disagrees with the upstream can be made to permit what he meant to refuse. So the gate accepts only
JSON that every parser reads alike (RFC 8259 section 4 and 9, architecture decision 14), and bounds what reading costs.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

import jiter
from attrs import Factory, field, frozen

from .errors import ClientFault, GatewayError, InvalidMessage, MessageTooLarge, ParseError, UpstreamProtocolError
from .messages import Json

MIB: Final = 1024 * 1024

_GREATEST: Final = int(sys.float_info.max)

_known: Final[set[str]] = set()
_spelled: Final[dict[str, str]] = {}
"""
Keys that were inspected, and how a folded one was spelled last: of keys that fold alike only one is known at a time. So
an object that has known keys only has no two that can be confused; and the same few come with every message.
"""
_are_known: Final = _known.issuperset
_MAX_KNOWN: Final = 4096
_MAX_KEYS: Final = 32
_MAX_CHARS: Final = 64
"""Keys known, how many an object may have that they are learned from, and how many characters one may have."""


_LONGEST_KNOWN: Final = 128
"""
Characters no known key is longer than. Known keys are ASCII, and what folds to ASCII has no more characters than before
(no composed letter does), so a longer key need not be folded: folding may make eighteen characters of one.
"""
_STRINGS: Final = re.compile(rb'(?s)"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)')
"""Strings of JSON, and one that never ends; linear in what it reads."""
_MAX_ODD: Final = 256
_MAX_ALL_ODD: Final = 8 * 1024
"""
Characters that one key may have that is not in the normal form NFKC, and that all such keys of a message may have.

Bringing a key into that form costs the square of a run of marks in it (a minute for 100,000), or makes eighteen
characters of one. Keys that are in the form already, as nearly all are, may be as long as they like.
"""
_SPARE: Final = "\0\1\2\3\4\5\6\7"
"""Characters that neither fold nor stand in keys, usually."""


def _uncounted(limits: Limits) -> int:
    return min(limits.max_message_size, limits.max_separators, limits.max_keys)


@frozen
class Limits:
    """How much one message may cost to read."""

    max_message_size: int = 10 * MIB
    """Bytes of one message."""
    max_separators: int = 200_000
    """Commas, opening brackets and opening braces together: a bound on the objects made while parsing."""
    max_keys: int = 50_000
    """Keys of all objects together, each of which costs several times what an element of an array does."""
    max_depth: int = 64
    """Arrays and objects inside each other. The parser itself stops at 200."""
    max_batch: int = 1000
    """Messages in one JSON-RPC batch (2025-03-26 only)."""
    uncounted: int = field(default=Factory(_uncounted, takes_self=True), init=False, eq=False, repr=False)
    """Bytes of a message in which there can be too much of nothing; follows from the others."""


DEFAULT_LIMITS: Final = Limits()


def fold(key: str) -> str:
    """
    The form in which two keys that a lenient parser could confuse are equal: NFKC and case folding.

    What is in no normal form, and longer than 256 characters, would cost too much; only its case is folded.
    """
    if key.isascii():
        return key.lower()
    if len(key) > _MAX_ODD and not unicodedata.is_normalized("NFKC", key):
        return key.casefold()
    return _fold_wholly(key)


def _fold_wholly(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def parse(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Json:
    """
    The first half of `check`: size, separators, JSON syntax, UTF-8, duplicate keys.

    Raises:
        MessageTooLarge: More bytes than `max_message_size`.
        InvalidMessage: More separators than `max_separators`, more keys than `max_keys`, a key twice in one object, or
            nested more than the 200 levels where the parser stops.
        ParseError: Not JSON.
    """
    if len(data) > limits.uncounted:
        _count(data, limits)
    try:
        return jiter.from_json(data, catch_duplicate_keys=True, allow_inf_nan=False, cache_mode="keys")
    except ValueError as error:
        reason = str(error)
        if reason.startswith("Detected duplicate key"):
            raise _ambiguous(f"{reason}; every key of an object must be unique") from error
        if reason.startswith("recursion limit exceeded"):
            raise _too_deep(limits) from error
        raise ParseError(f"the message is not JSON: {reason}") from error


def _count(data: bytes, limits: Limits) -> None:
    """Refuse what has too many bytes, separators or keys."""
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
    if size > limits.max_keys and _has_more_keys(data, limits.max_keys):
        raise InvalidMessage(
            f"the message has more than max_keys ({limits.max_keys}) keys in its objects; send less in one message"
        )


def _has_more_keys(data: bytes, most: int) -> bool:
    """Whether there are more keys than that: colons, but for those of texts, which are looked for only when needed."""
    return data.count(b":") > most and _STRINGS.sub(b"", data).count(b":") > most


def inspect(value: Json, limits: Limits = DEFAULT_LIMITS) -> None:
    """
    The second half of `check`: nesting, numbers, and keys that only look different, at every depth.

    Args:
        value: What `parse` made of the data.
        limits: For `max_depth`.

    Raises:
        InvalidMessage: Too deep, or two keys of one object differ only by case or Unicode form.
        ParseError: A number overflows a double.
    """
    inspect_all((value,), limits.max_depth, limits, [])


def inspect_each(values: Iterable[Json], limits: Limits = DEFAULT_LIMITS) -> Iterator[GatewayError | None]:
    """What `inspect` finds in each element of an array, None if nothing: its bounds are those of the whole array."""
    odd: list[int] = []
    for value in values:
        try:
            inspect_all((value,), limits.max_depth - 1, limits, odd)
        except (InvalidMessage, ParseError) as error:
            yield error
        else:
            yield None


def inspect_all(values: Iterable[Json], room: int, limits: Limits, odd: list[int]) -> None:
    """
    Inspect values side by side; the parser's own limit bounds the recursion.

    Plain steps on purpose: what the C loops of `map` and `itertools` would save is less than beginning them costs,
    where objects have three members.

    Args:
        values: The values.
        room: How many levels they may have.
        limits: For the error.
        odd: How long those keys of the message are that are in no normal form; added to.

    Raises:
        InvalidMessage: As `inspect`.
        ParseError: As `inspect`.
    """
    for value in values:
        kind = type(value)
        if kind is str:
            continue
        if kind is dict:
            if not room:
                raise _too_deep(limits)
            if value:
                if not _are_known(value):
                    _refuse_twins(value, odd)
                inspect_all(value.values(), room - 1, limits, odd)
        elif kind is list:
            if not room:
                raise _too_deep(limits)
            inspect_all(value, room - 1, limits, odd)
        elif (kind is int or kind is float) and not -_GREATEST <= value <= _GREATEST:
            raise ParseError("the message is not JSON that every parser reads alike: a number overflows a double")


def check(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Json:
    """
    Read JSON strictly, at every depth.

    Returns:
        The decoded value. Its objects are plain dicts; treat them as immutable.

    Raises:
        ParseError: Not JSON: syntax, invalid UTF-8, a byte order mark, a lone surrogate, NaN, a number that overflows
            a double, bytes after the value.
        InvalidMessage: JSON that parsers may read differently, or that is too complex: a key twice, keys that differ
            only by case or Unicode form, more than `max_separators` or `max_keys`, deeper than `max_depth`.
        MessageTooLarge: More bytes than `max_message_size`.
    """
    value = parse(data, limits)
    inspect(value, limits)
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
        if len(key) > _LONGEST_KNOWN:
            continue
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
    assert max(map(len, keys)) <= _LONGEST_KNOWN
    return {fold(key): str(key) for key in keys}


def too_large(limits: Limits) -> MessageTooLarge:
    """The error about a message over `max_message_size`."""
    return MessageTooLarge(
        f"the message is larger than max_message_size ({limits.max_message_size} bytes); send less or raise the limit"
    )


def _too_deep(limits: Limits) -> InvalidMessage:
    return InvalidMessage(f"the message nests more than max_depth ({limits.max_depth}) deep; flatten it")


def _refuse_twins(item: Mapping[str, Json], odd: list[int]) -> None:
    """
    Refuse an object with keys that differ only by case or Unicode form; learn the keys of one that has none.

    Args:
        item: The object.
        odd: How long those keys of the message are that are in no normal form; added to.
    """
    joined = "".join(item)
    forms: Collection[str] = item
    if not joined.isascii():
        if len(item) == 1:
            return
        _bound_odd(item, odd)
        forms = _folded(item, joined)
    elif not joined.islower():
        forms = list(map(str.lower, item))
    if len(set(forms)) < len(forms):
        _refuse_first_twin(item, forms)
    if len(item) <= _MAX_KEYS:
        for key in item:
            _learn(key)


def _refuse_first_twin(keys: Iterable[str], forms: Iterable[str]) -> None:
    folded: dict[str, str] = {}
    for key, form in zip(keys, forms, strict=True):
        twin = folded.setdefault(form, key)
        if twin is not key:
            raise InvalidMessage(
                f"the keys {twin!r} and {key!r} of one object differ only by case or Unicode form; rename one"
            )


def _learn(key: str) -> None:
    """Know a key, in the place of one that folds alike; but none that is long, or counts as odd wherever it stands."""
    if len(key) > _MAX_CHARS or not unicodedata.is_normalized("NFKC", key):
        return
    if len(_spelled) >= _MAX_KNOWN:
        _spelled.clear()
        _known.clear()
    form = fold(key)
    _known.discard(_spelled.get(form, key))
    _spelled[form] = key
    _known.add(key)


def _bound_odd(keys: Iterable[str], odd: list[int]) -> None:
    """Refuse what would cost too much to fold."""
    lengths = [len(key) for key in keys if not unicodedata.is_normalized("NFKC", key)]
    odd += lengths
    if lengths and (max(lengths) > _MAX_ODD or sum(odd) > _MAX_ALL_ODD):
        raise InvalidMessage(
            f"keys in no normal form have more than {_MAX_ODD} characters, or more than {_MAX_ALL_ODD} together; "
            "write them in the form NFKC"
        )


def _folded(keys: Iterable[str], joined: str) -> list[str]:
    """
    The folded form of each key: of all in one pass, with something between them that is in none. However long they are
    together: `_bound_odd` has bounded what costs much.
    """
    spare = next((each for each in _SPARE if each not in joined), None)
    return [fold(key) for key in keys] if spare is None else _fold_wholly(spare.join(keys)).split(spare)
