"""Tapes are shown, checked and printed from the command line, and made by it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sluiceway.pipeline.cli.exits import Exit
from sluiceway.pipeline.replay.entries import (
    FORMAT,
    VERSION,
    Begun,
    Called,
    CallEnded,
    Ended,
    ErrorData,
    Header,
    MessageData,
    ReplyData,
    StageEntered,
    Trailer,
)
from sluiceway.pipeline.replay.index import index_of
from sluiceway.pipeline.replay.reading import Tape
from sluiceway.pipeline.replay.writing import Bounds, TapeWriter


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    """Two calls, one of which a tool refused, and a list that failed."""
    path = tmp_path / "calls.jsonl"
    header = Header(t=0.0, format=FORMAT, version=VERSION, sluiceway="0.1", recording="r1", part=1,
                    began="2026-11-21T12:00:00.000+00:00", epoch=1.0)  # fmt: skip
    writer = TapeWriter(path, header, Bounds(min_free=0))
    writer.open()
    replies = [ReplyData(result={}), ReplyData(result={"isError": True}), ReplyData(error=ErrorData(-32603, "broke"))]
    for number, reply in enumerate(replies, 1):
        method = "tools/list" if number == 3 else "tools/call"
        writer.append(
            [
                Begun(t=number, exchange=number, source="in", message=MessageData(method, {}, number)),
                Called(t=number, exchange=number, call=number, sink="up"),
                CallEnded(t=number + 0.5, exchange=number, call=number, reply=reply),
                Ended(t=number + 0.5, exchange=number, reply=reply),
            ]
        )
    writer.append([Begun(t=4.0, exchange=4, source="in", kind="notify", message=MessageData("notifications/x")),
                   Ended(t=4.0, exchange=4),
                   Begun(t=5.0, exchange=5, source="in", message=MessageData("ping", {}, 5)),
                   Ended(t=5.0, exchange=5, cancelled="client")])  # fmt: skip
    writer.close([Trailer(t=6.0)])
    return path


def test_what_a_tape_has_is_counted(sluiceway, tape):
    """Methods, ends and sinks, for people and for programs."""
    text = sluiceway("tape", "info", tape)
    data = json.loads(sluiceway("tape", "info", tape, "--format", "json").out)

    assert text.code == Exit.OK
    assert "recording r1" in text.out
    assert "5 exchanges, 3 calls of sinks" in text.out
    assert data["methods"] == {"tools/call": 2, "tools/list": 1, "notifications/x": 1, "ping": 1}
    assert data["ends"] == {"result": 1, "tool error": 1, "error -32603": 1, "none": 1, "client": 1}
    assert (data["sinks"], data["seconds"], data["parts"], data["findings"]) == ({"up": 3}, 6.0, 1, [])
    assert data["bytes"] == tape.stat().st_size


def test_a_whole_tape_is_said_to_be_whole(sluiceway, tape):
    """Every line was compared with its checksum."""
    outcome = sluiceway("tape", "verify", tape)

    assert (outcome.code, outcome.out.splitlines()) == (
        Exit.OK,
        ["whole lines: 18, the last is 18", "nothing is missing"],
    )


def test_a_tape_without_its_end_is_whole_as_far_as_it_goes(sluiceway, tape):
    """Its recorder may still run."""
    tape.write_bytes(b"".join(tape.read_bytes().splitlines(keepends=True)[:-1]))
    outcome = sluiceway("tape", "verify", tape)

    assert outcome.code == Exit.OK
    assert "NOTE: the tape has no end" in outcome.out
    assert "NOTE: the tape has no end" in sluiceway("tape", "info", tape).out


def test_what_is_missing_is_named(sluiceway, tape):
    """And the exit code says so."""
    lines = tape.read_bytes().splitlines(keepends=True)
    tape.write_bytes(b"".join(lines[:5] + lines[7:]))
    text = sluiceway("tape", "verify", tape)
    data = json.loads(sluiceway("tape", "verify", tape, "--format", "json").out)

    assert text.code == Exit.FOUND
    assert "FINDING: lines 6 to 7 are missing" in text.out
    assert data == {
        "lines": 16,
        "whole": False,
        "findings": [{"what": "gap", "text": "lines 6 to 7 are missing", "after": 5, "entries": 2}],
    }
    assert "lines 6 to 7 are missing" in sluiceway("tape", "cat", tape).err


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ((), list(range(1, 19))),
        (("--exchange", "2"), [6, 7, 8, 9]),
        (("--event", "called"), [3, 7, 11]),
        (("--event", "called", "--event", "end"), [3, 7, 11, 18]),
        (("--since", "4"), [14, 15, 16, 17, 18]),
        (("--until", "1.5"), [1, 2, 3]),
        (("--since", "2", "--until", "3", "--event", "begun"), [6]),
    ],
)
def test_entries_are_printed_as_json_lines(words, numbers, sluiceway, tape):
    """All of them, or those that were asked for."""
    outcome = sluiceway("tape", "cat", tape, *words)

    assert outcome.code == Exit.OK
    assert [json.loads(line)["n"] for line in outcome.out.splitlines()] == numbers
    assert "crc" not in outcome.out


def test_nothing_that_fits_is_said_by_the_exit_code(sluiceway, tape):
    """As grep does."""
    assert sluiceway("tape", "cat", tape, "--exchange", "77").code == Exit.FOUND


def test_an_index_is_made_anew(sluiceway, tape):
    """Beside each part."""
    index_of(tape).unlink()
    outcome = sluiceway("tape", "index", tape)

    assert outcome.out == f"{tape}.index: 1 places\n"
    assert index_of(tape).exists()


def test_what_is_no_tape_is_refused(sluiceway, tmp_path):
    """With its name."""
    (tmp_path / "notes").write_text("hello")
    outcome = sluiceway("tape", "info", tmp_path / "notes")

    assert outcome.code == Exit.FOUND
    assert "is no tape" in outcome.err


SLUICEWAY = (sys.executable, "-c", "import sys; from sluiceway.pipeline.cli import main; sys.exit(main())")
CONFIG = """\
version: 1
sources:
  in:
    stdio: {}
pipelines:
  main: {chain: [request_id], sink: demo}
sinks:
  demo:
    embedded: {server: demo}
"""
DISCOVER = (
    '{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":'
    '"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},'
    '"io.modelcontextprotocol/clientCapabilities":{}}}}\n'
)


@pytest.mark.parametrize("verb", ["record", "run"])
def test_a_gateway_is_recorded_from_the_command_line(verb, tmp_path):
    """Until its client hangs up; with stages, and the text of its configuration, if that is asked for."""
    config, path = tmp_path / "gateway.yaml", tmp_path / "calls.jsonl.gz"
    config.write_text(CONFIG)
    words = ["--to", path, "--stages", "--config"] if verb == "record" else ["--record", path]
    command = [*SLUICEWAY, verb, str(config), *map(str, words)]
    run = subprocess.run(command, input=DISCOVER, capture_output=True, text=True, timeout=30, check=False)
    tape = Tape(path)
    entries = list(tape.entries())

    assert run.returncode == Exit.OK, run.stderr
    assert [e.message.method for e in entries if isinstance(e, Begun)] == ["server/discover"]
    assert tape.findings == []
    assert any(isinstance(e, StageEntered) for e in entries) == (verb == "record")
    assert (CONFIG in str([e.files for e in entries if hasattr(e, "files")]).replace("\\n", "\n")) == (verb == "record")


def test_a_gateway_whose_tape_is_there_already_does_not_start(tmp_path):
    """It says why, and the tape stays as it is."""
    config, path = tmp_path / "gateway.yaml", tmp_path / "calls.jsonl"
    config.write_text(CONFIG)
    path.write_text("mine")
    command = [*SLUICEWAY, "record", str(config), "--to", str(path)]
    run = subprocess.run(command, input="", capture_output=True, text=True, timeout=30, check=False)

    assert run.returncode == Exit.NOT_STARTED
    assert "tapes are never written over" in run.stderr
    assert path.read_text() == "mine"


def test_a_gateway_that_is_told_to_stop_ends_its_tape(tmp_path):
    """By a signal, as a service is."""
    config, path = tmp_path / "gateway.yaml", tmp_path / "calls.jsonl"
    config.write_text(CONFIG)
    command = [*SLUICEWAY, "record", str(config), "--to", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(DISCOVER.encode())
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == Exit.OK

    assert isinstance(list(Tape(path).entries())[-1], Trailer)
