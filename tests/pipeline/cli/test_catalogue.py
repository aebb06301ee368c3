"""`list`: what is installed."""

import json

import pytest

from sluiceway.pipeline.model.component import ComponentKind
from sluiceway.pipeline.model.registry import BUILT_IN, Row


def test_every_built_in_component_is_listed_and_works(sluiceway):
    """No row has an error."""
    rows = json.loads(sluiceway("list", "--format", "json").out)

    assert {(kind, name) for kind, names in BUILT_IN.items() for name in names} <= {
        (row["kind"], row["name"]) for row in rows
    }
    assert [] == [row for row in rows if row["error"]]
    assert all(row["summary"] for row in rows)


@pytest.mark.parametrize("kind", list(ComponentKind))
def test_one_kind_can_be_listed(sluiceway, kind):
    """With a heading, one line each."""
    outcome = sluiceway("list", kind)
    heading, *lines = outcome.out.splitlines()

    assert heading.split()[:3] == ["kind", "name", "provider"]
    assert {kind} == {line.split()[0] for line in lines}


def test_a_broken_component_is_a_row_not_a_crash(sluiceway, monkeypatch):
    """What is wrong stands where its description would."""
    broken = Row(ComponentKind.SINK, "grpc", "some-dist 1.0", None, "sink 'grpc' cannot be imported")
    monkeypatch.setattr("sluiceway.pipeline.model.registry.Registry.rows", lambda _self, _kind: iter([broken]))

    assert "sink  grpc  some-dist 1.0  sink 'grpc' cannot be imported" in sluiceway("list").out
    (row,) = json.loads(sluiceway("list", "--format", "json").out)
    assert ("", "sink 'grpc' cannot be imported") == (row["summary"], row["error"])
