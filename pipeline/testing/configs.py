"""Options of a component for the test kit: as an instance, or written as in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config.nodes import tree_of
from ..config.problems import ConfigError, Problem, SourceText
from ..config.structure import Structurer
from ..model.component import Component


def make_config(cls: type[Component], config: Any) -> Any:
    """
    An instance of `cls.Config`.

    Args:
        cls: The component's class.
        config: An instance already; a mapping with values as in YAML (`{"rate": "60/min"}`); None for the defaults.

    Raises:
        ConfigError: The mapping does not fit the options.
    """
    if config is not None and not isinstance(config, Mapping):
        return config
    problems: list[Problem] = []
    tree = tree_of(dict(config or {}), SourceText(cls.name or cls.__name__, Path.cwd()))
    made = Structurer(problems).structure(tree, cls.Config)
    if made is None:
        raise ConfigError(problems)
    return made
