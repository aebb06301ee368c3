"""One exchange of a running gateway, from the spans that its `trace` stages keep. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..model.document import Document, StageSpec
from .account import Account, Place, Step, rule_place
from .entries import DecisionData

Span = Mapping[str, Any]
"""As `/-/traces` shows it."""


def spans_of(spans: Sequence[Span], what: str) -> list[Span]:
    """Those of the exchange with a correlation id or trace id, oldest first; of several in a trace, of the latest."""
    roots = [
        each
        for each in spans
        if each["kind"] == "server" and what in (each["trace_id"], each["attributes"].get("request_id"))
    ]
    if not roots:
        return []
    root = max(roots, key=lambda each: each["start_ns"])
    ids, found = {root["span_id"]}, [root]
    for each in sorted(spans, key=lambda span: span["start_ns"]):
        if each["trace_id"] == root["trace_id"] and each["parent_id"] in ids:
            ids.add(each["span_id"])
            found.append(each)
    return found


def account_of_spans(spans: Sequence[Span], document: Document | None, place: Place) -> Account:
    """
    An exchange explained.

    Args:
        spans: Of `spans_of`; there is one at least.
        document: The gateway's configuration, for lines.
        place: Finds them.
    """
    root, *inner = spans
    facts = root["attributes"]
    stages = {} if document is None else dict(_stages(document))
    decided = [_decision(each) for each in facts.get("sluiceway.decisions", ())]
    tenant = facts.get("sluiceway.tenant")
    caller = str(facts.get("mcp.principal", ""))
    return Account(
        title=root["name"],
        correlation=str(facts.get("request_id", "")),
        trace=root["trace_id"],
        caller=f"{caller} of {tenant}" if tenant else caller,
        source=str(facts.get("sluiceway.source", "")),
        took_s=root["duration_ms"] / 1000,
        clock="real",
        steps=tuple(_steps(root, inner, decided, stages, document, place)),
        end=_outcome(root),
    )


def _steps(
    root: Span,
    inner: Sequence[Span],
    decided: Sequence[DecisionData],
    stages: Mapping[str, StageSpec],
    document: Document | None,
    place: Place,
) -> Iterator[Step]:
    told = set()
    for span in inner:
        facts = span["attributes"]
        at, took = (span["start_ns"] - root["start_ns"]) / 1e9, span["duration_ms"] / 1000
        sink, stage = facts.get("sluiceway.sink"), facts.get("sluiceway.stage")
        if stage is not None:
            told.add(stage)
            yield _stage(stage, [each for each in decided if each.stage == stage], stages, place, at, took)
        elif sink is not None:
            spec = None if document is None else document.sinks.get(sink)
            yield Step(
                kind="call",
                id=f"sinks.{sink}",
                note=f"attempt {facts.get('sluiceway.attempt', 1)}: {_outcome(span)}",
                at_s=at,
                took_s=took,
                place="" if spec is None else spec.place,
            )
    for name in dict.fromkeys(each.stage for each in decided):
        if name not in told:
            yield _stage(name, [each for each in decided if each.stage == name], stages, place, None, None)


def _stage(
    name: str,
    decided: Sequence[DecisionData],
    stages: Mapping[str, StageSpec],
    place: Place,
    at: float | None,
    took: float | None,
) -> Step:
    spec = stages.get(name)
    return Step(
        kind="stage",
        id=name,
        decisions=tuple(f"{each.outcome}: {each.cause}" if each.cause else each.outcome for each in decided),
        note="" if decided else "decided nothing",
        at_s=at,
        took_s=took,
        place="" if spec is None else spec.place,
        rule="" if spec is None else rule_place(spec, decided, place),
    )


def _stages(document: Document) -> Iterator[tuple[str, StageSpec]]:
    for kind, owners in (("pipelines", document.pipelines), ("sinks", document.sinks)):
        for owner in owners.values():
            yield from ((f"{kind}.{owner.id}.{stage.id}", stage) for stage in owner.chain)


def _decision(text: str) -> DecisionData:
    """`pipelines.main.cache: hit`, as a root span has it."""
    stage, _, rest = text.partition(": ")
    outcome, _, cause = rest.partition(" ")
    return DecisionData(stage, outcome, cause)


def _outcome(span: Span) -> str:
    facts = span["attributes"]
    outcome = str(facts.get("sluiceway.outcome", span["status"]))
    error, description = facts.get("error.type"), span.get("description")
    return outcome + (f" ({error})" if error else "") + (f": {description}" if description else "")
