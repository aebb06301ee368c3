"""`check --connect`: real sinks, opened and asked."""

import json
import sys

from sluiceway.pipeline.cli.connect import only
from sluiceway.pipeline.cli.exits import Exit
from sluiceway.pipeline.config import load_text

STDIO = """\
version: 1
pipelines:
  main: {sink: good}
  other: {sink: mute}
  third: {sink: gone}
sinks:
  good:
    stdio: {command: [%s, %s, legacy]}
  mute:
    stdio: {command: [%s, -c, "pass"]}
  gone:
    stdio: {command: [no-such-server]}
"""

SERVER = """\
import json, sys
for line in sys.stdin:
    m = json.loads(line)
    answers = {
        "initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "prompts": {}},
                       "serverInfo": {"name": "old server", "version": "1.2"}},
        "tools/list": {"tools": [{"name": "a"}, {"name": "b"}]},
        "prompts/list": {"prompts": [{"name": "p"}]},
    }
    if m["method"] in answers:
        print(json.dumps({"jsonrpc": "2.0", "id": m["id"], "result": answers[m["method"]]}), flush=True)
    elif "id" in m:
        error = {"code": -32601, "message": "Method not found"}
        print(json.dumps({"jsonrpc": "2.0", "id": m["id"], "error": error}), flush=True)
"""


def test_the_demo_server_is_discovered(sluiceway, write, good):
    """What it offers is said on stderr; nothing is wrong."""
    outcome = sluiceway("check", write("a.yaml", good), "--connect")

    assert (Exit.OK, "") == (outcome.code, outcome.out)
    assert "demo: sluiceway-demo 1.0.0, MCP 2026-07-28: 13 tools" in outcome.err


def test_each_sink_is_tried_by_itself_and_failures_have_places(sluiceway, write):
    """One that fails does not hide another, in whatever way it fails."""
    server = write("server.py", SERVER).absolute()
    outcome = sluiceway("check", write("a.yaml", STDIO % (sys.executable, server, sys.executable)), "--connect")

    assert outcome.code == Exit.FOUND
    assert "good: old server 1.2, MCP 2025-11-25: 2 tools, 1 prompt" in outcome.err
    assert "a.yaml:9:3: error[connect/failed]" in outcome.out
    assert "a.yaml:11:3: error[connect/failed]" in outcome.out
    assert "'no-such-server' was not found" in outcome.out
    assert "    11 |   gone:\n" in outcome.out


def test_nothing_but_findings_is_on_stdout(sluiceway, write):
    """Whatever servers do and say, programs can read it."""
    server = write("server.py", SERVER).absolute()
    config = write("a.yaml", STDIO % (sys.executable, server, sys.executable))
    outcome = sluiceway("check", config, "--connect", "--format", "json")

    assert 2 == [finding["rule"] for finding in json.loads(outcome.out)].count("connect/failed")
    assert "server started" not in outcome.err


def test_nothing_is_opened_when_the_file_has_errors(sluiceway, write, good):
    """There would be nothing sensible to open."""
    outcome = sluiceway("check", write("a.yaml", good.replace("request_id", "nonsense")), "--connect")

    assert outcome.code == Exit.FOUND
    assert "sluiceway-demo" not in outcome.err


def test_a_sink_that_does_not_answer_in_time_is_a_finding(sluiceway, write, good, monkeypatch):
    """A hanging server does not hang the check."""
    monkeypatch.setattr("sluiceway.pipeline.cli.connect.PATIENCE_S", 0.0)
    outcome = sluiceway("check", write("a.yaml", good), "--connect")

    assert outcome.code == Exit.FOUND
    assert "demo: no answer within 0 s" in outcome.out


def test_a_sink_is_opened_without_sources_and_pipelines(good):
    """Nothing listens, and only what is needed is started."""
    reduced = only(load_text(good), "demo")

    assert ({}, {}, ["demo"]) == (reduced.sources, reduced.pipelines, list(reduced.sinks))
