"""`doctor`: upstreams that are wrong in every way, and what is said about each."""

import json
import sys

import pytest
from jsonschema_rs import validator_for

from sluiceway.pipeline.cli.exits import Exit
from sluiceway.pipeline.cli.faults import diagnose
from sluiceway.pipeline.cli.offers import folded, inspect_all, inspect_tools

SERVER = """\
import json, sys, time
era, noise, slow = sys.argv[1], "noise" in sys.argv, "slow" in sys.argv
if slow:
    time.sleep(0.3)
if noise:
    print("Server listening", flush=True)
legacy = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "prompts": {}},
          "serverInfo": {"name": "scripted", "version": "1"}}
modern = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"}
for line in sys.stdin:
    m = json.loads(line)
    tool = {"name": "a", "description": "A tool.", "inputSchema": {"type": "object"}}
    answers = {"tools/list": {"tools": [tool], "resultType": "complete"}, "prompts/list": {"prompts": []}}
    if era == "legacy":
        answers["initialize"] = legacy
    elif era == "modern":
        answers["server/discover"] = modern
    if "id" not in m or era == "silent":
        continue
    if m["method"] in answers:
        print(json.dumps({"jsonrpc": "2.0", "id": m["id"], "result": answers[m["method"]]}), flush=True)
    else:
        error = {"code": -32601, "message": "Method not found"}
        print(json.dumps({"jsonrpc": "2.0", "id": m["id"], "error": error}), flush=True)
"""
PIPELINE = "version: 1\npipelines: {main: {sink: up}}\nsinks:\n"


@pytest.fixture
def examine(sluiceway, write, monkeypatch):
    """Examine one sink; returns the exit code, the upstream and the findings."""

    def run(transport, options, patience_s=10.0):
        monkeypatch.setattr("sluiceway.pipeline.cli.doctor.PATIENCE_S", patience_s)
        write("a.yaml", f"{PIPELINE}  up: {{{transport}: {json.dumps(options)}}}\n")
        outcome = sluiceway("doctor", "a.yaml", "--format", "json")
        report = json.loads(outcome.out)
        return outcome.code, report["upstreams"][0], report["findings"]

    return run


@pytest.fixture
def scripted(write):
    """The command of the server above."""
    path = write("server.py", SERVER).absolute()
    return lambda *words: {"command": [sys.executable, str(path), *words]}


def test_a_sound_upstream_is_shown_with_both_revisions(sluiceway, write, good):
    """Nothing is wrong with the demo server."""
    outcome = sluiceway("doctor", write("a.yaml", good))

    assert (Exit.OK, "upstreams: 1, faults: 0\n") == (outcome.code, outcome.err)
    assert outcome.out.splitlines()[1].split() == ["demo", "sluiceway-demo", "1.0.0", "2025-11-25,", "2026-07-28", "13"]


@pytest.mark.parametrize(
    ("era", "revision", "other"), [("legacy", "2025-11-25", "modern"), ("modern", "2026-07-28", "legacy")]
)
def test_an_upstream_of_one_era_is_a_note(examine, scripted, era, revision, other):
    """It works, but some clients lose something, or are refused if nothing is translated."""
    code, upstream, findings = examine("stdio", scripted(era))
    _, _, strict = examine("stdio", {**scripted(era), "translate": False})

    assert (Exit.OK, {era: revision}, 1) == (code, upstream["versions"], upstream["tools"])
    assert [(f"mcp/{era}-only", False)] == [(each["fault"], each["is_fault"]) for each in findings]
    assert f"{other} clients are served by translating here; what they lose:\n      tasks: " in findings[0][
        "remedy"
    ] or (f"{other} clients are served by translating here; what they lose:\n      calls " in findings[0]["remedy"])
    assert f"{other} clients are refused here" in strict[0]["remedy"]


def test_noise_on_standard_output_is_a_fault(examine, scripted):
    """The server works all the same."""
    code, upstream, findings = examine("stdio", scripted("legacy", "noise"))

    assert (Exit.FOUND, "scripted 1") == (code, upstream["server"])
    assert "stdio/noise" in [each["fault"] for each in findings]


def test_a_slow_start_is_a_note(examine, scripted, monkeypatch):
    """Clients give up earlier than operators."""
    monkeypatch.setattr("sluiceway.pipeline.cli.doctor.SLOW_S", 0.2)
    code, _, findings = examine("stdio", scripted("legacy", "slow"))

    assert Exit.OK == code
    assert ("mcp/slow", False) in [(each["fault"], each["is_fault"]) for each in findings]


def test_a_silent_server_is_named(examine, scripted):
    """And costs no more than its time in each era."""
    code, upstream, findings = examine("stdio", scripted("silent"), patience_s=0.3)

    assert (Exit.FOUND, {}) == (code, upstream["versions"])
    assert [("mcp/silent", "no answer within 0.3 s")] == [(each["fault"], each["message"]) for each in findings]


def test_a_server_that_exits_at_once_is_quoted(sluiceway, write):
    """Its last words are the remedy."""
    script = "import sys; sys.stderr.write('first\\nAPI_KEY is missing\\n'); sys.exit(3)"
    write("a.yaml", f"{PIPELINE}  up: {{stdio: {json.dumps({'command': [sys.executable, '-c', script]})}}}\n")
    outcome = sluiceway("doctor", "a.yaml")

    assert Exit.FOUND == outcome.code
    assert "\nfault: up: command/exits\n" in outcome.out
    assert "\n    it said: first\n    it said: API_KEY is missing\n    remedy: start the command by hand" in outcome.out


def test_a_command_that_does_not_exist_is_named(examine):
    """Before anything else is tried."""
    code, _, findings = examine("stdio", {"command": ["no-such-server"]})

    assert (Exit.FOUND, ["command/not-found"]) == (code, [each["fault"] for each in findings])


@pytest.mark.parametrize(
    ("status", "fault", "remedy"),
    [
        (401, "http/credential", "set or renew the credential"),
        (403, "http/credential", "set or renew the credential"),
        (404, "http/wrong-path", "/x/mcp or http://127.0.0.1:"),
        (302, "http/redirect", "put the address it names into url"),
        (500, "http/failed", "look into the server's log"),
        (503, "http/busy", "try again later"),
        (200, "http/not-mcp", "something else, such as a web page"),
        (0, "net/closed", "another protocol"),
    ],
)
def test_what_is_wrong_over_http_is_named(examine, answering, status, fault, remedy):
    """By its status, or by what is not MCP about it."""
    with answering(status, b"<html>") as (address, _):
        code, _, findings = examine("http", {"url": f"http://{address}/x"})

    assert (Exit.FOUND, [fault]) == (code, [each["fault"] for each in findings])
    assert remedy in findings[0]["remedy"]


def test_what_is_wrong_before_http_is_named(examine, answering):
    """A port where nobody is, a name that nobody has, a server without TLS."""
    with answering(200, b"") as (address, _):
        assert "net/tls" == examine("http", {"url": f"https://{address}/mcp"})[2][0]["fault"]

    assert "net/refused" == examine("http", {"url": f"http://{address}/mcp"})[2][0]["fault"]
    assert "net/name" == examine("http", {"url": "http://no-such-host.invalid/mcp"})[2][0]["fault"]


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("the upstream cannot be reached: no connection within 10 s (connect_timeout)", "net/timeout"),
        ("its name leads to a private address; set allow_private", "net/private"),
        ("the server cannot be started: Permission denied", "command/not-started"),
        ("the authorization server gives the gateway no token: it answers HTTP 400", "http/credential"),
        ("environment variable TOKEN is not set", "config/secret"),
        ("Method not found", "mcp/failed"),
    ],
)
def test_a_fault_is_told_by_what_it_leads_to(message, fault):
    """Those that take another machine to happen, or another user."""
    assert fault == diagnose("up", message).fault


def test_the_name_of_an_upstream_is_no_sign():
    """Whatever it is called."""
    finding = diagnose("tls", "sinks.tls: the upstream cannot be reached: it cannot be connected to: refused")

    assert ("net/refused", "the upstream cannot be reached: it cannot be connected to: refused") == (
        finding.fault,
        finding.message,
    )


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("http://a/x/sse", "try http://a/x/mcp"),
        ("http://a/mcp", "the sse sink with http://a/sse"),
        ("http://a/", "try http://a/mcp"),
    ],
)
def test_a_wrong_path_comes_with_a_better_one(url, remedy):
    """As far as one can guess."""
    assert remedy in diagnose("up", "HTTP 404", url=url).remedy


def tool(name, **more):
    return {"name": name, "description": "x", "inputSchema": {"type": "object"}, **more}


@pytest.mark.parametrize(
    ("tools", "fault", "quoted"),
    [
        ([{"title": "x"}, 1], "tools/shape", "2 tools"),
        ([tool("a b"), tool("x" * 129)], "tools/name", "'a b', "),
        ([tool("get"), tool("GET")], "tools/duplicate", "'get', 'GET'"),
        ([tool("a", description=" "), tool("b", description=None)], "tools/description", "'a', 'b'"),
        ([tool("a", description="")] * 1 + [tool(f"t{i}", description="") for i in range(6)], "tools/description",
         "'t3' and 2 more"),
        ([tool("a", inputSchema={"type": "nonsense"})], "tools/schema", "a.inputSchema"),
        ([tool("a", inputSchema=None)], "tools/schema", "it is missing"),
        ([tool("a", outputSchema=[])], "tools/schema", "a.outputSchema is no JSON Schema: it is not an object"),
        ([tool("a", inputSchema={"$ref": "http://a.example/x"})], "tools/schema", "a.inputSchema"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_tools_is_named(tools, fault, quoted):
    """As they were listed."""
    findings = list(inspect_tools("up", tools))

    assert [fault] == [each.fault for each in findings]
    assert quoted in findings[0].message


def test_sound_tools_have_no_findings():
    """A schema that refers to a part of itself, too."""
    schema = {"$defs": {"x": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/x"}}}

    assert validator_for(schema)
    assert [] == list(inspect_tools("up", [tool("a"), tool("b.c-d_E", inputSchema=schema, outputSchema={})]))


def test_equal_names_of_different_upstreams_are_a_note():
    """However they are written."""
    (note,) = inspect_all({"a": [tool("get"), tool("own")], "b": [tool("\uff27\uff25\uff34"), 1], "c": []})

    assert ("a, b", "tools/shared-name", False) == (note.sink, note.fault, note.is_fault)
    assert folded("g\u200bet") == "get"
