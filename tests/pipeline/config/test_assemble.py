"""Sections to specs: what is left out was reported, and everything else is still looked at."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sluiceway.pipeline.config import Checked
from sluiceway.pipeline.config.chains import MAX_STAGES
from sluiceway.pipeline.model.document import Run

CheckIt = Callable[..., Checked]


def rules(checked: Checked) -> list[str]:
    """What was found, notes left out."""
    return [p.rule for p in checked.problems if p.level != "info"]


GOOD = {
    "version": "1",
    "sources": "{s: {quiet_toy: {}}}",
    "stores": "{m: {memory_toy: {}}}",
    "pipelines": "{main: {}}",
    "sinks": "{out: {echo_toy: {}}}",
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"sources": "", "stores": "~", "run": "{}"}, []),
        ({"run": ""}, []),
        ({"sources": "[]"}, ["config/type"]),
        ({"sources": "5"}, ["config/type"]),
        ({"stores": "{m: 5}"}, ["config/type"]),
        ({"stores": "{m: }"}, ["config/type"]),
        ({"stores": "{m: {}}"}, ["config/transport"]),
        ({"stores": "{m: '${GONE}'}"}, ["env/missing"]),
        ({"stores": "{m: {memory_toy: {max_entries: 0}}}"}, ["config/bounds"]),
        ({"sinks": "{out: {echo_toy: {}, max_in_flight: 0}}"}, ["config/bounds"]),
        ({"sinks": "{out: {echo_toy: {}, chain: '${GONE}'}}"}, ["env/missing"]),
        ({"sinks": "{out: {echo_toy: {}, chain: }}"}, []),
        ({"sources": "{s: {quiet_toy: {}, pipeline: 5}}"}, ["config/type"]),
        ({"sources": "{s: {quiet_toy: {}, pipeline: '${GONE}'}}"}, ["env/missing"]),
        ({"pipelines": "{main: {sink: 5}}"}, ["config/type"]),
        ({"pipelines": "{main: {timeout: 5, sink: gone}}"}, ["config/unit", "reference/unknown"]),
        ({"pipelines": "{main: {chain: auth_toy}}"}, ["config/type"]),
        ({"pipelines": "{main: {chain: ['${GONE}', [auth_toy]]}}"}, ["env/missing", "config/stage"]),
        ({"pipelines": "{main: {chain: [auth_toy: {id: 5}]}}"}, ["config/type"]),
        ({"pipelines": "{main: {chain: [auth_toy: 5]}}"}, ["config/type"]),
        ({"run": "5"}, ["config/type"]),
        ({"plugins": "./x.py"}, ["config/type"]),
        ({"plugins": "[5, '${GONE}']"}, ["config/type", "env/missing"]),
        ({"version": "'1'"}, ["config/version"]),
        ({"version": "true"}, ["config/version"]),
        ({"version": "1.0"}, ["config/version"]),
    ],
)
def test_each_mistake_is_one_problem(check_it: CheckIt, change: dict[str, str], expected: list[str]) -> None:
    """Nothing is reported twice, nothing that follows from it."""
    text = "".join(f"{key}: {value}\n" for key, value in (GOOD | change).items())
    checked = check_it(text)

    assert expected == rules(checked)
    assert (checked.document is None) == bool(expected)


def test_a_file_without_run_has_its_defaults(check_it: CheckIt) -> None:
    """Nothing needs to be said."""
    text = "".join(f"{key}: {value}\n" for key, value in GOOD.items())

    assert Run() == check_it(text).require().run


def test_a_chain_has_a_bound(check_it: CheckIt) -> None:
    """At the bound it is fine."""
    for more, expected in ((0, []), (1, ["config/size"])):
        chain = ", ".join(["retry_toy"] * (MAX_STAGES + more))
        text = "".join(f"{k}: {v}\n" for k, v in (GOOD | {"pipelines": f"{{main: {{chain: [{chain}]}}}}"}).items())

        checked = check_it(text)

        assert expected == rules(checked)
        sentences = [problem.message for problem in checked.problems if problem.rule == "config/size"]
        assert [f"{MAX_STAGES + 1} stages; a chain has at most {MAX_STAGES}"] * more == sentences


def test_ids_are_given_around_those_that_are_taken(toy_chain: CheckIt) -> None:
    """A stage that says its id keeps it, wherever it stands."""
    checked = toy_chain("[retry_toy, retry_toy, retry_toy: {id: retry_toy}, retry_toy: {id: retry_toy_3}, retry_toy]")

    assert ["retry_toy_2", "retry_toy_4", "retry_toy", "retry_toy_3", "retry_toy_5"] == [
        stage.id for stage in checked.require().pipelines["main"].chain
    ]


def test_names_nobody_knows_are_not_reported_while_a_plugin_is_missing(check_it: CheckIt) -> None:
    """They may be the plugin's."""
    changed = GOOD | {"plugins": "[./gone.py]", "pipelines": "{main: {chain: [its_stage, echo_toy]}}",
                      "sinks": "{out: {its_sink: {}}, two: {echo_toy: {}, its_key: 1}}"}  # fmt: skip
    text = "".join(f"{key}: {value}\n" for key, value in changed.items())

    assert ["component/plugin", "config/misplaced-key", "config/missing-key"] == sorted(rules(check_it(text)))
