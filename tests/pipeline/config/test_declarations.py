"""The one view of declarations: shapes, and values as they would be written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.config import Checked
from sluiceway.pipeline.config.declarations import (
    ATOMS,
    Choice,
    Group,
    flow,
    options_of,
    shape_of,
    to_data,
    walk,
    words,
)
from sluiceway.pipeline.config.include import text_source
from sluiceway.pipeline.config.yaml_loader import load_yaml
from sluiceway.pipeline.model.options import Rate, option


@pytest.mark.parametrize("declared", [complex, tuple[int, str], dict, list, bytes, Callable[[], int]])
def test_a_type_no_file_can_hold_is_a_mistake_of_its_author(declared: Any) -> None:
    """The error names the type."""
    with pytest.raises(TypeError, match="not a type that an option can have"):
        shape_of(declared)


def test_text_is_plain_up_to_a_length() -> None:
    """Longer text is quoted, so that a long number is text again."""
    assert flow("x" * 60) == "x" * 60
    assert flow("x" * 61) == f'"{"x" * 61}"'


def test_an_unresolvable_annotation_is_a_mistake_of_its_author() -> None:
    """The error names the class and the name."""

    @frozen
    class Config:
        a: Nowhere = option(1, doc="x")  # type: ignore[name-defined]  # noqa: F821  # the point of the test

    with pytest.raises(TypeError, match="name 'Nowhere' is not defined"):
        options_of(Config)


def test_a_field_that_is_no_option_is_a_mistake_of_its_author() -> None:
    """Every option has a doc, so every field is an option."""

    @frozen
    class Config:
        a: int = field(default=1)

    with pytest.raises(TypeError, match=r"a is not an option\(\)"):
        options_of(Config)


def test_every_option_inside_a_value_is_walked(toy_chain: Callable[..., Checked]) -> None:
    """Groups in options, in lists and in mappings, with their paths."""
    text = "[every_toy: {pairs: [{window: 1s}]}, retry_toy: {budget: {window: 2s}}]"
    every, retry = toy_chain(text).require().pipelines["main"].chain

    paths = [path for stage in (every, retry) for _, _, path in walk(Group(stage.cls.Config), stage.config)]

    assert ("pairs", 0, "window") in paths
    assert ("budget", "window") in paths
    assert len(options_of(every.cls.Config)) + len(options_of(retry.cls.Config)) + 6 == len(paths)


def test_values_inside_a_mapping_are_walked() -> None:
    """The key is part of the path."""

    @frozen
    class Inner:
        a: int = option(1, doc="x")

    @frozen
    class Config:
        by_name: Mapping[str, Inner] = option(factory=dict, doc="x")

    Config.__annotations__["by_name"] = Mapping[str, Inner]

    assert [("by_name",), ("by_name", "k", "a")] == [p for _, _, p in walk(Group(Config), Config({"k": Inner()}))]


def test_a_typed_value_is_written_as_it_was_read(toy_chain: Callable[..., Checked]) -> None:
    """`to_data` is the inverse of structuring; defaults inside a group are left out."""
    written = (
        "{text: 'a: b', number: 2.5, count: 3, flag: true, size: 64KiB, ratio: 20%, rate: 61/min,"
        " secret: {from_env: S}, secrets: [{from_file: /k}], headers: {a: b, c: {from_env: D}}, path: /x,"
        " colour: blue, level: 'off',"
        " either: 5s, names: [c, b, a, d, e], numbers: [2, 1], pairs: [{window: 1s}], anything: {a: [1, null]},"
        " codes: {404: gone}}"
    )
    config = toy_chain(f"[every_toy: {written}]").require().pipelines["main"].chain[0].config
    data = to_data(config, Group(type(config)))
    again = toy_chain(f"[every_toy: {flow(data)}]").require().pipelines["main"].chain[0].config

    assert config == again
    assert (["a", "b", "c", "d", "e"], [2, 1]) == (data["names"], data["numbers"])
    assert {"share"} & set(data["pairs"][0]) == set()
    assert ("64KiB", "61/min", "5s", {"from_env": "S"}) == (
        data["size"], data["rate"], data["either"], data["secret"],
    )  # fmt: skip


def test_words_say_what_is_expected() -> None:
    """In the operator's terms; what may be left out is not listed as `nothing`."""
    assert "a whole number" == words(shape_of(int | None))
    assert "a mapping (name: a list (text))" == words(shape_of(dict[str, list[str]]))
    assert Rate in ATOMS


SCALARS = st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.floats(-1e6, 1e6) | st.text(max_size=20)
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


@given(DATA)
def test_one_line_yaml_reads_back(data: Any) -> None:
    """What `flow` writes, the loader reads as the same."""
    text = flow({"data": data})
    root, problems = load_yaml(text, text_source(text, "t", Path.cwd()))

    assert "\n" not in text
    assert problems == []
    assert root is not None
    assert {"data": data} == root.plain


def test_choices_keep_the_order_in_which_they_were_written() -> None:
    """Python holds two `Literal`s with the same values to be equal; a cache must not mix them up."""
    assert Choice(("a", "b")) == shape_of(Literal["a", "b"])
    assert Choice(("b", "a")) == shape_of(Literal["b", "a"])
