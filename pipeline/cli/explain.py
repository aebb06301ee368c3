"""`sluiceway explain`: a component's options, one place of a configuration, or what a caller may do, in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..model.component import Component, ComponentKind
from ..model.registry import Registry, RegistryError, UnknownName
from .documents import Environment, Overlays, load_or_fail, overlays_of
from .exits import Failure, usage
from .output import emit
from .plugins import Plugins, registry_with
from .why import Ask, answers

if TYPE_CHECKING:
    from ..model.document import Document

EVERYTHING = "."
"""The path that stands for the whole configuration."""


def explain(
    what: str,
    file: Path | None = None,
    /,
    *,
    plugin: Plugins = None,
    env: Environment = None,
    overlay: Overlays = None,
    question: Ask = None,
) -> None:
    """
    Explain a component, one place of a configuration, or why a caller may do something, or may not.

    Without a file, what is explained is a component: its options, their defaults, and its rules of order. With one, it
    is a place in it: every option in force, and which of them are defaults. Secrets are shown by their origin. With
    --tool, --prompt, --resource or --method it is what the stages there say to a caller, rule by rule.

    Args:
        what: A component's name such as retry or sink.stdio; with a file, a path such as pipelines.main.chain[0],
            or . for everything.
        file: The configuration.
        plugin: A module or a ./file.py with components; may be given several times.
        env: Use the overlay of this environment, `<file>.<env>.yaml`.
        overlay: A file laid over the configuration; may be given several times.
        question: Who asks for what.
    """
    if question is not None:
        if file is None:
            raise usage("to ask what a caller may do, name the file: sluiceway explain . FILE --tool NAME")
        asked = question.asked()
        emit("\n".join(answers(load_or_fail(file, overlays_of(file, env, overlay)), what, asked)))
        return
    if file is not None:
        emit(_place(load_or_fail(file, overlays_of(file, env, overlay)), what))
        return
    from ..config.describe import describe

    emit("\n".join(describe(cls) for cls in _components(registry_with(plugin), what)))


def _place(document: Document, path: str) -> str:
    from ..config.explain import explain as explain_place
    from ..config.explain import paths

    try:
        if path == EVERYTHING:
            return "\n".join(explain_place(document, each) for each in paths(document))
        return explain_place(document, path)
    except LookupError as error:
        raise Failure(str(error.args[0])) from error


def _components(registry: Registry, what: str) -> list[type[Component]]:
    """
    Everything that has a name: a source and a sink may share one.

    Raises:
        Failure: Nothing has it, or it cannot be loaded.
    """
    kind, dot, name = what.partition(".")
    kinds = [ComponentKind(kind)] if dot and kind in ComponentKind.__members__.values() else list(ComponentKind)
    found, broken = [], []
    for each in kinds:
        try:
            found.append(registry.find(each, name if len(kinds) == 1 else what))
        except UnknownName:
            continue
        except RegistryError as error:
            broken.append(str(error))
    if not found:
        raise Failure(broken[0] if broken else _unknown(registry, what))
    return found


def _unknown(registry: Registry, what: str) -> str:
    if "[" in what or what.count(".") > 1:
        raise usage(f"to explain a place of a configuration, name the file: sluiceway explain '{what}' FILE")
    from ..config.problems import unknown

    names: Iterator[str] = (name for kind in ComponentKind for name in registry.names(kind))
    return unknown("component", what, dict.fromkeys(names), listed="installed")
