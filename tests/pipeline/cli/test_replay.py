"""Tapes are replayed and simulated from the command line, and sent to gateways that run."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from sluiceway.pipeline.cli.exits import Exit, Failure
from sluiceway.pipeline.cli.resend import is_loopback, parse_speed
from sluiceway.pipeline.client.http import open_http_client
from sluiceway.pipeline.config import load
from sluiceway.pipeline.model.document import Record
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.options import ConfigPath
from sluiceway.pipeline.protocol.messages import Notification, Reply, Result
from sluiceway.pipeline.replay.reading import Tape
from sluiceway.pipeline.replay.recording import open_recorder
from sluiceway.pipeline.testing import FakeSink, PipelineHarness

META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}


def config_of(chain: str, port: int = 1) -> str:
    """A configuration with one pipeline."""
    return f"""\
version: 1
sources:
  in:
    http: {{bind: "127.0.0.1:{port}"}}
pipelines:
  main: {{chain: {chain}, sink: demo}}
sinks:
  demo:
    embedded: {{}}
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    """Writes a configuration."""

    def write(chain: str = "[request_id]", name: str = "g.yaml", port: int = 1) -> Path:
        file = tmp_path / name
        file.write_text(config_of(chain, port))
        return file

    return write


@pytest.fixture
def taped(tmp_path: Path, config: Callable[..., Path]) -> Callable[..., Path]:
    """Records some calls in virtual time."""

    def record(count: int = 5, *, chain: str = "[request_id]", files: bool = False, name: str = "t.jsonl") -> Path:
        file, path = config(chain), tmp_path / name

        async def answer(exchange: Exchange) -> Reply:
            await trio.sleep(0.01)
            if exchange.target == "echo":
                await exchange.relay(Notification("notifications/progress", {"progressToken": 7, "progress": 1}))
            return Result({"content": [{"type": "text", "text": "hi"}], "isError": False})

        async def main() -> None:
            options = Record(folder=ConfigPath(tmp_path), config=files, min_free=0)  # type: ignore[arg-type]  # a number
            async with (
                open_recorder(path, options, inline=True) as recorder,
                PipelineHarness(load(file), sinks={"demo": FakeSink(answer)}, edges=recorder) as gateway,
            ):
                for _ in range(count):
                    await gateway.call("tools/call", name="echo", arguments={"text": "hi"}, _meta=META)

        trio.run(main, clock=MockClock(autojump_threshold=0))
        return path

    return record


def test_a_tape_under_its_own_configuration_makes_no_difference(sluiceway, taped):
    """The configuration that is on the tape is used."""
    result = sluiceway("replay", taped(files=True))

    assert result.code == Exit.OK
    assert result.out.splitlines()[0].startswith("5 exchanges, ")
    assert "no difference" in result.out


def test_a_tape_without_its_configuration_needs_one(sluiceway, taped, config):
    """The message says how to name it."""
    tape = taped()
    without, named = sluiceway("replay", tape), sluiceway("replay", tape, "--config", config())

    assert without.code == Exit.FOUND
    assert "name one with --config" in without.err
    assert named.code == Exit.OK


def test_one_limit_changed_is_said_exactly(sluiceway, taped, config):
    """What is refused, why, and what the upstream did not get."""
    tape = taped(chain='[request_id, {rate_limit: {per: all, rate: "1/min", burst: 9}}]')
    limited = config('[request_id, {rate_limit: {per: all, rate: "1/min", burst: 4}}]', "tight.yaml")
    result = sluiceway("replay", tape, "--config", limited, "--ignore", "headers.*")
    lines = result.out.splitlines()

    assert result.code == Exit.FOUND
    assert "1 went differently" in lines[0]
    assert [line for line in lines if line.startswith("exchange")] == ["exchange 5 at 0.040 s, tools/call echo"]
    decided = '  decisions: "pipelines.main.rate_limit: allow" -> "pipelines.main.rate_limit: refuse (1/min'
    assert len([line for line in lines if line.startswith(decided)]) == 1
    assert '  calls.0: {"sink": "demo"' in result.out


def test_differences_are_data_for_programs(sluiceway, taped, config):
    """Every place, with what was and what is."""
    limited = config('[request_id, {rate_limit: {per: all, rate: "1/min", burst: 4}}]', "tight.yaml")
    result = sluiceway("replay", taped(), "--config", limited, "--format", "json")
    found = json.loads(result.out)

    assert (found["equal"], found["exchanges"]) == (False, 5)
    last = found["differences"][-1]
    assert {"path": "reply.result", "before": {"content": [{"type": "text", "text": "hi"}], "isError": False},
            "after": "(nothing)"} in last["places"]  # fmt: skip


def test_what_comes_of_it_can_be_accepted(sluiceway, taped, config):
    """The tape is replaced; from then on there is no difference."""
    tape = taped()
    limited = config('[request_id, {rate_limit: {per: all, rate: "1/min", burst: 4}}]', "tight.yaml")

    assert sluiceway("replay", tape, "--config", limited, "--accept").code == Exit.OK
    assert sluiceway("replay", tape, "--config", limited).code == Exit.OK
    assert sluiceway("tape", "verify", tape).code == Exit.OK
    assert sorted(each.name for each in tape.parent.iterdir() if "t.jsonl" in each.name) == ["t.jsonl", "t.jsonl.index"]


def test_what_was_masked_stays_masked(sluiceway, taped, config):
    """A tape can be accepted again and again, compressed or not, with its configuration."""
    tape = taped(files=True, name="t.jsonl.gz")
    before = [entry for entry in Tape(tape).entries() if type(entry).__name__ == "Configured"]

    assert sluiceway("replay", tape, "--accept").code == Exit.OK
    after = [entry for entry in Tape(tape).entries() if type(entry).__name__ == "Configured"]
    assert [list(each.files.values()) for each in after] == [list(each.files.values()) for each in before]
    assert sluiceway("replay", tape).code == Exit.OK


def test_nothing_is_replaced_if_the_replay_fails(sluiceway, taped, tmp_path):
    """The tape stays what it was."""
    tape, bad = taped(), tmp_path / "bad.yaml"
    bad.write_text(config_of("[{access: {rules: [], grants: x}}]"))
    before = tape.read_bytes()
    result = sluiceway("replay", tape, "--config", bad, "--accept")

    assert result.code != Exit.OK
    assert tape.read_bytes() == before


def test_clients_can_be_played_to_real_upstreams(sluiceway, taped, config):
    """The demo server says what it says; only the answers differ."""
    result = sluiceway("replay", taped(2), "--config", config(), "--play", "clients", "--format", "json")
    found = json.loads(result.out)

    assert result.code == Exit.FOUND
    assert {place["path"].split(".")[0] for each in found["differences"] for place in each["places"]} <= {
        "reply", "relayed",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--accept", "--play", "clients"], "--accept needs a replay of both sides"),
        (["--live", "http://127.0.0.1:1/mcp", "--accept"], "--live sends what clients sent"),
        (["--live", "http://192.0.2.1/mcp"], "--allow-remote"),
        (["--live", "http://127.0.0.1:1/mcp", "--speed", "fast"], "--speed is a factor"),
        (["--live", "http://127.0.0.1:1/mcp", "--max-in-flight", "0"], "--max-in-flight"),
    ],
)
def test_options_that_do_not_go_together_are_refused(sluiceway, taped, words, said):
    """With what is wrong."""
    result = sluiceway("replay", taped(1), *words)

    assert result.code == Exit.USAGE
    assert said in result.err


def test_no_tape_is_said(sluiceway, tmp_path):
    """And nothing else happens."""
    assert sluiceway("replay", tmp_path / "none.jsonl").code == Exit.FOUND
    assert sluiceway("simulate", tmp_path / "none.jsonl", "--config", tmp_path / "none.yaml").code == Exit.FOUND


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8080/mcp", True),
        ("http://127.0.0.7/mcp", True),
        ("http://[::1]:80/mcp", True),
        ("http://example.com/mcp", False),
        ("http://10.0.0.1/mcp", False),
        ("http://localhost.example.com/mcp", False),
        ("nonsense", False),
    ],
)
def test_only_this_machine_is_loopback(url, expected):
    """Names that only look like it are not."""
    assert is_loopback(url) is expected


@pytest.mark.parametrize(("text", "expected"), [("1x", 1.0), ("10", 10.0), ("0.5x", 0.5), ("max", 0.0)])
def test_speeds_are_factors(text, expected):
    """With or without the x."""
    assert parse_speed(text) == expected


@pytest.mark.parametrize("text", ["0x", "-1", "nan", "infx", ""])
def test_other_speeds_are_refused(text):
    """They would mean nothing."""
    with pytest.raises(Failure, match="--speed"):
        parse_speed(text)


def test_a_simulation_is_a_table(sluiceway, taped, config):
    """What is refused, by tool, caller and tenant."""
    limited = config('[request_id, {rate_limit: {per: all, rate: "1/min", burst: 2}}]', "tight.yaml")
    result = sluiceway("simulate", taped(), "--config", limited)

    assert result.code == Exit.OK
    assert [line.split()[:6] for line in result.out.splitlines() if line.startswith("tools/call echo")] == [
        ["tools/call", "echo", "5", "5", "->", "2"]
    ]
    assert "rate_limited  0 -> 3" in result.out


def test_a_simulation_is_data_and_a_page(sluiceway, taped, config, tmp_path):
    """The page needs nothing from anywhere."""
    limited = config('[request_id, {rate_limit: {per: all, rate: "1/min", burst: 2}}]', "tight.yaml")
    page = tmp_path / "page.html"
    result = sluiceway(
        "simulate", taped(), "--config", limited, "--against", config(), "--html", page, "--format", "json"
    )
    found, text = json.loads(result.out), page.read_text()

    assert found["after"]["by_caller"]["anonymous"]["refused"] == 3
    assert [each["exchange"] for each in found["after"]["refusals"]] == [3, 4, 5]
    assert text.startswith("<!doctype html>")
    assert text.count("<svg") == 4
    assert "http:" not in text
    assert "https:" not in text
    assert "<script" not in text


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts commands, and ends them."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: Any) -> subprocess.Popen[bytes]:
        code = "import sys; from sluiceway.pipeline.cli import main; sys.exit(main())"
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stdout=log, stderr=log)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(port: int) -> None:
    """Until somebody listens."""

    async def look() -> None:
        with trio.fail_after(20):
            while True:
                try:
                    stream = await trio.open_tcp_stream("127.0.0.1", port)
                except OSError:
                    await trio.sleep(0.05)
                else:
                    await stream.aclose()
                    return

    trio.run(look)


def test_a_tape_is_sent_to_a_gateway_whose_upstreams_are_its_own(sluiceway, taped, config, serving):
    """Both at once: nothing is different, and a request that is on no tape gets none."""
    port, tape = free_port(), taped()
    process = serving("replay", tape, "--config", config(port=port, name="s.yaml"), "--play", "upstreams")
    wait_for(port)
    url = f"http://127.0.0.1:{port}/mcp"
    fast = sluiceway("replay", tape, "--live", url, "--speed", "max", "--header", "x-a: b")
    data = sluiceway("replay", tape, "--live", url, "--format", "json")

    async def other() -> Reply:
        async with open_http_client(url, era="modern") as client:
            return await client.exchange("tools/call", {"name": "other", "arguments": {}})

    refused: Any = trio.run(other)
    process.send_signal(signal.SIGTERM)
    code = process.wait(20)

    assert (fast.code, data.code) == (Exit.OK, Exit.OK)
    assert "5 answered, 0 failed; 0 of 5 answers are different" in fast.out
    assert json.loads(data.out)["compared"] == 5
    assert "the tape does not have demo: an answer to tools/call other" in refused.message
    assert code == Exit.FOUND


def test_what_a_running_gateway_answers_differently_is_shown(sluiceway, taped, config, serving):
    """A tighter limit refuses the requests that the simulation says: live, and in virtual time."""
    port, tape = free_port(), taped()
    limit = '{rate_limit: {per: all, rate: "1/min", burst: 2, when: {method: [tools/call]}}}'
    limited = config(f"[request_id, {limit}]", name="s.yaml", port=port)
    foreseen = json.loads(sluiceway("simulate", tape, "--config", limited, "--format", "json").out)
    serving("replay", tape, "--config", limited, "--play", "upstreams")
    wait_for(port)
    result = sluiceway(
        "replay", tape, "--live", f"http://127.0.0.1:{port}/mcp", "--format", "json", "--max-in-flight", 1
    )
    found = json.loads(result.out)

    assert result.code == Exit.FOUND
    assert [each["exchange"] for each in foreseen["after"]["refusals"]] == [3, 4, 5]
    assert [each["exchange"] for each in found["differences"]] == [3, 4, 5]


def test_nobody_there_is_said(sluiceway, taped):
    """Not as a traceback."""
    result = sluiceway("replay", taped(1), "--live", f"http://127.0.0.1:{free_port()}/mcp")

    assert result.code == Exit.FOUND
    assert "cannot be reached" in result.err
