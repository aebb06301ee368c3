"""The chain of audit records: whatever somebody does to one of them is found."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway.pipeline.telemetry.audit_chain import (
    GENESIS,
    encode_entry,
    make_checkpoint,
    parse_checkpoints,
    parse_link,
    seal,
    verify,
)

KEY = b"a key of the operator's"
AT = "2026-11-21T10:00:00.000Z"


def make_chain(count: int, start: int = 1, prev: str = GENESIS, **fields: object) -> list[bytes]:
    lines = []
    for seq in range(start, start + count):
        line, prev = seal(encode_entry({"at": AT, "event": "request", "n": seq, **fields}), seq, prev)
        lines.append(line)
    return lines


def checkpoint_of(line: bytes, key: bytes | None = None) -> bytes:
    link = parse_link(line[:-1])
    return make_checkpoint(link.seq, link.hash, AT, key)


def test_a_chain_as_it_was_written_is_valid():
    """Every record counts, and the checkpoint of the last one was compared."""
    lines = make_chain(5)
    verdict = verify(lines, [checkpoint_of(lines[-1], KEY)], KEY)

    assert verdict.as_json() == {
        "valid": True, "records": 5, "first": 1, "last": 5, "checkpoints": 1, "signed": 1, "findings": [],
    }  # fmt: skip


def test_a_record_is_one_line_of_json_that_names_its_predecessor():
    """Anybody can read it, and check the hash with sha256sum."""
    first, second = (json.loads(line) for line in make_chain(2))

    assert (first["seq"], first["prev"], first["n"]) == (1, GENESIS, 1)
    assert second["prev"] == first["hash"]


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    """A chain to which somebody did one thing."""
    lines = make_chain(draw(st.integers(2, 12)))
    at = draw(st.integers(0, len(lines) - 1))
    how = draw(st.sampled_from(["edit", "delete", "swap", "insert", "repeat", "truncate", "cut", "rewrite"]))
    match how:
        case "edit":
            place = draw(st.integers(0, len(lines[at]) - 2))
            byte = draw(st.integers(1, 255))
            edited = bytearray(lines[at])
            edited[place] ^= byte
            lines[at] = bytes(edited)
        case "delete":
            del lines[at]
        case "swap":
            other = draw(st.integers(0, len(lines) - 1).filter(lambda n: n != at))
            lines[at], lines[other] = lines[other], lines[at]
        case "insert":  # anywhere but at the end, where a forged record is as good as one that a gateway wrote
            at = min(at, len(lines) - 2)
            link = parse_link(lines[at][:-1])
            lines.insert(at + 1, seal(b'{"event":"forged"}', link.seq + 1, link.hash)[0])
        case "repeat":
            lines.insert(at, lines[at])
        case "truncate":
            del lines[at:]
        case "cut":
            lines[-1] = lines[-1][: draw(st.integers(1, len(lines[-1]) - 1))]
        case "rewrite":  # with a hash that fits
            link = parse_link(lines[at][:-1])
            lines[at] = seal(b'{"event":"forged"}', link.seq, link.prev)[0]
    return how, lines


@given(damages())
@settings(max_examples=400, deadline=None)
def test_any_change_of_one_record_is_found(damage):
    """Edited, removed, swapped, added, repeated, cut off, or written anew: with the checkpoint of the last record."""
    how, lines = damage
    whole = make_chain(12)
    checkpoints = [checkpoint_of(whole[0])]
    length = len(lines) + (how == "delete") - (how in ("insert", "repeat"))
    if how != "truncate":
        checkpoints.append(checkpoint_of(whole[length - 1]))
    else:
        checkpoints.append(checkpoint_of(whole[len(lines)]))

    assert verify(lines, checkpoints).findings != [], how


def test_the_first_broken_record_is_named():
    """An operator is told where to look."""
    lines = make_chain(6)
    lines[3] = lines[3].replace(b'"n":4', b'"n":5')
    (finding,) = verify(lines).findings

    assert finding.seq == 4
    assert "after 3" in finding.text
    assert "changed" in finding.text


def test_a_gap_is_named():
    """So is a record that is missing."""
    lines = make_chain(6)
    del lines[2]
    (finding,) = verify(lines).findings

    assert finding.seq == 4
    assert "record 4 stands after record 2" in finding.text


def test_an_end_that_was_cut_off_is_told_by_a_checkpoint():
    """The chain alone is fine."""
    lines = make_chain(6)
    checkpoints = [checkpoint_of(lines[1]), checkpoint_of(lines[5])]
    (finding,) = verify(lines[:4], checkpoints).findings

    assert verify(lines[:4]).findings == []
    assert finding.seq == 6
    assert "ends with record 4" in finding.text


def test_a_chain_that_was_written_anew_is_told_by_a_signed_checkpoint():
    """Without the key nobody can make the checkpoint that would fit."""
    forged = make_chain(3, what="forged")
    unsigned = verify(forged, [checkpoint_of(forged[-1])])
    signed = verify(forged, [checkpoint_of(forged[-1], b"a key of the thief's own")], KEY)
    old = verify(forged, [checkpoint_of(make_chain(3)[-1], KEY)], KEY)

    assert unsigned.findings == []
    assert "not signed with this key" in signed.findings[0].text
    assert "not the one" in old.findings[0].text


def test_records_may_only_be_missing_at_the_start_if_the_chain_says_so():
    """The retention leaves a record behind; a thief does not."""
    lines = make_chain(4)
    third, last = parse_link(lines[2][:-1]), parse_link(lines[3][:-1])
    entry = encode_entry({"event": "retired", "first": 3, "first_prev": third.prev})
    retired, _ = seal(entry, 5, last.hash)

    assert verify([*lines[2:], retired]).findings == []
    assert verify([*lines, retired]).findings == []
    assert verify([*lines[1:], retired]).findings[0].seq == 2
    assert verify(lines[2:]).findings[0].text.startswith("the chain begins with record 3")


def test_an_empty_trail_is_valid_unless_a_checkpoint_knows_better():
    """A file that was emptied is a file whose end was cut off."""
    assert verify([]).findings == []
    assert verify([], [checkpoint_of(make_chain(1)[0])]).findings[0].seq == 1


def test_checkpoints_are_read_up_to_one_that_a_crash_tore():
    """Only the last line may be torn; rubbish in the middle is a finding."""
    lines = make_chain(3)
    whole = [checkpoint_of(line) for line in lines]

    assert [each.seq for each in parse_checkpoints([*whole, b'{"seq":4,"ha'])] == [1, 2, 3]
    with pytest.raises(ValueError, match="line 2"):
        list(parse_checkpoints([whole[0], b"rubbish\n", whole[1]]))
    assert "line 2" in verify(lines, [whole[0], b"rubbish\n", whole[1]]).findings[0].text
