"""Plugins named on the command line, for verbs that look at components without a configuration."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..model.registry import Registry, RegistryError
from .exits import Failure

Plugins = list[str] | None
"""`--plugin MODULE` or `--plugin ./file.py`, which may be given several times."""


def registry_with(plugins: Iterable[str] | None) -> Registry:
    """
    A registry that also knows the components of some plugins; files are relative to the working directory.

    Raises:
        Failure: One cannot be imported.
    """
    registry = Registry()
    try:
        for reference in plugins or ():
            registry.load_plugin(reference, Path.cwd())
    except RegistryError as error:
        raise Failure(str(error)) from error
    return registry
