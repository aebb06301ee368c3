"""`sluiceway explain`: a component's options, one place of a configuration, or what a caller may do, in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..model.component import Component, ComponentKind
from ..model.registry import Registry, RegistryError, UnknownName
from .documents import Environment, Overlays, load_or_fail, overlays_of
from .exits import Failure, usage
from .output import Format, emit, emit_json
from .plugins import Plugins, registry_with
from .why import Ask, Question, answers, health

if TYPE_CHECKING:
    from ..model.document import Document

EVERYTHING = "."
"""The path that stands for the whole configuration."""


def explain(
    what: str = EVERYTHING,
    file: Path | None = None,
    /,
    *,
    tape: Path | None = None,
    replay: bool = False,
    live: bool = False,
    admin: str | None = None,
    format: Format = "text",  # the option's name
    plugin: Plugins = None,
    env: Environment = None,
    overlay: Overlays = None,
    question: Ask = None,
) -> None:
    """
    Explain a component, one place of a configuration, one exchange, or why a caller may do something, or may not.

    Without a file, what is explained is a component: its options, their defaults, and its rules of order. With one, it
    is a place in it: every option in force, and which of them are defaults. Secrets are shown by their origin. With
    --tool, --prompt, --resource or --method it is what the stages there say to a caller, rule by rule. With --tape or
    --live it is an exchange: what each stage decided, by which line, what sinks were asked, and what they said.

    Args:
        what: A component's name such as retry or sink.stdio; with a file, a path such as pipelines.main.chain[0],
            or . for everything; the number, correlation id or trace id of an exchange.
        file: The configuration; that of the tape, if it has one, when absent.
        tape: The tape that the exchange is on.
        replay: Play the tape, to learn how long each stage took, if it was not recorded with `stages`.
        live: Ask the running gateway: for the exchange, or how the upstreams are that a caller would reach.
        admin: Address of its admin listener, host:port or unix:path, instead of the configured one.
        format: `text` or `json`, of an exchange or an answer to a caller.
        plugin: A module or a ./file.py with components; may be given several times.
        env: Use the overlay of this environment, `<file>.<env>.yaml`.
        overlay: A file laid over the configuration; may be given several times.
        question: Who asks for what.
    """
    if question is not None:
        _ask(question, what, file, overlay, env, format, admin, live=live)
        return
    if tape is not None and live:
        raise usage("an exchange is on a tape or in a running gateway; give --tape or --live")
    if tape is not None:
        from .account import explain_taped

        overlays = [] if file is None else overlays_of(file, env, overlay)
        explain_taped(what, tape, file, overlays, format, again=replay)
        return
    if live:
        from .account import explain_live

        overlays = [] if file is None else overlays_of(file, env, overlay)
        explain_live(what, file, admin, overlays, format)
        return
    if what == EVERYTHING and file is None:
        raise usage("say what: a component, or a place and its FILE, or an exchange and its --tape")
    if file is not None:
        emit(_place(load_or_fail(file, overlays_of(file, env, overlay)), what))
        return
    from ..config.describe import describe

    emit("\n".join(describe(cls) for cls in _components(registry_with(plugin), what)))


def _ask(
    question: Question,
    what: str,
    file: Path | None,
    overlay: Overlays,
    env: str | None,
    format_: Format,
    admin: str | None,
    *,
    live: bool,
) -> None:
    if file is None and what != EVERYTHING and Path(what).is_file():
        what, file = EVERYTHING, Path(what)
    if file is None:
        raise usage("to ask what a caller may do, name the file: sluiceway explain FILE --tool NAME")
    asked = question.asked()
    found = [*answers(load_or_fail(file, overlays_of(file, env, overlay)), what, asked)]
    if live:
        found += health(file, admin)
    if format_ == "json":
        emit_json({"question": asked, "answers": [each.as_json() for each in found]})
    else:
        emit("\n".join(str(each) for each in found))


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
