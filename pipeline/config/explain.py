"""
One place of a configuration in words: what stands there, every option in force, and why.

Secrets are shown by their origin, never by their value; nothing is resolved here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..model.document import Document, Limits, PipelineSpec, Run, SinkSpec, SourceSpec, Spec, StageSpec
from ..model.when import When
from .declarations import flow, options_of, to_data
from .describe import order_rules
from .problems import closest
from .references import components_of
from .schema import summary_of


def explain(document: Document, path: str) -> str:
    """
    What stands at a path of a configuration: `pipelines.main`, `pipelines.main.chain[2]`, `sinks.files`, `run`.

    The last part of a stage's path may be its id: `pipelines.main.chain.retry`. Ends in a newline.

    Raises:
        LookupError: Nothing stands there; the text says what does.
    """
    if path == "run":
        return "\n".join(["run", "", *_options(Run, document.run)]) + "\n"
    for pipeline in document.pipelines.values():
        if pipeline.path == path:
            return "\n".join(_pipeline(pipeline)) + "\n"
    for spec in components_of(document):
        if path in (spec.path, _by_id(spec)):
            return "\n".join(_component(spec, document)) + "\n"
    known = [*paths(document)]
    guess = closest(path, known)
    raise LookupError(
        f"nothing at {path!r}; " + (f"did you mean {guess!r}?" if guess else f"try {', '.join(known[:20])}")
    )


def paths(document: Document) -> Iterator[str]:
    """Every path that can be explained, in the order of the document."""
    yield "run"
    yield from (pipeline.path for pipeline in document.pipelines.values())
    yield from (spec.path for spec in components_of(document))


def _by_id(spec: Spec) -> str:
    return f"{spec.path.rpartition('[')[0]}.{spec.id}" if isinstance(spec, StageSpec) else spec.path


def _pipeline(pipeline: PipelineSpec) -> Iterator[str]:
    yield _title(pipeline.path, "pipeline", pipeline.place)
    yield ""
    yield from _way(pipeline.chain, pipeline.sink)
    yield ""
    yield from _options(Limits, pipeline.limits)


def _component(spec: Spec, document: Document) -> Iterator[str]:
    yield _title(spec.path, f"{spec.cls.kind} {spec.cls.name or spec.cls.__name__!r}, id {spec.id!r}", spec.place)
    if summary := summary_of(spec.cls):
        yield f"  {summary}"
    yield ""
    yield from _options(spec.cls.Config, spec.config)
    match spec:
        case StageSpec():
            yield from _guard(spec)
        case SourceSpec():
            yield f"  feeds: pipelines.{spec.pipeline}"
        case SinkSpec():
            yield f"  max_in_flight: {spec.max_in_flight if spec.max_in_flight is not None else 'unbounded'}"
            yield f"  required: {flow(spec.required)}"
            yield from _way(spec.chain, spec.id)
    if remarks := list(spec.cls.remarks(spec.config)):
        yield ""
        yield from (f"  {remark}" for remark in remarks)
    if rules := list(order_rules(spec.cls)):
        yield ""
        yield "  order:"
        yield from (f"    {rule}" for rule in rules)


def _title(path: str, what: str, place: str) -> str:
    return f"{path}: {what}" + (f", at {place}" if place else "")


def _guard(stage: StageSpec) -> Iterator[str]:
    if stage.when is not None:
        given = {o.name: v for o in options_of(When) if (v := getattr(stage.when, o.name))}
        yield f"  when: {flow({name: list(patterns) for name, patterns in given.items()})}"
    if not stage.enabled:
        yield "  enabled: false (it is checked, but not in the chain)"


def _way(chain: tuple[StageSpec, ...], sink: str) -> Iterator[str]:
    yield "  an exchange passes:"
    for stage in chain:
        off = "" if stage.enabled else " (off)"
        guard = " (guarded by when)" if stage.when is not None else ""
        yield f"    {stage.id}{off}{guard}"
    yield f"    sink {sink}"


def _options(cls: type, config: Any) -> Iterator[str]:
    """Every option in force; those left at their default say so."""
    options = options_of(cls)
    for option in options:
        value = getattr(config, option.name)
        mark = "  (default)" if not option.required and value == option.default else ""
        yield f"  {option.name}: {flow(to_data(value, option.shape))}{mark}"
    if not options:
        yield "  no options"
