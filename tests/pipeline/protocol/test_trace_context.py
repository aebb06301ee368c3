"""
W3C Trace Context: the cases of the published test suite (w3c/trace-context, test/test.py), as a table, and baggage.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.protocol.trace_context import (
    MAX_STATE_CHARS,
    TraceContext,
    baggage_in,
    context_in,
    parse_baggage,
    parse_traceparent,
    parse_tracestate,
)

TRACE = "12345678901234567890123456789012"
SPAN = "1234567890123456"


@pytest.mark.parametrize(
    "text",
    [
        f"00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-00",
        f" 00-{TRACE}-{SPAN}-01\t",
        f"cc-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
    ],
)
def test_a_valid_traceparent_is_continued(text):
    """Of a later version as far as ours goes."""
    context = parse_traceparent(text)

    assert context is not None
    assert (context.trace_id, context.span_id) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
        f"cc-{TRACE}-{SPAN}-01.what-the-future-will-not-be-like",
        f"ff-{TRACE}-{SPAN}-01",
        f".0-{TRACE}-{SPAN}-01",
        f"0.-{TRACE}-{SPAN}-01",
        f"000-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-.{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE[:-1]}.-{SPAN}-01",
        f"00-{TRACE}3-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-.{SPAN[1:]}-01",
        f"00-{TRACE}-{SPAN}7-01",
        f"00-{TRACE}-{SPAN[:-1]}-01",
        f"00-{TRACE}-{SPAN}-.0",
        f"00-{TRACE}-{SPAN}-0.",
        f"00-{TRACE}-{SPAN}-001",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{'A' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'A' * 16}-01",
        f"00-{TRACE}-{SPAN}-0A",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
        "\u0660\u0660-" + TRACE + "-" + SPAN + "-01",
    ],
)
def test_an_invalid_traceparent_is_none(text):
    """Wrong lengths, characters, versions, and identifiers that are all zero."""
    assert parse_traceparent(text) is None


@pytest.mark.parametrize(("flags", "kept"), [("00", "00"), ("01", "01"), ("ff", "03"), ("02", "02"), ("fc", "00")])
def test_flags_that_nobody_knows_are_not_passed_on(flags, kept):
    """Sampled and random are (level 1, section 3.2.2.5; level 2)."""
    context = parse_traceparent(f"00-{TRACE}-{SPAN}-{flags}")

    assert context is not None
    assert context.traceparent == f"00-{TRACE}-{SPAN}-{kept}"
    assert context.sampled is (int(flags, 16) % 2 == 1)


@pytest.mark.parametrize(
    ("text", "passed_on"),
    [
        ("foo=1", "foo=1"),
        ("foo=1,bar=2", "foo=1,bar=2"),
        ("foo=1 \t , \t bar=2, \t baz=3", "foo=1,bar=2,baz=3"),
        ("foo=1,,,bar=2", "foo=1,bar=2"),
        ("", ""),
        ("foo", ""),
        ("foo =1", ""),
        ("FOO=1", ""),
        ("foo.bar=1", ""),
        ("foo@=1,bar=2", ""),
        ("@foo=1,bar=2", ""),
        ("foo@@bar=1,bar=2", ""),
        ("foo@bar@baz=1,bar=2", ""),
        ("foo=1,foo=1", ""),
        ("foo=1,foo=2", ""),
        ("foo=bar=baz", ""),
        ("foo=,bar=3", ""),
        ("foo=\u00e9", ""),
        ("fw529a3039@dt=FfAAAAAAAAAA", "fw529a3039@dt=FfAAAAAAAAAA"),
        (f"{'z' * 256}=1", f"{'z' * 256}=1"),
        (f"{'z' * 257}=1", ""),
        (f"{'t' * 241}@{'v' * 14}=1", f"{'t' * 241}@{'v' * 14}=1"),
        (f"{'t' * 242}@v=1", ""),
        (f"t@{'v' * 15}=1", ""),
        (f"foo={'v' * 256}", f"foo={'v' * 256}"),
        (f"foo={'v' * 257}", ""),
        (",".join(f"bar{n:02}={n:02}" for n in range(1, 33)), ",".join(f"bar{n:02}={n:02}" for n in range(1, 33))),
        (",".join(f"bar{n:02}={n:02}" for n in range(1, 34)), ""),
    ],
)
def test_tracestate(text, passed_on):
    """What is valid goes on in its order; the rest is dropped whole."""
    assert parse_tracestate(text) == passed_on


def test_every_allowed_character_of_a_tracestate_is_allowed():
    """As the published suite has them."""
    key = "".join(map(chr, range(0x61, 0x7B))) + "0123456789_-*/"
    value = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) not in ",=")[1:]

    assert parse_tracestate(f"{key}={value},{key}@a-z0-9_-*/={value}") == f"{key}={value},{key}@a-z0-9_-*/={value}"


def test_a_long_tracestate_loses_its_long_members_first_and_then_its_last():
    """Section 3.3.1.5."""
    small = [f"k{n:02}={'v' * 30}" for n in range(20)]

    shortened = parse_tracestate(",".join([small[0], f"long={'v' * 200}", *small[1:]]))

    assert len(shortened) <= MAX_STATE_CHARS
    assert shortened.split(",") == small[: len(shortened.split(","))]
    assert len(shortened) + len(small[0]) + 1 > MAX_STATE_CHARS


@pytest.mark.parametrize(
    ("text", "passed_on"),
    [
        ("userId=alice,serverNode=DF%2028", "userId=alice,serverNode=DF%2028"),
        ("key1=value1;property1;property2, key2 = value2", "key1=value1;property1;property2,key2 = value2"),
        ("key=", "key="),
        ("", ""),
        ("no-equals", ""),
        ("a=b c", ""),
        ("a=\u00e9", ""),
        ("a=1\r\nx-evil: 1", ""),
        (f"a={'b' * 8190}", f"a={'b' * 8190}"),
        (f"a={'b' * 8191}", ""),
        (",".join(f"k{n}=1" for n in range(64)), ",".join(f"k{n}=1" for n in range(64))),
        (",".join(f"k{n}=1" for n in range(65)), ""),
    ],
)
def test_baggage(text, passed_on):
    """W3C Baggage, section 3.3."""
    assert parse_baggage(text) == passed_on


def test_a_carrier_is_read_with_care():
    """What is no text is no context; a bad tracestate does not spoil its traceparent."""
    parent = f"00-{TRACE}-{SPAN}-01"

    assert context_in({}) is None
    assert context_in({"traceparent": 1}) is None
    assert context_in({"traceparent": parent, "tracestate": 1}) == TraceContext(TRACE, SPAN, 1)
    assert context_in({"traceparent": parent, "tracestate": "FOO=1"}) == TraceContext(TRACE, SPAN, 1)
    assert context_in({"traceparent": parent, "tracestate": "a=1"}) == TraceContext(TRACE, SPAN, 1, "a=1")
    assert context_in({"traceparent": "bad", "tracestate": "a=1"}) is None
    assert baggage_in({"baggage": ["a=1"]}) == ""
    assert baggage_in({"baggage": "a=1"}) == "a=1"


@given(st.text())
def test_whatever_is_parsed_can_be_sent_as_a_header(text):
    """Nothing gets through that could end a line."""
    for parsed in (parse_tracestate(text), parse_baggage(text)):
        assert parsed.isascii()
        assert parsed.isprintable() or parsed == "" or "\t" in parsed
        assert "\n" not in parsed
