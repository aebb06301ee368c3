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
    return make_group(cls.Config, config or {}, cls.name or cls.__name__)


def make_group(cls: type, options: Mapping[str, Any], name: str = "") -> Any:
    """
    An instance of a class of options, of values as in YAML.

    Args:
        cls: The class.
        options: The values.
        name: What messages call it; the class's name if empty.

    Raises:
        ConfigError: They do not fit.
    """
    problems: list[Problem] = []
    tree = tree_of(dict(options), SourceText(name or cls.__name__, Path.cwd()))
    made = Structurer(problems).structure(tree, cls)
    if made is None:
        raise ConfigError(problems)
    return made
