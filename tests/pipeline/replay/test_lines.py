"""A line is an entry and its checksum; what is not as it was written is noticed."""

from __future__ import annotations

import json
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.replay.entries import AnyEntry, Begun, Ended, Header, Lost, MessageData, ReplyData, data_of
from sluiceway.pipeline.replay.lines import BadLine, open_line, parse_line, render_entry, seal

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
LINE = seal(render_entry(Lost(n=3, t=0.25, entries=2, reason="no room")))


@given(st.dictionaries(st.text(), JSON, max_size=4), st.floats(0, 1e9))
def test_an_entry_comes_back_as_it_was(params, t):
    """Integers of any length, and times to the last bit."""
    entry = Begun(n=1, t=t, exchange=7, message=MessageData("tools/call", params, id="a"))

    assert parse_line(seal(render_entry(entry))) == entry


def test_a_line_is_json_with_the_checksum_last():
    """As docs/cassettes.md says, so that other programs can read it."""
    text = LINE.removesuffix(b"\n")
    without = text[: -len(',"crc":"00000000"}')] + b"}"

    assert json.loads(text) == {"event": "lost", "n": 3, "t": 0.25, "entries": 2, "reason": "no room",
                                "crc": f"{crc32(without):08x}"}  # fmt: skip


@given(st.integers(0, len(LINE) - 1), st.integers(1, 255))
def test_a_line_with_one_byte_changed_is_noticed(at, flip):
    """Whichever it is."""
    changed = bytearray(LINE)
    changed[at] ^= flip

    with pytest.raises(BadLine):
        parse_line(bytes(changed))


@given(st.integers(0, len(LINE) - 1))
def test_a_line_that_was_cut_is_noticed(length):
    """Wherever."""
    with pytest.raises(BadLine, match="cut off"):
        open_line(LINE[:length])


def test_a_kind_of_a_later_version_is_its_number():
    """The reader counts it and goes on."""
    assert parse_line(seal(b'{"event":"dreamt","n":12,"t":1.0,"of":"sheep"}')) == 12


def test_a_member_of_a_later_version_is_left_out():
    """What is known is read."""
    assert parse_line(seal(b'{"event":"lost","n":1,"t":1.0,"entries":1,"reason":"","more":[]}')) == Lost(
        n=1, t=1.0, entries=1, reason=""
    )


@pytest.mark.parametrize("text", [b'{"event":"lost","n":1,"t":"soon"}', b'{"n":1}', b'["lost"]', b"{}"])
def test_what_no_recorder_writes_is_a_bad_line(text):
    """Though its checksum is right."""
    with pytest.raises(BadLine):
        parse_line(seal(text))


def test_members_with_their_default_are_left_out_and_every_kind_has_a_name():
    """A line says what there is to say."""
    ended = Ended(n=4, t=1.0, exchange=2, reply=ReplyData(result={}))

    assert data_of(ended) == {"event": "ended", "n": 4, "t": 1.0, "exchange": 2, "reply": {"result": {}}}
    assert len({cls.__struct_config__.tag for cls in AnyEntry.__args__}) == len(AnyEntry.__args__)


def test_the_header_always_says_what_it_is():
    """Format and version have no default that could be left out."""
    header = Header(n=1, t=0.0, format="sluiceway-tape", version=1, sluiceway="1", recording="r", part=1, began="",
                    epoch=0.0)  # fmt: skip

    assert render_entry(header).startswith(b'{"event":"tape","n":1,"t":0.0,"format":"sluiceway-tape","version":1,')
