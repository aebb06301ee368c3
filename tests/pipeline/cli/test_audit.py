"""A trail is checked and asked from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sluiceway.pipeline.cli.exits import Exit
from sluiceway.pipeline.telemetry.audit_chain import GENESIS, encode_entry, make_checkpoint, seal

KEY = "0123456789abcdef"
ENTRIES = [
    {"principal": "ana", "operation": "tools/call", "resource": "pay", "outcome": "ok", "tenant": "acme"},
    {"principal": "ana", "operation": "tools/list", "outcome": "ok", "tenant": "acme"},
    {"principal": "bob", "operation": "tools/call", "resource": "pay", "outcome": "refused", "reason": "forbidden"},
]


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    """Three requests, one an hour, and a signed checkpoint of the last."""
    path, prev = tmp_path / "audit.jsonl", GENESIS
    with path.open("wb") as file:
        for seq, entry in enumerate(ENTRIES, 1):
            at = f"2026-11-21T1{seq}:00:00.000Z"
            line, prev = seal(encode_entry({"at": at, "event": "request", **entry}), seq, prev)
            file.write(line)
    checkpoint = make_checkpoint(3, prev, "2026-11-21T14:00:00.000Z", KEY.encode())
    (tmp_path / "audit.jsonl.checkpoints").write_bytes(checkpoint)
    return path


def test_a_whole_trail_is_said_to_be_whole(sluiceway, trail, monkeypatch, tmp_path):
    """With the key, the checkpoints' signatures are checked too."""
    monkeypatch.setenv("AUDIT_KEY", KEY)
    (tmp_path / "key").write_text(KEY + "\n")
    plain = sluiceway("audit", "verify", trail)
    signed = sluiceway("audit", "verify", trail, "--key-env", "AUDIT_KEY", "--format", "json")
    from_file = sluiceway("audit", "verify", trail, "--key-file", tmp_path / "key")

    assert (plain.code, plain.out.splitlines()) == (
        Exit.OK,
        ["records as they were written: 3 (1 to 3)", "checkpoints compared: 1", "the trail is whole"],
    )
    assert json.loads(signed.out)["signed"] == 1
    assert "1 of them signed" in from_file.out


def test_the_first_broken_record_is_named(sluiceway, trail):
    """And the exit code says that there is one."""
    trail.write_bytes(trail.read_bytes().replace(b"tools/list", b"tools/call"))
    outcome = sluiceway("audit", "verify", trail)

    assert outcome.code == Exit.FOUND
    assert "the record after 1" in outcome.out
    assert "whole" not in outcome.out


def test_an_end_that_was_cut_off_is_named(sluiceway, trail, tmp_path):
    """By the checkpoint, wherever that is."""
    trail.write_bytes(b"".join(trail.read_bytes().splitlines(keepends=True)[:2]))
    beside = sluiceway("audit", "verify", trail)
    elsewhere = (tmp_path / "audit.jsonl.checkpoints").rename(tmp_path / "elsewhere")

    assert "the end was cut off" in beside.out
    assert sluiceway("audit", "verify", trail).code == Exit.OK
    assert "cut off" in sluiceway("audit", "verify", trail, "--checkpoints", elsewhere).out


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ((), [1, 2, 3]),
        (("--principal", "ana"), [1, 2]),
        (("--operation", "tools/c*"), [1, 3]),
        (("--resource", "pay"), [1, 3]),
        (("--outcome", "refused"), [3]),
        (("--tenant", "acme"), [1, 2]),
        (("--event", "session_*"), []),
        (("--since", "2026-11-21T12:00:00Z"), [2, 3]),
        (("--until", "2026-11-21T12:00:00Z"), [1]),
        (("--until", "2026-11-21T13:00:00+01:00"), [1]),
        (("--limit", "1"), [3]),
        (("--principal", "ana", "--operation", "tools/call", "--since", "2026-11-21T10:00:00Z"), [1]),
    ],
)
def test_entries_are_found_by_every_filter_alone_and_combined(sluiceway, trail, filters, found):
    """The exit code is that of grep."""
    outcome = sluiceway("audit", "query", trail, *filters, "--format", "json")

    assert [entry["seq"] for entry in json.loads(outcome.out)] == found
    assert outcome.code == (Exit.OK if found else Exit.FOUND)


def test_a_table_shows_what_matters(sluiceway, trail):
    """One line an entry, the reason with the outcome."""
    lines = sluiceway("audit", "query", trail).out.splitlines()

    assert lines[0].split() == ["seq", "at", "principal", "operation", "resource", "outcome", "ms"]
    assert lines[3].split()[:6] == ["3", "2026-11-21T13:00:00.000Z", "bob", "tools/call", "pay", "refused"]
    assert "(forbidden)" in lines[3]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("query", "--since", "yesterday"), "since is a date"),
        (("query", "--since", "2026-11-21T10:00:00"), "time zone"),
        (("query", "--limit", "0"), "limit is a number"),
        (("query", "--principal", ""), "principal is a text"),
        (("verify", "--key-env", "NOT_SET"), "there is no key"),
        (("verify", "--key-env", "A", "--key-file", "b"), "give one of them"),
    ],
)
def test_what_is_wrong_is_said(sluiceway, trail, words, said):
    """With what to write instead."""
    outcome = sluiceway("audit", words[0], trail, *words[1:])

    assert outcome.code != Exit.OK
    assert said in outcome.err


def test_a_trail_that_is_not_there_is_no_whole_trail(sluiceway, tmp_path):
    """Neither for verify nor for query."""
    for verb in ("verify", "query"):
        outcome = sluiceway("audit", verb, tmp_path / "none.jsonl")

        assert outcome.code == Exit.FOUND
        assert "there is no audit trail" in outcome.err
