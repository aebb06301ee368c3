"""`status`: asking a running gateway."""

import json

import pytest
import yaml

from sluiceway.pipeline.cli.asking import TURN_ON
from sluiceway.pipeline.cli.exits import Exit

ANSWER = {
    "version": "9.9",
    "uptime_s": 61.7,
    "ready": True,
    "draining": False,
    "generation": 2,
    "components": [{"id": "sinks.up", "kind": "sink", "state": "degraded", "reason": "restarting\x1b",
        "details": {"open": ["a"], "note": "x"}}],
    "pipelines": [{"id": "main", "in_flight": 1, "waiting": 2, "listeners": 3, "served": 4, "refused": 5}],
}  # fmt: skip


def test_a_running_gateway_is_shown(sluiceway, gateway):
    """Its components and pipelines, found through its configuration."""
    outcome = sluiceway("status", gateway.config)

    assert (Exit.OK, "") == (outcome.code, outcome.err)
    assert ": ready, up " in outcome.out
    assert any(line.split()[-1:] == ["ready"] and "demo" in line for line in outcome.out.splitlines())
    assert any(line.startswith("main ") for line in outcome.out.splitlines())


def test_it_works_as_a_process_and_for_programs(program, gateway):
    """As JSON, and with the address instead of the file."""
    socket = yaml.safe_load(gateway.config.read_text())["run"]["admin"]["bind"]
    outcome = program("status", "--admin", socket, "--format", "json")

    assert outcome.code == Exit.OK
    assert json.loads(outcome.out)["ready"] is True


def test_every_figure_is_shown(sluiceway, answering):
    """Terminal controls in reasons are not."""
    with answering(200, json.dumps(ANSWER).encode()) as (address, _):
        lines = sluiceway("status", "--admin", address).out.splitlines()

        assert ANSWER == json.loads(sluiceway("status", "--admin", address, "--format", "json").out)

    assert lines[0] == "sluiceway 9.9: ready, up 61s, configuration 2"
    assert lines[3].split() == ["sinks.up", "sink", "degraded", "restarting?"]
    assert [line.split() for line in lines[6:8]] == [["sinks.up", "open", '["a"]'], ["sinks.up", "note", "x"]]
    assert lines[10].split() == ["main", "1", "2", "3", "4", "5"]


def test_workers_are_shown_where_there_are_several(sluiceway, answering):
    """Which process each is, and how many clients it has."""
    workers = [{"worker": 0, "pid": 17, "state": "ready", "for_s": 1.0, "connections": 3}]
    with answering(200, json.dumps({**ANSWER, "workers": workers}).encode()) as (address, _):
        lines = sluiceway("status", "--admin", address).out.splitlines()

    assert [line.split() for line in lines[2:4]] == [
        ["worker", "pid", "state", "connections"],
        ["0", "17", "ready", "3"],
    ]


def test_alerts_stand_above_everything_else(sluiceway, answering):
    """Those that fire, or are about to, with what they are about."""
    alert = {"rule": "pending", "state": "firing", "value": 0.75, "condition": "above 0.5", "labels": {"a": "main"}}
    with answering(200, json.dumps({**ANSWER, "alerts": [alert]}).encode()) as (address, _):
        lines = sluiceway("status", "--admin", address).out.splitlines()

    assert lines[3].split() == ["pending", "firing", "0.75,", "above", "0.5", "main"]
    assert lines[6].split() == ["sinks.up", "sink", "degraded", "restarting?"]


@pytest.mark.parametrize(
    ("changes", "word"), [({"ready": False}, "not ready"), ({"ready": False, "draining": True}, "draining")]
)
def test_a_gateway_that_is_not_ready_is_exit_code_1(sluiceway, changes, word, answering):
    """A script can ask."""
    with answering(200, json.dumps({**ANSWER, **changes}).encode()) as (address, _):
        outcome = sluiceway("status", "--admin", address)

    assert outcome.code == Exit.FOUND
    assert f": {word}, " in outcome.out


def test_the_token_comes_from_the_environment_or_from_where_the_file_says(
    sluiceway, write, good, monkeypatch, answering
):
    """Never from the command line, where others could read it."""
    with answering(200, json.dumps(ANSWER).encode()) as (address, seen):
        config = f"{good}run:\n  admin: {{bind: '{address}', token: {{from_file: token}}}}\n"
        write("token", "from-file\n")
        sluiceway("status", write("a.yaml", config))
        monkeypatch.setenv("SLUICEWAY_ADMIN_TOKEN", "from-env")
        sluiceway("status", "--admin", address)

    assert seen == [("/-/status", "Bearer from-file"), ("/-/status", "Bearer from-env")]


def test_a_gateway_without_an_admin_listener_is_told_how_to_turn_it_on(sluiceway, write, good):
    """The lines are good lines: with them, the file still has no finding."""
    outcome = sluiceway("status", write("a.yaml", good))

    assert (Exit.FOUND, "") == (outcome.code, outcome.out)
    assert TURN_ON in outcome.err
    lines = [line.removeprefix("    ") for line in TURN_ON.splitlines() if line.startswith("    ")]
    assert sluiceway("check", write("b.yaml", good + "\n".join(lines) + "\n"), "--deny-warnings").code == Exit.OK


def test_nobody_there_is_told_the_same(sluiceway, tmp_path):
    """The address is named."""
    outcome = sluiceway("status", "--admin", f"unix:{tmp_path}/nobody.sock")

    assert outcome.code == Exit.FOUND
    assert f"nobody answers at unix:{tmp_path}/nobody.sock" in outcome.err
    assert TURN_ON in outcome.err


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (401, b"", "wants a token; set SLUICEWAY_ADMIN_TOKEN"),
        (404, b"no such page", "answered HTTP 404: no such page"),
        (0, b"", "disconnected"),
    ],
)
def test_another_answer_is_said_as_it_is(sluiceway, status, body, text, answering):
    """It may be another server altogether."""
    with answering(status, body) as (address, _):
        outcome = sluiceway("status", "--admin", address)

    assert (Exit.FOUND, "") == (outcome.code, outcome.out)
    assert text in outcome.err


def test_what_cannot_be_asked_is_said(sluiceway, write, good):
    """A wrong address is a usage error; a token that cannot be read is a failure."""
    config = f"{good}run:\n  admin: {{bind: '127.0.0.1:1', token: {{from_env: NOT_SET_ANYWHERE}}}}\n"

    assert sluiceway("status", "--admin", "nowhere").code == Exit.USAGE
    assert "NOT_SET_ANYWHERE is not set" in sluiceway("status", write("a.yaml", config)).err
