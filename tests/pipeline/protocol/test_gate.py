"""The strict gate accepts only JSON that every parser reads alike, and bounds what reading costs."""

from __future__ import annotations

import json
import unicodedata

import pytest

from sluiceway.pipeline.protocol import gate
from sluiceway.pipeline.protocol.errors import (
    GatewayError,
    InvalidMessage,
    MessageTooLarge,
    ParseError,
    UpstreamProtocolError,
)
from sluiceway.pipeline.protocol.gate import Limits, check


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"  ",
        b"{",
        b"{}}",
        b"{} {}",
        b"\xef\xbb\xbf{}",
        b'{"a":"\xff"}',
        rb'{"a":"\ud800"}',
        rb'{"a":"\udead"}',
        rb'{"\ud800":1}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e400}',
        b'{"a":[-1e400]}',
        b'{"a":' + b"9" * 400 + b"}",
        b"1e400",
        b'{"a":01}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":"\x01"}',
    ],
)
def test_what_is_not_json_for_everybody_is_a_parse_error(text: bytes) -> None:
    """Bad syntax, encodings, surrogates and numbers are -32700."""
    with pytest.raises(ParseError):
        check(text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":2}',
        b'{"a":1,"\\u0061":2}',
        b'{"x":[{"a":1,"a":1}]}',
        b'{"a":1,"A":2}',
        b'{"deep":[[{"name":1,"nAme":2}]]}',
        '{"a":1,"\uff21":2}'.encode(),
        '{"k":1,"\u212a":2}'.encode(),
        b'{"k":1,"\\u212a":2}',
        '{"\u00e9":1,"e\u0301":2}'.encode(),
        '{"stra\u00dfe":1,"STRASSE":2}'.encode(),
        b'{"stra\\u00dfe":1,"strasse":2}',
        '{"a":1,"\U0001d400":2}'.encode(),
    ],
)
def test_keys_that_some_parser_takes_for_one_another_are_refused(text: bytes) -> None:
    """Duplicates, and keys that differ only by case or Unicode form, are -32600 at every depth."""
    with pytest.raises(InvalidMessage):
        check(text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"b":{"a":1}}',
        b'[{"a":1},{"A":1}]',
        b'{"Name":1,"Value":2}',
        b'{"1":1,"2":2}',
        '{"\u00e9":1,"e":2,"\u00fc":"\u00dc"}'.encode(),
        rb'{"a":"\ud83d\ude00"}',
        b'{"a":1.5e300,"b":-1e-400,"c":123456789012345678901234567890}',
        b'{"a":"1e400 NaN [[[[ {{{{"}',
        b' \t\r\n{"a": null}\n',
        b'{"":1}',
    ],
)
def test_what_every_parser_reads_alike_passes(text: bytes) -> None:
    """Only real ambiguity is refused: case may differ between objects, and values may hold anything."""
    assert json.loads(text) == check(text)


def test_the_number_that_just_fits_a_double_passes() -> None:
    """The bound is the greatest double itself."""
    greatest = 2**1024 - 2**971

    assert {"a": greatest} == check(b'{"a":%d}' % greatest)
    with pytest.raises(ParseError):
        check(b'{"a":%d}' % 2**1024)


def test_nesting_up_to_the_limit_passes_and_one_more_is_refused() -> None:
    """64 levels pass, 65 do not, and what the parser itself gives up on is the same error."""
    check(b"[" * 64 + b"]" * 64)
    for depth in (65, 201, 100_000):
        with pytest.raises(InvalidMessage, match="max_depth"):
            check(b"[" * depth + b"]" * depth)
    with pytest.raises(InvalidMessage, match=r"max_depth \(64\)"):
        check(b'{"a":' * 65 + b"1" + b"}" * 65)


def test_an_object_under_the_deepest_level_counts() -> None:
    """A scalar does not add a level, a container does."""
    limits = Limits(max_depth=1)

    check(b'{"a":1}', limits)
    with pytest.raises(InvalidMessage):
        check(b'{"a":[]}', limits)


def test_keys_are_judged_alike_the_first_time_and_later() -> None:
    """What is remembered of an object are its very keys: another spelling, or one key more, is another object."""
    for _ in range(2):
        check(b'{"first":1,"Second":2}')
        check(b'{"First":1,"second":2}')
        with pytest.raises(InvalidMessage):
            check(b'{"first":1,"Second":2,"second":3}')


def test_what_is_remembered_of_keys_has_a_bound() -> None:
    """Clients choose keys: many objects, many keys and long keys are judged, and not all kept."""
    for number in range(5000):
        check(b'{"a%d":1,"B":2}' % number)
    known = set(gate._known)
    check(b"{%b}" % b",".join(b'"k%d":1' % number for number in range(100)))
    check(b'{"%b":1}' % (b"x" * 65))

    assert 0 < len(known) <= len(gate._spelled) <= 4096
    assert gate._known == known


def test_too_many_separators_are_refused_before_parsing() -> None:
    """The count is of bytes, so the text need not even be JSON."""
    limits = Limits(max_separators=10)

    check(b"[0,0,0,0,0,0,0,0,0,0]", limits)
    with pytest.raises(InvalidMessage, match="max_separators"):
        check(b"[0,0,0,0,0,0,0,0,0,0,0", limits)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"b":{"c":[{"d":1}]}}',
        b'{"a" :1,"b"\n:{"c"\t: 1},"d":2}',
        rb'{"a\\":1,"\":":{"\\\"":1},"d":2}',
    ],
)
def test_too_many_keys_are_refused_before_parsing(text: bytes) -> None:
    """However they are written."""
    check(text, Limits(max_keys=4))
    with pytest.raises(InvalidMessage, match=r"max_keys \(3\)"):
        check(text, Limits(max_keys=3))


@pytest.mark.parametrize(
    "text", [b'{"a":"b:c:d:e"}', rb'["\":\":", "\\", ":::"]', b'{"a":"::::::', rb'{"a":"::\"::\"::\\', rb'{"a":"::::\"']
)
def test_colons_of_texts_are_no_keys(text: bytes) -> None:
    """Those of a text that never ends neither, which is refused for that."""
    if text.endswith((b"}", b"]")):
        check(text, Limits(max_keys=2))
    else:
        with pytest.raises(ParseError):
            check(text, Limits(max_keys=2))


def test_texts_that_never_end_are_read_once() -> None:
    """Each of a million escaped quotes could begin a text; a search from each would take hours."""
    with pytest.raises(ParseError):
        check(b'["' + b'\\":' * 1_000_000 + b"\\")


def test_a_key_that_is_too_long_to_be_known_is_not_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a million characters would become one of eighteen million."""
    folded: list[str] = []
    monkeypatch.setattr(gate, "fold", lambda key: folded.append(key) or key)

    gate.refuse_lookalikes(["\ufdfa" * 129, "x" * 128], {"method": "method"}, "it")

    assert folded == ["x" * 128]


def test_keys_that_would_cost_too_much_to_compare_are_refused() -> None:
    """Marks in the wrong order cost the square of their number, and some characters become eighteen."""
    marks, long, name = "a" + "\u0315\u0300" * 127, "\ufdfa" * 256, "e\u0301"

    for fine in ({marks: 1, "b": 2}, {long: 1, "b": 2}, {"\xe9" * 100_000: 1, "b": 2}, {name * 100_000: 1}):
        check(json.dumps(fine).encode())
    check(json.dumps([{f"{long[:-2]}{n:02}": 1, "b": 2} for n in range(32)]).encode())
    for costly in ({marks + "\u0315\u0300": 1, "b": 2}, {long + "\ufdfa": 1, "b": 2}, {name * 50_000: 1, "b": 2}):
        with pytest.raises(InvalidMessage, match="normal form"):
            check(json.dumps(costly).encode())
    with pytest.raises(InvalidMessage, match="normal form"):
        check(json.dumps([{f"{long[:-2]}{n:02}": 1, "c": 2} for n in range(33)]).encode())


def test_what_would_cost_too_much_to_fold_is_compared_without_its_case_only() -> None:
    """Names of tools come from upstreams, and no gate has looked at their forms."""
    assert gate.fold("\ufb01" * 256) == "fi" * 256
    assert gate.fold("X\ufb01" * 129) == "xfi" * 129
    assert gate.fold("\ufb01e\u0301" * 100) == "fie\u0301" * 100


def test_nothing_that_folds_to_ascii_was_longer_before() -> None:
    """Hence a key that is longer than each known one need not be folded."""
    composed = (chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    letters = [
        each for each in composed if unicodedata.normalize("NFD", each) != each == unicodedata.normalize("NFC", each)
    ]

    assert len(letters) > 900
    assert [each for each in letters if gate.fold(each).isascii()] == []


def test_keys_with_control_characters_are_folded_like_others() -> None:
    """Whatever stands between keys while they are folded together may stand in one of them, too."""
    control = "".join(map(chr, range(8)))

    for used in ("\0", control):
        check(json.dumps({f"\xe9{used}a": 1, f"\xe9{used}b": 2, used: 3}).encode())
        with pytest.raises(InvalidMessage, match="differ only by case or Unicode form"):
            check(json.dumps({f"\xe9{used}a": 1, f"\xc9{used}a": 2, used: 3}).encode())


def test_keys_beside_a_long_one_are_folded_like_others() -> None:
    """However long the keys of an object are together, none of them can be mistaken for another one."""
    for beside in ("x" * 300, "\xe9" * 300):
        with pytest.raises(InvalidMessage, match="differ only by case or Unicode form"):
            check(json.dumps({"file": 1, "\uff46ile": 2, beside: 3}).encode())


def test_a_text_over_the_size_limit_is_refused() -> None:
    """The limit is exact, and the error names it."""
    limits = Limits(max_message_size=10)

    check(b'"12345678"', limits)
    with pytest.raises(MessageTooLarge, match=r"max_message_size \(10 bytes\)"):
        check(b'"123456789"', limits)


def test_the_error_about_similar_keys_names_both() -> None:
    """Who gets the error can find the place."""
    with pytest.raises(InvalidMessage, match="'limit' and 'Limit'"):
        check(b'{"a":{"limit":1,"Limit":2}}')


def test_an_upstreams_text_that_fails_the_gate_is_the_upstreams_fault() -> None:
    """The same rules, another blame."""
    assert gate.check_upstream(b'{"a":1}') == {"a": 1}
    with pytest.raises(UpstreamProtocolError, match="Detected duplicate key"):
        gate.check_upstream(b'{"a":1,"a":2}')


def test_known_keys_must_be_spelled_exactly() -> None:
    """A key that folds to a known one is refused with the right spelling; unknown keys pass."""
    known = gate.known_keys("method", "progressToken")

    gate.refuse_lookalikes(["method", "progressToken", "other"], known, "it")
    for wrong in ("Method", "progresstoken", "\uff4dethod"):
        with pytest.raises(GatewayError, match="it has the key"):
            gate.refuse_lookalikes([wrong], known, "it")
