"""
Options that name other components: they must exist, sinks must not go round in circles, and what nobody names is said.

An option refers to something if its declaration says so (`option(refers=...)`), or to a store if it is text named
`store` or ending in `_store`. Its value is an id, a list of ids, or a mapping whose keys are ids.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from attrs import define, evolve, field, frozen

from ..model.document import Document, Spec
from ..model.options import Refers
from ..model.when import matcher
from .components import Components
from .declarations import Group, Option, options_of, walk
from .nodes import Path, key_of, place_of
from .problems import Span, has_errors, unknown

SECTIONS: Final[Mapping[Refers, str]] = {
    "sink": "sinks", "store": "stores", "pipeline": "pipelines", "source": "sources",
}  # fmt: skip
"""Section that holds what an option can refer to."""


@frozen
class Reference:
    """One id in an option."""

    kind: Refers
    id: str
    owner: Spec
    path: Path
    """Path of the option in its component's options."""
    is_key: bool = False
    """The id is a key of a mapping."""


def references_of(spec: Spec) -> Iterator[Reference]:
    """Every reference in the options of one component."""
    for option, value, path in walk(Group(spec.cls.Config), spec.config):
        kind = _refers(option, value)
        if kind is None or value is None:
            continue
        if isinstance(value, str):
            yield Reference(kind, value, spec, path)
        elif isinstance(value, Mapping):
            yield from (Reference(kind, key, spec, (*path, key), is_key=True) for key in value)
        else:
            yield from (Reference(kind, item, spec, (*path, index)) for index, item in enumerate(value))


def _refers(option: Option, value: Any) -> Refers | None:
    if option.info.refers is not None:
        return option.info.refers
    named = option.name == "store" or option.name.endswith("_store")
    return "store" if named and isinstance(value, str) else None


def expand_globs(config: Any, ids: Iterable[str]) -> Any:
    """
    Options with the ids of sinks in place of the globs that match them, where an option refers to sinks by name.

    What is named by itself keeps its place and its settings. A glob that matches nothing stays, and is unknown.
    """
    known = list(ids)
    cls: type = type(config)
    for option in options_of(cls):
        value = getattr(config, option.name)
        if option.info.refers != "sink" or isinstance(value, str) or not any("*" in id_ for id_ in value or ()):
            continue
        settings = value if isinstance(value, Mapping) else dict.fromkeys(value)
        found: dict[str, Any] = {}
        for id_, each in settings.items():
            matches = matcher((id_,))
            meant = [other for other in known if matches(other)] if "*" in id_ else []
            for one in meant or (id_,):
                if one == id_ or one not in settings:
                    found.setdefault(one, each)
        config = evolve(config, **{option.name: found if isinstance(value, Mapping) else tuple(found)})
    return config


def components_of(document: Document) -> Iterator[Spec]:
    """Every component of a document, stages included."""
    yield from document.stores.values()
    for sink in document.sinks.values():
        yield sink
        yield from sink.chain
    for pipeline in document.pipelines.values():
        yield from pipeline.chain
    yield from document.sources.values()


def sinks_in(specs: Iterable[Spec]) -> tuple[str, ...]:
    """The sinks that the options of some components name, in order, each once."""
    return tuple(dict.fromkeys(r.id for spec in specs for r in references_of(spec) if r.kind == "sink"))


def sink_targets(document: Document) -> dict[str, list[str]]:
    """Which sinks each sink sends to by itself or by its chain, by id."""
    return {sink.id: list(sinks_in((sink, *sink.chain))) for sink in document.sinks.values()}


@define(eq=False)
class References:
    """Checks the references of one document."""

    document: Document
    components: Components
    declared: Mapping[str, Collection[str]]
    """Ids of each section as written, broken ones included: those are not reported again."""
    root: Span
    """Place of the file as a whole."""
    used: set[tuple[str, str]] = field(factory=set)

    def check(self) -> None:
        """Report what is wrong, and note what is unused."""
        for spec in components_of(self.document):
            for reference in references_of(spec):
                self.one(reference)
        self.cycles()
        if not has_errors(self.components.problems):
            self.unused()

    def span(self, reference: Reference) -> Span:
        """Where a reference is written."""
        node = self.components.nodes[reference.owner.path]
        return (key_of if reference.is_key else place_of)(node, reference.path)

    def one(self, reference: Reference) -> None:
        """Check one reference, and note that what it names is used."""
        section = SECTIONS[reference.kind]
        self.used.add((section, reference.id))
        known = self.declared[section]
        if reference.id not in known:
            message = unknown(reference.kind, reference.id, known, listed="declared")
            fix = "" if known else f"declare it under {section}:"
            self.components.report("reference/unknown", message, self.span(reference), fix=fix)

    def cycles(self) -> None:
        """Report each circle of sinks once, at the reference that closes it."""
        finished: set[str] = set()
        for start in self.document.sinks:
            if start in finished:
                continue
            way = [start]
            ahead = [self.onward(start)]
            while way:
                reference = next(ahead[-1], None)
                if reference is None:
                    ahead.pop()
                    finished.add(way.pop())
                elif reference.id in way:
                    circle = " -> ".join([*way[way.index(reference.id) :], reference.id])
                    message = f"sinks go round in a circle: {circle}"
                    self.components.report("reference/cycle", message, self.span(reference))
                elif reference.id in self.document.sinks and reference.id not in finished:
                    way.append(reference.id)
                    ahead.append(self.onward(reference.id))

    def onward(self, id_: str) -> Iterator[Reference]:
        """The references of a sink and its chain to other sinks."""
        sink = self.document.sinks[id_]
        return (r for spec in (sink, *sink.chain) for r in references_of(spec) if r.kind == "sink")

    def unused(self) -> None:
        """Note declared things that nothing names, and a gateway that nothing can reach."""
        if not self.document.sources:
            message = "no sources: nothing reaches the gateway unless it is started with run --stdio"
            self.components.report("config/no-source", message, self.root, level="info")
        self.used |= {("sinks", pipeline.sink) for pipeline in self.document.pipelines.values()}
        self.used |= {("pipelines", source.pipeline) for source in self.document.sources.values()}
        for section in ("stores", "pipelines", "sinks"):
            if section == "pipelines" and not self.document.sources:
                continue
            for id_ in self.declared[section]:
                if (section, id_) not in self.used:
                    path = f"{section}.{id_}"
                    message = f"{path} is not used by anything"
                    self.components.report("config/unused", message, self.components.spans[path], level="info")
