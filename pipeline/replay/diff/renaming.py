"""Which components are the same under another id."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ...model.document import Document, PipelineSpec, SinkSpec, SourceSpec, Spec, StageSpec
from .plain import Side, Sides, in_force

_SECTIONS: Final = (("store", "stores"), ("sink", "sinks"), ("pipeline", "pipelines"), ("source", "sources"))
"""In the order in which they name one another: what is named comes first."""

_ROUNDS: Final = 8
"""Sinks that send to sinks that send to sinks: so deep are renames followed."""


def sides_of(old: Document, new: Document) -> Sides:
    """The two sides, with what is called otherwise: it exists in only one of both, and there is one like it."""
    found: dict[str, dict[str, str]] = {kind: {} for kind, _ in _SECTIONS}
    for kind, section in _SECTIONS:
        was, now = getattr(old, section), getattr(new, section)
        for _ in range(_ROUNDS):
            sides = Sides(Side(_base(old), found), Side(_base(new)))
            gone = {id_: spec for id_, spec in was.items() if id_ not in now and id_ not in found[kind]}
            come = {id_: spec for id_, spec in now.items() if id_ not in was and id_ not in found[kind].values()}
            more = _alike(gone, come, sides)
            if not more:
                break
            found[kind].update(more)
    return Sides(Side(_base(old), found), Side(_base(new)))


def _alike(gone: Mapping[str, Any], come: Mapping[str, Any], sides: Sides) -> dict[str, str]:
    was = [(id_, _says(spec, sides.old)) for id_, spec in gone.items()]
    now = [(id_, _says(spec, sides.new)) for id_, spec in come.items()]
    found = {}
    for id_, said in was:
        twins = [other for other, theirs in now if theirs == said]
        if len(twins) == 1 and sum(said == theirs for _, theirs in was) == 1:
            found[id_] = twins[0]
    return found


def _says(spec: Spec | PipelineSpec, side: Side) -> Any:
    """All that makes it what it is, but its id."""
    match spec:
        case PipelineSpec():
            sink = side.renames.get("sink", {}).get(spec.sink, spec.sink)
            return sink, side.config(spec.limits), [_stage(each, side) for each in spec.chain if each.enabled]
        case SourceSpec():
            pipeline = side.renames.get("pipeline", {}).get(spec.pipeline, spec.pipeline)
            return _component(spec, side), pipeline
        case SinkSpec():
            chain = [_stage(each, side) for each in spec.chain if each.enabled]
            return _component(spec, side), chain, spec.max_in_flight, spec.required
        case _:
            return _component(spec, side)


def _stage(stage: StageSpec, side: Side) -> Any:
    return stage.id, stage.when, _component(stage, side)


def _component(spec: Spec, side: Side) -> Any:
    return spec.cls.name or spec.cls.__name__, side.config(in_force(spec))


def _base(document: Document) -> Path | None:
    return document.files[0].parent if document.files else None
