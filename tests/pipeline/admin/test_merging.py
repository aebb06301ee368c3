"""What several workers say, as one gateway."""

from __future__ import annotations

from typing import Any

import pytest

from sluiceway.pipeline.admin.merging import (
    merge_component,
    merge_components,
    merge_figures,
    merge_lists,
    merge_pipelines,
    merge_results,
    merge_rules,
)


def row(state: str, reason: str = "", **details: Any) -> dict[str, Any]:
    """A component as one worker shows it."""
    found: dict[str, Any] = {"id": "sinks.k", "kind": "sink", "state": state, "reason": reason, "required": True}
    return {**found, "details": details} if details else found


@pytest.mark.parametrize(
    ("rows", "state", "reason"),
    [
        ({"0": row("ready"), "1": row("ready")}, "ready", ""),
        ({"0": row("ready"), "1": row("degraded", "slow")}, "degraded", "worker 1: slow"),
        ({"0": row("failed", "gone"), "1": row("failed", "gone")}, "failed", "gone"),
        ({"0": row("failed", "gone"), "1": row("failed", "lost")}, "failed", "worker 0: gone; worker 1: lost"),
        ({"0": row("starting"), "1": row("degraded", "slow")}, "starting", "worker 0: "),
    ],
)
def test_the_worst_state_is_shown_and_whose_it_is(rows: dict[str, Any], state: str, reason: str) -> None:
    """A reason that is everybody's stands once."""
    merged = merge_component(rows)

    assert (merged["state"], merged["reason"]) == (state, reason)


def test_details_are_added_up_as_far_as_they_are_numbers() -> None:
    """Key by key; what is equal stands once, other things by the number of their worker."""
    rows = {
        "0": row("ready", calls=2, circuit="closed", pool={"idle": 1, "open": True}, only=5),
        "1": row("ready", calls=3, circuit="open", pool={"idle": 4, "open": True}),
    }

    assert merge_component(rows)["details"] == {
        "calls": 5, "circuit": {"0": "closed", "1": "open"}, "pool": {"idle": 5, "open": True}, "only": 5,
    }  # fmt: skip


def test_lists_of_rows_are_merged_by_id() -> None:
    """Components keep their order; pipelines are added up; alerts say whose they are."""
    other = {**row("ready"), "id": "sinks.l"}
    pipelines = [{"id": "main", "served": 1, "refused": 0, "cancelled": 0, "average_ms": 2.0}]
    more = [{"id": "main", "served": 2, "refused": 1, "cancelled": 0, "average_ms": 6.0}]
    one = {"components": [row("ready"), other], "pipelines": pipelines, "alerts": [{"rule": "r"}]}
    two = {"components": [row("failed", "x")], "pipelines": more, "alerts": []}

    assert [each["id"] for each in merge_components({"0": one, "1": two})] == ["sinks.k", "sinks.l"]
    merged = {"id": "main", "served": 3, "refused": 1, "cancelled": 0, "average_ms": 5.0}
    assert merge_pipelines({"0": one, "1": two}) == [merged]
    assert merge_lists({"0": one, "1": two}, "alerts") == [{"rule": "r", "worker": "0"}]


def test_figures_are_added_up_by_name_and_labels() -> None:
    """As metrics are."""
    one = [{"name": "a", "value": 1.0, "labels": {"x": "1"}}, {"name": "a", "value": 5.0, "labels": {}}]
    two = [{"name": "a", "value": 2.0, "labels": {"x": "1"}}]

    assert merge_figures({"0": one, "1": two}) == [
        {"name": "a", "value": 3.0, "labels": {"x": "1"}},
        {"name": "a", "value": 5.0, "labels": {}},
    ]


def test_results_of_an_action_stand_once_if_all_are_alike() -> None:
    """Else by worker."""
    assert merge_results({"0": {"cleared": 1}, "1": {"cleared": 1}}) == {"cleared": 1}
    assert merge_results({"0": 1, "1": 2}) == {"0": 1, "1": 2}


def test_rules_of_alerts_are_the_same_for_all() -> None:
    """Those that fire are added up; of groups count those of whoever finds most."""

    def rule(name: str, groups: int, firing: int) -> dict[str, Any]:
        return {"rule": name, "groups": groups, "firing": firing}

    merged = merge_rules([[rule("a", 0, 0), rule("b", 1, 1)], [rule("a", 2, 1), rule("b", 0, 0)], [rule("a", 1, 1)]])

    assert merged == [rule("a", 2, 2), rule("b", 1, 1)]
    assert merge_rules([]) == []
