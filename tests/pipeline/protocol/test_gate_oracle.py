"""
The gate, and the pass that reads a request, against a plain telling of the same rules: recursive, and without memory.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sluiceway.pipeline.protocol import gate
from sluiceway.pipeline.protocol.codec import decode_batch, decode_message
from sluiceway.pipeline.protocol.envelope import message_of
from sluiceway.pipeline.protocol.errors import GatewayError, InvalidMessage, ParseError
from sluiceway.pipeline.protocol.gate import Limits, fold, inspect, inspect_each
from sluiceway.pipeline.protocol.mcp import METHODS, MetaKey, meta_of, method_of, target_of
from sluiceway.pipeline.protocol.messages import Json, Message, Request

GREATEST = int(sys.float_info.max)
CONFUSABLE = (
    "a", "A", "\uff21", "k", "K", "\u212a", "\xe9", "\xc9", "e\u0301", "E\u0301", "\xdf", "ss", "SS", "\ufb01", "fi",
    "", "1", "\0", "name", "Name", "nAME", "\u0130", "i\u0307", "\u0345", "\u03b9", "x" * 70, "X" * 70, "\ufdfa" * 200,
    "\ufdfa" * 300, "e\u0301" * 100, "E\u0301" * 100,
)  # fmt: skip
NUMBERS = (0, -1, GREATEST, -GREATEST, GREATEST + 1, -(10**400), 1.5, sys.float_info.max, float("inf"), -float("inf"))
SCALARS = st.sampled_from((None, True, False, "", "A", *NUMBERS))
KEYS = st.sampled_from(CONFUSABLE) | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


def faults(value: Json, room: int, odd: list[int]) -> Iterator[str]:
    """Everything that is wrong with a value, as the texts of the errors say it."""
    if isinstance(value, dict | list):
        if not room:
            yield "nests more than"
            return
        if isinstance(value, dict):
            yield from twins(value, odd)
        for member in value.values() if isinstance(value, dict) else value:
            yield from faults(member, room - 1, odd)
    elif isinstance(value, int | float) and not -GREATEST <= value <= GREATEST:
        yield "a number overflows a double"


def twins(item: Mapping[str, Json], odd: list[int]) -> Iterator[str]:
    """Two keys that fold alike, or keys that cost too much to fold."""
    joined = "".join(item)
    if len(item) == 1:
        return
    if not joined.isascii():
        lengths = [len(key) for key in item if not unicodedata.is_normalized("NFKC", key)]
        odd += lengths
        if lengths and (max(lengths) > 256 or sum(odd) > 8192):
            yield "normal form"
            return
    if len(set(map(fold, item))) < len(item):
        yield "differ only by case or Unicode form"


def agree(found: GatewayError | None, known: list[str]) -> bool:
    """Whether the gate found nothing where nothing is wrong, or else something that is."""
    return not known if found is None else any(text in str(found) for text in known)


def refusal(value: Json, limits: Limits) -> GatewayError | None:
    """What the gate finds wrong with a value."""
    try:
        inspect(value, limits)
    except (InvalidMessage, ParseError) as error:
        return error
    return None


@given(VALUES, st.integers(1, 4))
@example({"a": {"\xe9": 1, "E\u0301": 2}}, 4)
@example({"file": 1, "\uff46ile": 2, "x" * 300: 3}, 4)
@example([{"k": 1, "x": 2}, {"K": 1, "x": 2}, {"k": 1, "K": 2}], 4)
def test_the_gate_refuses_exactly_what_is_wrong(value: Json, depth: int) -> None:
    """Level by level, with keys that it has learned, it finds what a walk finds that looks at everything."""
    for _ in range(2):
        assert agree(refusal(value, Limits(max_depth=depth)), list(faults(value, depth, [])))


@given(st.lists(VALUES, max_size=4), st.integers(1, 4))
@example([{"a": 1, "\ufdfa" * 300: 2}, {"a": 1, "\xc1\xf2": 2}, {"a": 1, "e\u0301": 2}], 4)
def test_each_element_of_an_array_is_judged_for_itself(values: list[Json], depth: int) -> None:
    """Only what counts as odd is counted over all of them."""
    odd: list[int] = []

    for value, found in zip(values, inspect_each(values, Limits(max_depth=depth)), strict=True):
        assert agree(found, list(faults(value, depth - 1, odd)))


@given(st.lists(st.lists(KEYS, max_size=5), max_size=30))
def test_known_keys_never_fold_alike(objects: list[list[str]]) -> None:
    """Whatever was learned in whichever order: then an object of known keys has no twins."""
    for keys in objects:
        refusal(dict.fromkeys(keys), Limits())

    assert len({fold(key) for key in gate._known}) == len(gate._known)
    assert set(gate._spelled.values()) == gate._known


def test_keys_that_were_learned_from_two_objects_are_still_twins() -> None:
    """The memory is of keys, and of each pair that folds alike it has one."""
    for first, second in (("unlikelyKey", "UnlikelyKey"), ("\xe9t\xe9", "\xc9T\xc9"), ("stra\xdfen", "STRASSEN")):
        for key in (first, second, first):
            inspect({key: 1, "b": 2})
        with pytest.raises(InvalidMessage, match="differ only"):
            inspect({first: 1, second: 2})


IDS = st.sampled_from((1, -5, 2**53 - 1, 2**53, "x", "", None, True, 1.0, [], {}, float("inf")))
META = st.dictionaries(st.sampled_from((*MetaKey, "ProgressToken", "x", "\uff30")), VALUES, max_size=3) | SCALARS
PARAMS = st.dictionaries(
    st.sampled_from(("name", "uri", "taskId", "arguments", "cursor", "Name", "_Meta", "x", "inputResponses")),
    VALUES,
    max_size=4,
)


@st.composite
def envelopes(draw: st.DrawFn) -> dict[str, Any]:
    """Values that are requests, or nearly."""
    params: Any = draw(PARAMS)
    if draw(st.booleans()):
        params["_meta"] = draw(META)
    value: dict[str, Any] = {
        "jsonrpc": "2.0",
        "id": draw(IDS),
        "method": draw(st.sampled_from((*METHODS, "x/y", "notifications/x"))),
        "params": draw(st.sampled_from((params, params, params, None, [], "x"))),
    }
    for key in draw(st.lists(st.sampled_from(tuple(value)), max_size=2)):
        value.pop(key, None)
    odd = st.dictionaries(st.sampled_from(("Method", "result", "error", "x", "jsonrpc")), VALUES, max_size=1)
    return {**value, **draw(odd)}


def text_of(value: Json) -> bytes:
    """A value as JSON; infinity is a number of JSON that overflows."""
    return json.dumps(value).replace("-Infinity", "-1e400").replace("Infinity", "1e400").encode()


def outcome(decoded: Message) -> tuple[Any, ...]:
    """What a message says, and what a request says of itself."""
    if isinstance(decoded, Request):
        return decoded, decoded.raw, decoded.row, decoded.target, decoded.meta
    return (decoded,)


@given(envelopes(), st.integers(1, 5))
def test_a_request_is_read_in_one_pass_as_in_two(value: dict[str, Any], depth: int) -> None:
    """Inspecting first and reading the envelope then gives the same message, or finds the same fault first."""
    data, limits = text_of(value), Limits(max_depth=depth)

    def in_two_passes(data: bytes, limits: Limits) -> Message:
        parsed = gate.parse(data, limits)
        inspect(parsed, limits)
        return message_of(parsed, data)

    expected = told_by(in_two_passes, data, limits)

    assert told_by(decode_message, data, limits) == expected
    assert told_by(decode_batch, data, limits) == expected


def told_by(read: Callable[[bytes, Limits], Any], data: bytes, limits: Limits) -> tuple[Any, ...]:
    """What it says, or why it is refused."""
    try:
        return outcome(read(data, limits))
    except (InvalidMessage, ParseError) as error:
        return type(error), str(error)


@given(envelopes())
def test_what_a_read_request_says_of_itself_is_what_the_table_says(value: dict[str, Any]) -> None:
    """Row, target and metadata are found by the pass that reads, and are those of the functions that find them."""
    try:
        request = message_of(value, b"")
    except InvalidMessage:
        return

    if isinstance(request, Request):
        assert request.row is method_of(request.method)
        assert request.target == target_of(request.method, request.params)
        assert request.meta == meta_of(request.params)
