"""nst/JSONTestSuite through the gate: nothing invalid accepted, nothing valid refused without a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluiceway.pipeline.protocol.codec import decode_upstream
from sluiceway.pipeline.protocol.errors import GatewayError, UpstreamProtocolError
from sluiceway.pipeline.protocol.gate import check

FILES = sorted((Path(__file__).parents[2] / "data" / "jsontestsuite" / "test_parsing").glob("*.json"))

REFUSED_ON_PURPOSE = {
    "y_object_duplicated_key.json",
    "y_object_duplicated_key_and_value.json",
}
"""RFC 8259 leaves the meaning of a duplicate key open, so parsers disagree; a gateway must not."""

IMPLEMENTATION_DEFINED_ACCEPTED = {
    "i_number_double_huge_neg_exp.json": "underflow to 0 is what every parser does",
    "i_number_real_underflow.json": "underflow to 0 is what every parser does",
    "i_number_too_big_neg_int.json": "fits a double; forwarded as it was written",
    "i_number_too_big_pos_int.json": "fits a double; forwarded as it was written",
    "i_number_very_big_negative_int.json": "fits a double; forwarded as it was written",
}
"""Of the files whose fate is the implementation's: the ones that pass. All others are refused."""


def _accepted(path: Path) -> bool:
    try:
        check(path.read_bytes())
    except GatewayError:
        return False
    return True


def test_the_whole_suite_is_there() -> None:
    """A missing data file must not look like a pass."""
    assert {kind: sum(f.name[0] == kind for f in FILES) for kind in "yni"} == {"y": 95, "n": 188, "i": 35}


@pytest.mark.parametrize("path", [f for f in FILES if f.name.startswith("y_")], ids=lambda f: f.name)
def test_valid_json_is_accepted(path: Path) -> None:
    """Except what we refuse on purpose."""
    assert (path.name not in REFUSED_ON_PURPOSE) == _accepted(path)


@pytest.mark.parametrize("path", [f for f in FILES if f.name.startswith("n_")], ids=lambda f: f.name)
def test_invalid_json_is_refused(path: Path) -> None:
    """With an error of ours, whatever it is: no crash, no RecursionError."""
    assert not _accepted(path)


@pytest.mark.parametrize("path", [f for f in FILES if f.name.startswith("i_")], ids=lambda f: f.name)
def test_what_the_standard_leaves_open_is_decided(path: Path) -> None:
    """Pinned, so that a new parser version cannot change it unnoticed."""
    assert (path.name in IMPLEMENTATION_DEFINED_ACCEPTED) == _accepted(path)


@pytest.mark.parametrize("path", [f for f in FILES if f.name[0] in "yn"], ids=lambda f: f.name)
def test_an_upstreams_body_is_json_though_it_is_not_decoded(path: Path) -> None:
    """What is forwarded unread is still checked: only duplicate keys are left to whoever reads them."""
    text = b'{"jsonrpc":"2.0","id":1,"result":{"x":' + path.read_bytes() + b"}}"
    if path.name.startswith("y_"):
        decode_upstream(text)
        return
    with pytest.raises(UpstreamProtocolError):
        decode_upstream(text)
