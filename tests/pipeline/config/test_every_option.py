"""Every option of everything that ships says what it is, and shows how it is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sluiceway.pipeline.config.declarations import Option, flow, options_of, shape_of, words
from sluiceway.pipeline.config.describe import groups_in
from sluiceway.pipeline.config.hooks import strict_converter
from sluiceway.pipeline.config.include import text_source
from sluiceway.pipeline.config.keys import COMPONENT_KEYS, PipelineKeys, StageKeys
from sluiceway.pipeline.config.nodes import tree_of
from sluiceway.pipeline.model.document import Limits, Run
from sluiceway.pipeline.model.registry import Registry
from sluiceway.pipeline.model.when import When

ROWS = [row for row in Registry().rows() if row.provider == "built-in"]
FILE_KEYS = [Limits, Run, StageKeys, PipelineKeys, *(keys for _, keys in COMPONENT_KEYS.values())]


def options_within(name: str, cls: type) -> Iterator[tuple[str, Option]]:
    """The options of a class and of the classes inside it, with their paths."""
    for option in options_of(cls):
        yield f"{name}.{option.name}", option
        for inner in groups_in(option.shape):
            yield from options_within(f"{name}.{option.name}", inner)


OPTIONS = [
    pytest.param(option, id=path)
    for row in ROWS
    if row.cls is not None
    for path, option in options_within(f"{row.kind}.{row.name}", row.cls.Config)
] + [pytest.param(option, id=path) for cls in FILE_KEYS for path, option in options_within(cls.__name__, cls)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.kind}.{row.name}")
def test_every_component_that_ships_can_be_loaded(row: Any) -> None:
    """And says what it is."""
    assert row.error == ""
    assert row.cls is not None
    assert row.cls.__doc__
    assert row.cls.name == row.name


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_says_what_it_is(option: Option) -> None:
    """A sentence that starts like one and ends like one."""
    assert option.info.doc[0].isupper() or option.info.doc[0] in "`{"
    assert option.info.doc.endswith(".")
    assert words(shape_of(option.type))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_shows_how_it_is_written(option: Option) -> None:
    """By an example, or by a default that says more than nothing."""
    shows = option.info.example is not None or (not option.required and option.default not in (None, (), {}, [], ""))

    assert shows, f"{option.name} needs an example"


@pytest.mark.parametrize("option", [param for param in OPTIONS if param.values[0].info.example is not None])
def test_every_example_is_right(option: Option) -> None:
    """It would be taken as it stands; lists for guards may be one text."""
    source = text_source(flow(option.info.example), "example", Path.cwd())
    value = tree_of(option.info.example, source).plain
    if option in options_of(When) and isinstance(value, str):
        value = [value]

    strict_converter().structure(value, option.type)
