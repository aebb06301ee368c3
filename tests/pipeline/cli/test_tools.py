"""`tools`: a running gateway, spoken to as a client."""

import json
import sys

import pytest

from sluiceway.pipeline.cli.exits import Exit


@pytest.fixture
def call(sluiceway, gateway):
    """Run a `tools` verb against the gateway."""
    return lambda *words: sluiceway("tools", *words, "--url", gateway.url)


@pytest.mark.parametrize("era", ["auto", "legacy", "modern"])
def test_the_tools_are_listed_in_every_era(call, era):
    """By name, with one sentence each."""
    outcome = call("ls", "--era", era)

    assert (Exit.OK, "") == (outcome.code, outcome.err)
    assert "add  " in outcome.out
    assert all(len(line.split("  ", 1)) == 2 for line in outcome.out.splitlines())


def test_programs_get_the_tools_as_the_server_describes_them(call):
    """A JSON list."""
    tools = json.loads(call("ls", "--format", "json").out)

    assert "inputSchema" in next(tool for tool in tools if tool["name"] == "add")


@pytest.mark.parametrize("arguments", [("a=2", "b=3"), ('{"a": 2, "b": 3}',), ("a:=2", "b:=3")])
def test_a_tool_is_called_with_arguments_in_every_form(call, arguments):
    """The content goes to stdout."""
    outcome = call("call", "add", *arguments)

    assert outcome.code == Exit.OK
    assert "5" in outcome.out


def test_programs_get_the_whole_result(call):
    """Structured content included."""
    result = json.loads(call("call", "echo", "text=5", "--format", "json").out)

    assert result["structuredContent"]["text"] == "5"


def test_progress_is_shown_on_stderr(call):
    """A line for each report where there is no terminal."""
    outcome = call("call", "countdown", "seconds=1")

    assert outcome.code == Exit.OK
    assert len(outcome.err.splitlines()) >= 1


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["call", "add", "a=2"], Exit.FOUND, "Invalid params"),
        (["call", "nothing"], Exit.FOUND, "nothing"),
        (["call", "add", "a"], Exit.USAGE, "neither a JSON object nor key=value"),
        (["call", "countdown", "seconds=60", "--timeout", "200ms"], Exit.FOUND, "within 200ms"),
        (["ls", "--timeout", "5"], Exit.USAGE, "--timeout: "),
        (["ls", "--header", "nonsense"], Exit.USAGE, "a header is written 'name: value'"),
        (["ls", "--header", "host: evil.example.com"], Exit.FOUND, "evil.example.com"),
    ],
)
def test_what_goes_wrong_is_said_in_one_message(call, words, code, text):
    """No traceback, nothing on stdout."""
    outcome = call(*words)

    assert (code, "") == (outcome.code, outcome.out)
    assert text in outcome.err


def test_a_tool_that_fails_is_exit_code_1(call, monkeypatch):
    """Its words still go to stdout."""

    async def failing(_client, _name, _arguments, **_options):
        return {"isError": True, "content": [{"type": "text", "text": "out of paper"}]}

    monkeypatch.setattr("sluiceway.pipeline.client.client.McpClient.call_tool", failing)

    assert (Exit.FOUND, "out of paper\n") == call("call", "add")[:2]


def test_a_tool_that_is_not_listed_can_be_called(call, monkeypatch):
    """Arguments are understood without its schema."""
    seen = []

    async def hidden(_client, name, arguments, **_options):
        seen.append((name, arguments))
        return {"content": []}

    monkeypatch.setattr("sluiceway.pipeline.client.client.McpClient.call_tool", hidden)
    call("call", "hidden", "n=1")

    assert seen == [("hidden", {"n": 1})]


def test_nobody_there_is_told_how_to_start_one(sluiceway):
    """The remedy is one command."""
    outcome = sluiceway("tools", "ls", "--url", "http://127.0.0.1:1/mcp")

    assert outcome.code == Exit.FOUND
    assert "http://127.0.0.1:1/mcp cannot be reached" in outcome.err
    assert "sluiceway run" in outcome.err


def test_a_server_that_does_not_speak_mcp_is_quoted(sluiceway, answering):
    """A wrong path is the usual reason."""
    with answering(404, b"no such page") as (address, _):
        outcome = sluiceway("tools", "ls", "--url", f"http://{address}/nothing")

    assert outcome.code == Exit.FOUND
    assert "HTTP 404: no such page" in outcome.err


def test_it_works_as_a_process_with_the_url_of_the_environment(program, gateway):
    """SLUICEWAY_URL saves typing."""
    import os

    outcome = program("tools", "call", "add", "a=40", "b=2", env={**os.environ, "SLUICEWAY_URL": gateway.url})

    assert outcome.code == Exit.OK
    assert "42" in outcome.out


def test_a_terminal_gets_a_bar(call, monkeypatch):
    """It is drawn on stderr and gone afterwards."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    outcome = call("call", "countdown", "seconds=1")

    assert outcome.code == Exit.OK
    assert "%" in outcome.err


def test_a_tool_is_called_many_times(call):
    """How the calls ended, how fast they were; all of them well is exit code 0."""
    outcome = call("load", "add", "a=2", "b=3", "--count", "30", "--at-once", "4", "--pace", "10/1ms")

    assert (Exit.OK, "") == (outcome.code, outcome.err)
    assert "ok" in outcome.out
    assert "30 calls in" in outcome.out
    assert "p99" in outcome.out


def test_a_load_that_fails_says_of_what(call):
    """By outcome, for programs too; exit code 1."""
    outcome = call("load", "nothing", "--count", "3", "--format", "json")
    found = json.loads(outcome.out)

    assert Exit.FOUND == outcome.code
    assert {"error -32602": 3} == found["outcomes"]
    assert 3 == found["calls"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--pace", "fast"], "--pace: a pace is written like 100/1ms"),
        (["--count", "0"], "the count must be 1 to"),
        (["--at-once", "5000"], "calls can be under way at once, not 5000"),
    ],
)
def test_a_load_out_of_bounds_is_a_mistake_of_the_command_line(call, words, text):
    """Nothing is called."""
    outcome = call("load", "add", "a=1", "b=2", *words)

    assert (Exit.USAGE, "") == (outcome.code, outcome.out)
    assert text in outcome.err


def test_a_load_is_for_this_machine(sluiceway):
    """Unless it is said that the owner knows."""
    outcome = sluiceway("tools", "load", "add", "--url", "http://gateway.example.com/mcp")

    assert Exit.USAGE == outcome.code
    assert "--allow-remote" in outcome.err
