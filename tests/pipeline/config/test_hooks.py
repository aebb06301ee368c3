"""What the strict converter takes and refuses, shape by shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sluiceway.pipeline.config import Checked
from sluiceway.pipeline.model.options import Rate, Secret

ToyChain = Callable[..., Checked]


def config(toy_chain: ToyChain, options: str) -> Any:
    """The options of one `every_toy`."""
    return toy_chain(f"[every_toy: {options}]").require().pipelines["main"].chain[0].config


def rules(toy_chain: ToyChain, options: str) -> list[str]:
    """What is wrong with them."""
    return [f"{problem.rule}: {problem.message}" for problem in toy_chain(f"[every_toy: {options}]").problems]


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ("{text: plain}", "text", "plain"),
        ("{number: 5}", "number", 5.0),
        ("{number: -1.5e1}", "number", -15.0),
        ("{count: 7}", "count", 7),
        ("{count: null}", "count", None),
        ("{flag: true}", "flag", True),
        ("{size: 2KiB}", "size", 2048),
        ("{ratio: 20%}", "ratio", 0.2),
        ("{ratio: 0.25}", "ratio", 0.25),
        ("{rate: 5/250ms}", "rate", Rate(5, 0.25)),
        ("{secret: {from_env: A}}", "secret", Secret(from_env="A")),
        ("{secrets: [{from_env: A}]}", "secrets", (Secret(from_env="A"),)),
        ("{headers: {a: b, c: {from_env: D}}}", "headers", {"a": "b", "c": Secret(from_env="D")}),
        ("{level: 2}", "level", 2),
        ("{level: 'off'}", "level", "off"),
        ("{either: 5s}", "either", 5.0),
        ("{either: never}", "either", "never"),
        ("{names: [b, a, b]}", "names", frozenset({"a", "b"})),
        ("{numbers: [1, 2]}", "numbers", [1, 2]),
        ("{anything: {a: [1, null, x]}}", "anything", {"a": [1, None, "x"]}),
        ("{anything: }", "anything", None),
        ("{codes: {404: gone}}", "codes", {404: "gone"}),
    ],
)
def test_a_value_of_its_field_is_taken(toy_chain: ToyChain, options: str, name: str, value: object) -> None:
    """Each shape in its own notation."""
    actual = getattr(config(toy_chain, options), name)

    assert (type(value), value) == (type(actual), actual)


def test_an_enum_is_written_by_its_value(toy_chain: ToyChain) -> None:
    """And becomes its member."""
    assert "BLUE" == config(toy_chain, "{colour: blue}").colour.name


def test_groups_inside_a_list_are_read(toy_chain: ToyChain) -> None:
    """A list of attrs classes; an option that `init` does not take is none."""
    pairs = config(toy_chain, "{pairs: [{window: 1s}, {window: 2s, share: 5%}]}").pairs

    assert [(1.0, 0.2), (2.0, 0.05)] == [(pair.window, pair.share) for pair in pairs]
    assert ["config/unknown-key"] == [p.split(":")[0] for p in rules(toy_chain, "{derived: 1}")]


def test_paths_start_at_the_file_that_names_them(toy_chain: ToyChain, tmp_path: Path) -> None:
    """A path in the file and a secret's file, relative and absolute."""
    options = config(toy_chain, "{path: ./x, secret: {from_file: /run/key}}")

    assert (tmp_path / "x", Secret(from_file=Path("/run/key"))) == (options.path, options.secret)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{text: 5}", "config/type: expected text, got number 5"),
        ("{text: true}", "config/type: expected text, got true"),
        ("{text: }", "config/type: expected text, got nothing"),
        ("{text: [a]}", "config/type: expected text, got a list"),
        ("{number: '5'}", "config/type: expected a number, got text '5'"),
        ("{number: true}", "config/type: expected a number, got true"),
        ("{number: .nan}", "config/type: expected a finite number"),
        ("{count: 1.0}", "config/type: expected a whole number, got number 1.0"),
        ("{count: true}", "config/type: expected a whole number, got true"),
        ("{count: {a: 1}}", "config/type: expected a whole number, got a mapping"),
        ("{flag: 1}", "config/type: expected true or false, got number 1"),
        ("{flag: no}", "config/type: expected true or false, got text 'no'"),
        ("{size: true}", "config/type: expected a size such as 64KiB, got true"),
        ("{size: -1}", "config/unit: expected a size such as 64KiB, got '-1'"),
        ("{size: 0B}", "config/bounds: must be at least 1B, got 0B"),
        ("{ratio: -0.1}", "config/unit: a share is from 0 to 1, or in percent: write -0.1% if you mean that"),
        ("{ratio: x}", "config/unit: expected a share such as 20%, got 'x'"),
        ("{ratio: true}", "config/type: expected a share such as 20%, got true"),
        ("{secret: {from_env: 5}}", "config/type: expected the name of an environment variable, got number 5"),
        ("{secret: {}}", "config/secret: a secret has exactly one key, from_env or from_file"),
        ("{secrets: {a: b}}", "config/secret: a secret is never written in the file"),
        ("{codes: [a]}", "config/type: expected a mapping (name: text), got a list"),
        ("{headers: {a: 5}}", "config/type: expected text, got number 5"),
        ("{path: ''}", "config/type: expected a path, got text ''"),
        ("{colour: RED}", "config/value: unknown value 'RED' (allowed: red, blue)"),
        ("{colour: [red]}", "config/type: expected one of red, blue, got a list"),
        ("{level: true}", "config/value: unknown value 'True' (allowed: 1, 2, off)"),
        ("{either: 5}", "config/value: unknown value '5' (allowed: never)"),
        ("{either: [5s]}", "config/type: expected a duration such as 5s or one of never, got a list"),
        ("{names: a}", "config/type: expected a list (text), got text 'a'"),
        ("{names: {a: b}}", "config/type: expected a list (text), got a mapping"),
        ("{pairs: [5]}", "config/type: expected a mapping, got number 5"),
        ("[1]", "config/type: expected a mapping, got a list"),
        ("5", "config/type: expected a mapping, got number 5"),
    ],
)  # fmt: skip
def test_a_value_of_another_field_is_refused(toy_chain: ToyChain, options: str, message: str) -> None:
    """Nothing is coerced; one problem says what is expected and what was found."""
    assert [message] == rules(toy_chain, options)


@pytest.mark.parametrize("field", ["text", "number", "count", "flag", "size", "ratio", "rate", "path", "colour",
                                   "level", "either", "names", "numbers", "pairs", "anything", "codes", "headers",
                                   "secret", "secrets"])  # fmt: skip
def test_a_broken_value_is_not_reported_again(toy_chain: ToyChain, field: str) -> None:
    """A variable that is not set is one problem, whatever its field."""
    for value in ("'${GONE}'", "['${GONE}']", "{a: '${GONE}'}", "{from_env: '${GONE}'}", "{from_file: '${GONE}'}"):
        found = [problem.split(":")[0] for problem in rules(toy_chain, f"{{{field}: {value}}}")]

        assert found.count("env/missing") == 1
        if value == "'${GONE}'":
            assert found == ["env/missing"]


def test_a_number_nobody_can_read_is_not_reported_again(toy_chain: ToyChain) -> None:
    """The loader said so; that it is no whole number either is no news."""
    assert ["yaml/number"] == [found.split(":")[0] for found in rules(toy_chain, f"{{size: {'9' * 5000}}}")]


def test_a_pattern_of_a_guard_may_stand_alone(toy_chain: ToyChain) -> None:
    """`when: {name: x}` and `when: {name: [x]}` are the same."""
    chain = toy_chain("[auth_toy: {when: {name: x}}, auth_toy: {when: {name: [x]}}]").require().pipelines["main"].chain

    assert chain[0].when == chain[1].when


def test_a_guard_is_as_strict_as_everything(toy_chain: ToyChain) -> None:
    """Unknown keys, numbers and other shapes."""
    problems = toy_chain("[auth_toy: {when: {nam: x}}, auth_toy: {when: {name: 5}}, auth_toy: {when: x}]").problems

    assert ["config/unknown-key", "config/type", "config/type"] == [problem.rule for problem in problems]
