"""`act`: telling a component of a running gateway what to do."""

from __future__ import annotations

import json

import pytest

from sluiceway.pipeline.cli.exits import Exit

CONFIG = "run:\n  admin: {{bind: '{address}', token: {{from_file: token}}}}\n"


@pytest.fixture
def asked(write, good, sluiceway, answering):
    """Runs `act` against a gateway that gives one answer; returns the outcome and what the gateway saw."""

    def ask(status, body, *words):
        with answering(status, json.dumps(body).encode()) as (address, seen):
            write("token", "s3cret\n")
            return sluiceway("act", write("a.yaml", good + CONFIG.format(address=address)), *words), seen

    return ask


def test_an_action_is_asked_for_and_its_result_shown(asked):
    """Names are quoted in the path."""
    outcome, seen = asked(200, {"result": {"gone": 3}}, "pipelines.main.cache", "a b/c", "key=1", "pattern=x*")

    assert (outcome.code, json.loads(outcome.out)) == (Exit.OK, {"gone": 3})
    assert seen == [("/-/components/pipelines.main.cache/a%20b%2Fc", "Bearer s3cret")]


def test_no_result_is_no_output(asked):
    """Programs see that there was none."""
    assert asked(200, {"result": None}, "c", "clear")[0].out == ""
    assert json.loads(asked(200, {"result": None}, "c", "clear", "--format", "json")[0].out) == {"result": None}


def test_the_actions_of_a_component_are_listed(asked):
    """With what each does; or that there is none."""
    outcome, seen = asked(200, {"actions": {"clear": "Forget it all."}}, "c")

    assert outcome.out.splitlines()[1].split() == ["c", "clear", "Forget", "it", "all."]
    assert seen == [("/-/components/c", "Bearer s3cret")]
    assert asked(200, {"actions": {}}, "c")[0].out == "c has no action\n"
    assert json.loads(asked(200, {"actions": {"x": "y"}}, "c", "--format", "json")[0].out) == {"c": {"x": "y"}}


def test_the_actions_of_all_components_are_listed(sluiceway, gateway):
    """Of a running gateway; the demo's has a few, or none."""
    outcome = sluiceway("act", gateway.config)

    assert (outcome.code, outcome.err) == (Exit.OK, "")
    assert outcome.out != ""


def test_what_the_gateway_refuses_is_said(asked):
    """With its words."""
    outcome, _ = asked(404, {"error": "no component 'c'"}, "c", "clear")

    assert outcome.code == Exit.FOUND
    assert "HTTP 404" in outcome.err
    assert "no component 'c'" in outcome.err


@pytest.mark.parametrize("word", ["nothing", "=1"])
def test_an_argument_has_a_name_and_a_value(asked, word):
    """It is a usage error otherwise, and nothing is sent."""
    outcome, seen = asked(200, {}, "c", "clear", word)

    assert outcome.code == Exit.USAGE
    assert "expected name=value" in outcome.err
    assert seen == []
