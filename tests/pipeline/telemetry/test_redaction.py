"""What a log line shows of a value from outside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.protocol.messages import encode_json
from sluiceway.pipeline.telemetry.redaction import (
    LEFT_OUT,
    MASK,
    MAX_CHARS,
    MAX_DEPTH,
    MAX_VALUES,
    Redaction,
    clip,
    digest,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=20), inner, max_size=8),
    max_leaves=200,
)


@pytest.mark.parametrize(
    "key",
    ["password", "userPassword", "api_key", "apiKey", "API-Key", "access_token", "Authorization", "Set-Cookie",
     "client-secret", "privateKey", "mcp-session-id", "requestState", "aws_credentials"],
)  # fmt: skip
def test_secret_sounding_keys_are_masked(key):
    """Names are compared without case, `-` and `_`; the value is masked whatever its type."""
    assert Redaction()({key: {"nested": "canary"}}) == {key: MASK}


@pytest.mark.parametrize("key", ["name", "path", "author", "key", "pass", "cook"])
def test_other_keys_are_shown(key):
    """A key that only resembles a secret's is left alone."""
    assert Redaction()({key: "x"}) == {key: "x"}


def test_keys_are_masked_at_every_depth_and_in_lists():
    """Nesting hides nothing from the mask."""
    assert Redaction()([{"a": [{"token": "canary"}]}]) == [{"a": [{"token": MASK}]}]


def test_own_keys_replace_the_default():
    """A list of one's own is the whole list."""
    assert Redaction(["iban"])({"IBAN": 1, "token": 2}) == {"IBAN": MASK, "token": 2}


def test_long_text_is_cut_in_values_and_keys():
    """The cut says how much is missing."""
    assert Redaction()({"k" * 201: "v" * 1000}) == {"k" * 200 + "...(+1)": "v" * 200 + "...(+800)"}


def test_deep_values_are_left_out():
    """Below the deepest level there is a marker."""
    deep = []
    for _ in range(50):
        deep = [deep]
    shown, levels = Redaction()(deep), 0
    while shown != LEFT_OUT:
        shown, levels = shown[0], levels + 1

    assert levels == MAX_DEPTH


@pytest.mark.parametrize("wide", [list(range(1000)), {str(n): n for n in range(1000)}])
def test_wide_values_are_left_out(wide):
    """A container shows its beginning, and that there is more."""
    shown = Redaction()(wide)

    assert len(shown) == MAX_VALUES
    assert list(shown)[-1] == LEFT_OUT


@given(JSON)
def test_the_copy_is_bounded_and_the_original_unchanged(value):
    """Whatever comes in, what goes out fits a log line."""
    before = encode_json(value)
    shown = encode_json(Redaction()(value))

    assert len(shown) <= (MAX_VALUES + 10) * (MAX_CHARS + 20) * 12
    assert encode_json(value) == before


def test_clip_keeps_what_fits():
    """Text of exactly the limit is whole."""
    assert (clip("abc", 3), clip("abcd", 3)) == ("abc", "abc...(+1)")


def test_digest_ignores_the_order_of_keys():
    """Equal values have equal digests; others do not."""
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest(None).startswith("sha256:")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://ana:pw@h/x?api_key=s&q=1", "https://***@h/x?api_key=***&q=1"),
        ("https://h/x#access_token=s", "https://h/x#access_token=***"),
        ("db://t?%61ccess_token=s#f", "db://t?%61ccess_token=***#f"),
        ("see postgres://u:p@h/db and more", "see postgres://***@h/db and more"),
        ("file:///notes.md?q=1", "file:///notes.md?q=1"),
        ("a=b?token=c", "a=b?token=c"),
    ],
)
def test_secrets_in_uris_are_masked(uri, shown):
    """Passwords, and arguments by their names, wherever in a value a uri stands; other text stays as it is."""
    assert Redaction().uri(uri) == shown
    assert Redaction()({"uri": [uri]}) == {"uri": [shown]}
