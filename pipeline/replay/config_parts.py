"""The parts of a configuration that can be left out of it, or made smaller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, final

from attrs import evolve, frozen

from ..config.references import sinks_in
from ..model.document import Document, PipelineSpec, SinkSpec, StageSpec


@final
@frozen
class Part:
    """Something in a document that has options."""

    kind: str
    """`pipelines` or `sinks`."""
    owner: str
    stage: str = ""
    """Empty for the pipeline itself, or the sink."""

    def config(self, document: Document) -> Any:
        """Its options."""
        owner = getattr(document, self.kind)[self.owner]
        if self.stage:
            return next(each for each in owner.chain if each.id == self.stage).config
        return owner.limits if isinstance(owner, PipelineSpec) else owner.config

    def put(self, document: Document, config: Any) -> Document:
        """The document with other options of it."""
        owner = getattr(document, self.kind)[self.owner]
        if self.stage:
            chain = tuple(evolve(each, config=config) if each.id == self.stage else each for each in owner.chain)
            owner = evolve(owner, chain=chain)
        else:
            owner = evolve(owner, **{"limits" if isinstance(owner, PipelineSpec) else "config": config})
        changed: dict[str, Any] = {self.kind: {**getattr(document, self.kind), self.owner: owner}}
        return evolve(document, **changed)


def parts_of(document: Document) -> Iterator[Part]:
    """Everything in it that has options."""
    for kind, owner in owners_of(document):
        yield Part(kind, owner.id)
        yield from (Part(kind, owner.id, stage.id) for stage in owner.chain)


def owners_of(document: Document) -> Iterator[tuple[str, PipelineSpec | SinkSpec]]:
    """Everything in it that has a chain, with the section it stands in."""
    yield from (("pipelines", each) for each in document.pipelines.values())
    yield from (("sinks", each) for each in document.sinks.values())


def with_chains(document: Document, keep: Callable[[str, str, str], bool]) -> Document:
    """The document with some stages only, chosen by section, id of their owner, and their own."""

    def chain(kind: str, owner: PipelineSpec | SinkSpec) -> tuple[StageSpec, ...]:
        return tuple(stage for stage in owner.chain if keep(kind, owner.id, stage.id))

    pipelines = {key: evolve(each, chain=chain("pipelines", each)) for key, each in document.pipelines.items()}
    sinks = {key: evolve(each, chain=chain("sinks", each)) for key, each in document.sinks.items()}
    return evolve(document, pipelines=pipelines, sinks=sinks)


def reachable(document: Document) -> Document:
    """The document without pipelines that no source feeds, and sinks that nothing sends to."""
    fed = {source.pipeline for source in document.sources.values()} or set(document.pipelines)
    pipelines = {key: each for key, each in document.pipelines.items() if key in fed}
    waiting = [each.sink for each in pipelines.values()]
    waiting += [name for each in pipelines.values() for stage in each.chain for name in _names(stage, document)]
    wanted: set[str] = set()
    while waiting:
        id_ = waiting.pop()
        if id_ not in wanted:
            wanted.add(id_)
            waiting += document.sinks[id_].sends_to
    return evolve(
        document, pipelines=pipelines, sinks={key: each for key, each in document.sinks.items() if key in wanted}
    )


def _names(stage: StageSpec, document: Document) -> Iterator[str]:
    return (id_ for id_ in sinks_in((stage,)) if id_ in document.sinks)


def config_text(document: Document) -> str:
    """All of a document that can get smaller, as text; equal for equal ones."""
    return repr([(kind, each) for kind, each in owners_of(document)])
