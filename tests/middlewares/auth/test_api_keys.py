"""Keys as they are kept."""

from __future__ import annotations

import hmac
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.middlewares.auth.api_keys import (
    SHAPE,
    ApiKey,
    check_pepper,
    digest_of,
    digest_under,
    entry_of,
    make_key,
    parse_key,
    parse_keys,
    raw_digest,
    render_keys,
    table_of,
)

PEPPER = b"0123456789abcdef"


def key(name="a", **more):
    return ApiKey(**{"id": name, "digest": digest_of(PEPPER, f"slw_{name}"), "subject": "ana"} | more)


def test_a_new_key_is_256_bits_behind_a_prefix_that_scanners_know():
    """And never the same twice."""
    keys = {make_key() for _ in range(100)}

    assert len(keys) == 100
    assert all(each.startswith("slw_") and len(each) == 4 + 43 and SHAPE.fullmatch(each) for each in keys)


def test_a_digest_is_the_hmac_under_the_pepper():
    """RFC 4231 test case 2."""
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"

    assert digest_of(b"Jefe", "what do ya want for nothing?") == f"hmac-sha256:{expected}"
    assert raw_digest(key()) == hmac.digest(PEPPER, b"slw_a", "sha256")


@given(st.binary(max_size=200), st.binary(max_size=100))
def test_the_quick_digest_is_the_hmac(pepper, key):
    """For peppers shorter and longer than a block."""
    assert digest_under(pepper)(key) == hmac.digest(pepper, key, "sha256")


def test_files_are_read_back_as_they_were_written():
    """Whatever a key has."""
    keys = (key("a", tenant="t", tenants=("u",), roles=("r",), scopes=("s",), note="n"),
            key("b", expires=datetime(2027, 1, 31, tzinfo=UTC)))  # fmt: skip

    assert parse_keys(render_keys(keys)) == keys
    assert set(table_of(keys, "")) == {raw_digest(each) for each in keys}


def test_expiry_is_a_moment():
    """Or never."""
    assert entry_of(key(), "").expires == float("inf")
    assert entry_of(key(expires=datetime.fromtimestamp(1_800_000_000, UTC)), "x:").expires == 1_800_000_000


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ([key("a"), key("a", digest=digest_of(PEPPER, "other"))], "'a' is there twice"),
        ([key("a"), key("b", digest=key("a").digest)], "'b' is the same as another one"),
        ([key("")], "needs an id and a subject"),
        ([key(subject="")], "needs an id and a subject"),
        ([key(digest="sha256:00")], "its digest is not hmac-sha256:"),
        ([key(digest="hmac-sha256:zz")], "its digest is not hmac-sha256:"),
        ([key(digest="hmac-sha256:00")], "its digest is not hmac-sha256:"),
        ([key(expires=datetime(2027, 1, 1))], "expires needs a time zone"),
    ],
)
def test_files_with_a_mistake_name_the_key(keys, complaint):
    """And show no digest."""
    with pytest.raises(ValueError, match=complaint) as caught:
        parse_keys(render_keys(keys))

    assert "hmac-sha256:0" not in str(caught.value)


def test_there_is_a_bound(monkeypatch):
    """On what one file holds."""
    monkeypatch.setattr("sluiceway.middlewares.auth.api_keys.MAX_KEYS", 1)
    with pytest.raises(ValueError, match="2 keys; at most 1"):
        parse_keys(render_keys([key("a"), key("b")]))


@pytest.mark.parametrize("data", [b"", b"[]", b'{"keys": [1]}', b'{"key": []}', b"\xff", b"[" * 100_000])
def test_rubbish_is_no_file_of_keys(data):
    """Nor an entry of a store."""
    with pytest.raises(ValueError, match="not a file of keys"):
        parse_keys(data)
    with pytest.raises(ValueError, match="not a key"):
        parse_key(data)


def test_a_pepper_has_a_least_length():
    """In bytes."""
    assert check_pepper("0123456789abcdef") == PEPPER
    with pytest.raises(ValueError, match="openssl rand"):
        check_pepper("0123456789abcde")


def test_files_are_fit_for_people():
    """Indented, and without what a key has not."""
    text = render_keys([key()]).decode()

    assert text.endswith("}\n")
    assert list(json.loads(text)["keys"][0]) == ["id", "digest", "subject"]
