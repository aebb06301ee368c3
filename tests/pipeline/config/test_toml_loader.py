"""TOML to the same tree as YAML, with places as good as a scan of the lines gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.config import load
from sluiceway.pipeline.config.include import text_source
from sluiceway.pipeline.config.nodes import Node, key_of, place_of
from sluiceway.pipeline.config.toml_loader import load_toml
from sluiceway.pipeline.model.registry import Registry

TEXT = '''
version = 1
"quoted key" = {a = 1}
when = 2001-02-03
text = """
fake = 1
[not.a.table]
"""

[pipelines.main]
timeout = "5s"
limits.deep = 7

[[chain]]
name = "one"

[[chain]]
name = "two"
[chain.options]
x = [1, 2]
'''


def read(text: str) -> Node:
    """The tree of a text without problems."""
    root, problems = load_toml(text, text_source(text, "t", Path.cwd()))
    assert root is not None
    assert problems == []
    return root


def test_the_data_is_what_toml_says() -> None:
    """Tables are mappings, arrays of tables lists, dates text."""
    expected = {
        "version": 1, "quoted key": {"a": 1}, "when": "2001-02-03", "text": "fake = 1\n[not.a.table]\n",
        "pipelines": {"main": {"timeout": "5s", "limits": {"deep": 7}}},
        "chain": [{"name": "one"}, {"name": "two", "options": {"x": [1, 2]}}],
    }  # fmt: skip

    assert expected == read(TEXT).plain


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("version",), "t:2:1", "t:2:11"),
        (("quoted key", "a"), "t:3:16", "t:3:16"),
        (("text",), "t:5:1", "t:5:8"),
        (("pipelines",), "t:10:2", "t:10:2"),
        (("pipelines", "main", "timeout"), "t:11:1", "t:11:11"),
        (("pipelines", "main", "limits", "deep"), "t:12:1", "t:12:15"),
        (("chain", 1, "name"), "t:18:1", "t:18:8"),
        (("chain", 1, "options", "x", 1), "t:20:5", "t:20:5"),
    ],
)
def test_keys_and_values_are_found_by_their_lines(path: tuple[str | int, ...], key: str, value: str) -> None:
    """A key in an inline table has the place of the key around it; text in triple quotes is no key."""
    root = read(TEXT)

    assert (key, value) == (str(key_of(root, path)), str(place_of(root, path)))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a = ", "t:1:5"),
        ("a = 1\na = 2", "t:2:6"),
        ("a = 1\nb = x\nc = 2", "t:2:5"),
        ('a = """', "t:1:8"),
        ("a = " + "[" * 5000, "t"),
        ("a = " + "[" * 80 + "]" * 80, "t"),
    ],
)
def test_what_is_no_toml_is_a_problem(text: str, place: str) -> None:
    """tomllib's message, with its place where it tells one; nesting is bounded."""
    root, problems = load_toml(text, text_source(text, "t", Path.cwd()))

    assert root is None
    assert [place] == [str(problem.span) for problem in problems]


@given(st.text())
def test_no_text_makes_the_loader_raise(text: str) -> None:
    """Whatever the text, there is a tree or a problem."""
    root, problems = load_toml(text, text_source(text, "t", Path.cwd()))

    assert root is not None or problems


def test_the_same_configuration_in_both_formats_is_the_same(tmp_path: Path, registry: Registry) -> None:
    """Only places and digests tell a document in TOML from one in YAML."""
    (tmp_path / "a.yaml").write_text(
        "version: 1\nsources: {s: {listen_toy: {}}}\nsinks: {out: {echo_toy: {}}}\n"
        "pipelines:\n  main:\n    timeout: ${T}\n    chain:\n"
        "      - auth_toy\n      - retry_toy: {max_attempts: 2, when: {name: 'a*'}}\n"
    )
    (tmp_path / "a.toml").write_text(
        'version = 1\n[sources.s.listen_toy]\n[sinks.out.echo_toy]\n[pipelines.main]\ntimeout = "${T}"\n'
        'chain = ["auth_toy", {retry_toy = {max_attempts = 2, when = {name = "a*"}}}]\n'
    )
    one, other = (load(tmp_path / name, env={"T": "7s"}, registry=registry) for name in ("a.yaml", "a.toml"))

    def bare(document: object) -> str:
        return str(document).replace("a.toml", "a.yaml").split("files=")[0]

    assert one.pipelines["main"].limits == other.pipelines["main"].limits
    assert [(s.id, s.config, s.when) for s in one.pipelines["main"].chain] == [
        (s.id, s.config, s.when) for s in other.pipelines["main"].chain
    ]
    assert one.digest != other.digest
