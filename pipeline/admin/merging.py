"""
What several workers say of themselves, as one gateway. Pure.

Counts add up. What workers agree on stands once; where they differ, each is shown by its number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ..model.component import State
from ..model.figures import Figure
from ..protocol.messages import Json
from ..telemetry.metrics import Snapshot, merge

_WORST: Final = (State.FAILED, State.STOPPED, State.STARTING, State.STOPPING, State.DEGRADED, State.READY)
"""Of the states that a component has in several workers, the first of these is shown."""

Answers = Mapping[str, Any]
"""What each worker answered, by its number as text."""


def merge_components(answers: Answers) -> list[dict[str, Json]]:
    """The rows of `components` of several statuses, as one list."""
    rows: dict[str, dict[str, Any]] = {}
    for worker, status in answers.items():
        for row in status["components"]:
            rows.setdefault(row["id"], {})[worker] = row
    return [merge_component(each) for each in rows.values()]


def merge_component(rows: Answers) -> dict[str, Json]:
    """One component's row: the worst state, and whose it is if not everybody's; details added up."""
    first = next(iter(rows.values()))
    worst = min((State(row["state"]) for row in rows.values()), key=_WORST.index)
    those = {worker: row for worker, row in rows.items() if row["state"] == worst}
    reasons = {row["reason"] for row in those.values()}
    alike = len(those) == len(rows) and len(reasons) == 1
    reason = next(iter(reasons)) if alike else "; ".join(f"worker {k}: {row['reason']}" for k, row in those.items())
    merged = {**first, "state": worst.value, "reason": reason}
    details = {worker: row["details"] for worker, row in rows.items() if "details" in row}
    if details:
        merged["details"] = _added(details)
    return merged


def merge_pipelines(answers: Answers) -> list[dict[str, Json]]:
    """The rows of `pipelines`, added up."""
    rows: dict[str, dict[str, Any]] = {}
    for worker, status in answers.items():
        for row in status["pipelines"]:
            rows.setdefault(row["id"], {})[worker] = row
    return [{**_added(each), "id": pipeline, "average_ms": _average(each)} for pipeline, each in rows.items()]


def _average(rows: Answers) -> float:
    """What an exchange took on average, in whichever worker."""
    ended = {worker: row["served"] + row["refused"] + row["cancelled"] for worker, row in rows.items()}
    total = sum(ended.values())
    return round(sum(row["average_ms"] * ended[worker] for worker, row in rows.items()) / total, 3) if total else 0.0


def merge_lists(answers: Answers, key: str) -> list[dict[str, Json]]:
    """Rows that are each worker's own, with its number."""
    return [{**row, "worker": worker} for worker, answer in answers.items() for row in answer[key]]


def merge_rules(reports: Iterable[Sequence[Mapping[str, Any]]]) -> list[dict[str, Json]]:
    """Rules of alerts: everybody has the same ones; those that fire are added up, of groups the most count."""
    merged: dict[str, dict[str, Any]] = {}
    for rule in (rule for report in reports for rule in report):
        known = merged.setdefault(rule["rule"], {**rule, "groups": 0, "firing": 0})
        known["groups"] = max(known["groups"], rule["groups"])
        known["firing"] += rule["firing"]
    return list(merged.values())


def merge_figures(answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Json]:
    """The plain figures of one component, by name and labels."""
    snapshots: list[Snapshot] = [
        tuple(Figure(each["name"], each["value"], "counter", "", each["labels"]) for each in figures)
        for figures in answers.values()
    ]
    merged = (each for each in merge(snapshots) if isinstance(each, Figure))
    return [{"name": each.name, "value": each.value, "labels": dict(each.labels)} for each in merged]


def merge_results(answers: Answers) -> Json:
    """What an action came to: one result where all are alike, else each worker's by its number."""
    results = list(answers.values())
    if all(each == results[0] for each in results):
        return results[0]
    return dict(answers)


def _added(values: Answers) -> Any:
    """Numbers added up, mappings key by key; equal things once, others by the number of their worker."""
    found = list(values.values())
    if all(isinstance(each, int | float) and not isinstance(each, bool) for each in found):
        return sum(found)
    if all(isinstance(each, Mapping) for each in found):
        return {key: _added({k: each[key] for k, each in values.items() if key in each}) for key in _keys(found)}
    return found[0] if all(each == found[0] for each in found) else dict(values)


def _keys(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))
