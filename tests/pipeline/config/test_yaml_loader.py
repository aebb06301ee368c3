"""YAML to a tree: core scalars, places, anchors, and everything that is refused."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.config import check_text, render_text
from sluiceway.pipeline.config.include import text_source
from sluiceway.pipeline.config.nodes import Mapping, Node, key_of, place_of
from sluiceway.pipeline.config.scalars import resolve_scalar
from sluiceway.pipeline.config.yaml_loader import MAX_NODES, load_yaml


def read(text: str) -> tuple[Node | None, list[str]]:
    """The tree of an indented text, and its problems as `line:column rule`."""
    root, problems = load_yaml(dedent(text), text_source(dedent(text), "t", Path.cwd()))
    return root, [f"{p.span.line}:{p.span.column} {p.rule}" for p in problems]


def tree(text: str) -> Any:
    """The plain data of a text that has no problems."""
    root, problems = read(text)
    assert problems == []
    assert root is not None
    return root.plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("Null", None), ("NULL", None),
        ("true", True), ("True", True), ("TRUE", True), ("false", False), ("False", False), ("FALSE", False),
        ("0", 0), ("-19", -19), ("+12", 12), ("020", 20), ("0o17", 15), ("0xFF", 255),
        ("1.5", 1.5), ("-.5", -0.5), ("5.", 5.0), ("1e3", 1000.0), (".inf", float("inf")), ("-.INF", float("-inf")),
        ("no", "no"), ("on", "on"), ("yes", "yes"), ("1:30", "1:30"), ("2001-01-01", "2001-01-01"), ("1_000", "1_000"),
        ("nan", "nan"), ("0o8", "0o8"), ("=", "="), ("5s", "5s"),
    ],
)  # fmt: skip
def test_plain_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    """Nothing of YAML 1.1: `no` is text, `1:30` is text, a date is text."""
    resolved = resolve_scalar(text)

    assert (type(value), value) == (type(resolved), resolved)


def test_nan_is_a_number() -> None:
    """`.nan` is the one number that does not equal itself."""
    value = resolve_scalar(".NaN")

    assert isinstance(value, float)
    assert value != value  # what NaN is


def test_quoted_scalars_and_text_tags_stay_text() -> None:
    """Quotes, block scalars and `!!str` keep a value from being read."""
    actual = tree("a: '5'\nb: \"true\"\nc: |\n  7\nd: !!str 8\ne: ! 9\nf: !!int 0x10\ng: !!map {}\nh: !!seq []\n")

    assert {"a": "5", "b": "true", "c": "7\n", "d": "8", "e": "9", "f": 16, "g": {}, "h": []} == actual


def test_the_tag_that_says_nothing_changes_no_structure() -> None:
    """`!` alone asks for what a node is anyway (YAML 1.2.2, 6.9.1)."""
    assert {"a": [1], "b": {"k": 1}} == tree("a: ! [1]\nb: ! {k: 1}\n")


def test_keys_are_text_whatever_they_look_like() -> None:
    """A key is a name: `404`, `on` and `null` are names like any other."""
    assert {"404": 1, "on": 2, "null": 3, "a b": 4} == tree("404: 1\non: 2\nnull: 3\n'a b': 4\n")


def test_empty_text_is_an_empty_mapping() -> None:
    """Nothing, or nothing but comments, is a document without keys."""
    assert {} == tree("# nothing\n")


def test_every_key_and_value_has_its_place() -> None:
    """Places are 1-based lines and columns, in block and flow style."""
    root, _ = read("a:\n  - b: {c: 5}\n  -   d\n")
    assert root is not None

    assert "t:2:12" == str(place_of(root, ("a", 0, "b", "c")))
    assert "t:2:9" == str(key_of(root, ("a", 0, "b", "c")))
    assert "t:3:7" == str(place_of(root, ("a", 1)))
    assert "t:2:8" == str(place_of(root, ("a", 0, "b", "missing", "deeper")))


def test_aliases_and_merge_keys_keep_the_place_of_the_anchor() -> None:
    """What sits in an anchor stands where the anchor stands, wherever it is used."""
    root, _ = read("x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz:\n  <<: [*x, *y]\n  a: 9\nw: *x\n")
    assert isinstance(root, Mapping)

    assert {"a": 9, "b": 2, "c": 4} == root.plain["z"]
    assert "t:1:14" == str(key_of(root, ("z", "b")))
    assert "t:1:11" == str(place_of(root, ("w", "a")))
    assert "t:5:6" == str(place_of(root, ("z", "a")))


def test_a_quoted_merge_key_is_a_key() -> None:
    """Only a plain `<<` merges."""
    assert {"<<": {"a": 1}} == tree('"<<": {a: 1}')


def test_an_anchor_may_be_given_again() -> None:
    """An alias means the nearest anchor of its name before it, as YAML says."""
    assert {"a": 1, "b": 1, "c": 2, "d": 2} == tree("a: &v 1\nb: *v\nc: &v 2\nd: *v\n")


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a: 1\na: 2\n", ["2:1 yaml/duplicate-key"]),
        ("a: &a [*a]", ["1:8 yaml/alias"]),
        ("a: *b", ["1:4 yaml/alias"]),
        ("a: !!python/object:os.system x", ["1:4 yaml/tag"]),
        ("a: !mine [1]\nb: !!binary x\n", ["1:4 yaml/tag", "2:4 yaml/tag"]),
        ("a: !!int x", ["1:4 yaml/tag"]),
        ("a: [1", ["2:1 yaml/syntax"]),
        ("a: b: c", ["1:5 yaml/syntax"]),
        ("a: \x00", ["1:4 yaml/syntax"]),
        ("b: 1\na: x\ud800", ["2:5 yaml/syntax"]),
        ("---\na: 1\n---\nb: 2\n", ["3:1 yaml/documents"]),
        ("? {a: 1}\n: 2\n", ["1:3 yaml/key"]),
        ("? &k key\n: 1\n? *k\n: 2\n", ["3:3 yaml/duplicate-key"]),
        ("? *k\n: 1", ["1:3 yaml/alias"]),
        ("<<: 5", ["1:1 yaml/merge"]),
        ("a: " + "9" * 65, ["1:4 yaml/number"]),
        ("[" * 70 + "]" * 70, ["1:66 yaml/size"]),
    ],
)
def test_what_is_no_plain_data_is_refused_where_it_stands(text: str, problems: list[str]) -> None:
    """Every refusal has a rule and a place."""
    assert problems == read(text)[1]


def test_a_list_as_a_key_by_alias_is_refused() -> None:
    """An alias is no way around the rule that keys are text."""
    assert ["2:3 yaml/key"] == read("x: &l [1]\n? *l\n: 2\n")[1]


def test_an_alias_bomb_is_refused_before_it_is_expanded() -> None:
    """Ten to the ninth nodes in ten lines cost what the ten lines cost."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]

    assert ["5:45 yaml/size"] == read("\n".join(lines))[1]


def test_a_long_list_is_refused_at_the_limit() -> None:
    """The limit is on keys and values, not on aliases alone."""
    root, problems = read("[" + "a, " * MAX_NODES + "]")

    assert root is None
    assert [f"1:{3 * (MAX_NODES - 1) + 2} yaml/size"] == problems


@given(st.text())
def test_no_text_makes_the_loader_raise(text: str) -> None:
    """Whatever the text, there is a tree or a problem."""
    root, problems = load_yaml(text, text_source(text, "t", Path.cwd()))

    assert root is not None or problems


YAML_LIKE = st.text(st.sampled_from(list("ab:-?&*!<[]{}|>'\"#%@`,. \n\t$0~")), max_size=60)


@given(YAML_LIKE)
def test_no_yaml_like_text_makes_the_loader_raise(text: str) -> None:
    """The same for text made of the characters that mean something to YAML."""
    root, problems = load_yaml(text, text_source(text, "t", Path.cwd()))

    assert root is not None or problems


def test_a_number_nobody_can_read_comes_with_its_remedy() -> None:
    """It may have been meant as text."""
    fixes = [problem.fix for problem in check_text("a: " + "9" * 65 + "\n").problems if problem.rule == "yaml/number"]

    assert ["quote it if it is text"] == fixes


def test_a_lone_carriage_return_ends_a_line() -> None:
    """As YAML counts lines (YAML 1.2, section 5.4), so the line that is shown is the one that is meant."""
    shown = render_text(check_text("version: 1\rnonsense: 2\r").problems)

    assert "text:2:1: error[config/unknown-key]" in shown
    assert "     2 | nonsense: 2\n" in shown
