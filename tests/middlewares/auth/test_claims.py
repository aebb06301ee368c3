"""Which claim says what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.middlewares.auth.claims import ClaimMap, claim_at, closure, words_of
from sluiceway.middlewares.auth.tokens import TokenRejected


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("realm_access.roles", ["a"]),
        ("https://example.com/roles", ["b"]),
        ("a.b", 1),
        ("realm_access.other", None),
        ("sub.more", None),
        ("none", None),
        ("", None),
    ],
)
def test_a_claim_is_found_by_its_name_or_by_its_path(path, value):
    """Exactly that name first: names may have dots."""
    claims = {
        "realm_access": {"roles": ["a"]}, "https://example.com/roles": ["b"], "a.b": 1, "a": {"b": 2}, "sub": "ana",
    }  # fmt: skip

    assert claim_at(claims, path) == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a  b", {"a", "b"}),
        (["a b", "c", "", 7], {"a b", "c"}),
        (None, set()),
        (7, set()),
        ({"a": 1}, set()),
        ("", set()),
    ],
)
def test_words_are_a_list_or_a_text(value, words):
    """Whatever else it is, it is none."""
    assert words_of(value) == words


@pytest.mark.parametrize("value", [["w"] * 257, "w " * 257, ["w" * 257], "w" * 257])
def test_words_are_bounded(value):
    """They become keys and log lines."""
    with pytest.raises(TokenRejected, match="malformed claims"):
        words_of(value)


@pytest.mark.parametrize("subject", ["s" * 257, "a\x00b", ["ana"], 7, True])
def test_a_subject_is_a_short_text(subject):
    """Or the token names nobody."""
    claims = ClaimMap("sub", (), None, None, (), "", {})
    with pytest.raises(TokenRejected, match="malformed claims"):
        claims.caller({"sub": subject}, "c")


def test_the_first_claim_of_scopes_counts():
    """Even if it is empty: another claim must not add to what a token does not grant."""
    claims = ClaimMap("sub", ("scope", "scp"), None, None, (), "", {})

    assert claims.caller({"sub": "a", "scope": "", "scp": "x"}, "c").scopes == frozenset()
    assert claims.caller({"sub": "a", "scp": "x"}, "c").scopes == {"x"}


@given(
    st.dictionaries(st.sampled_from("abcde"), st.lists(st.sampled_from("abcdef"), max_size=4)),
    st.sampled_from("abcdef"),
)
def test_what_a_scope_includes_is_complete_and_ends(implies, scope):
    """Everything that is reached is included with all it includes itself, circles or not."""
    found = closure(implies)
    claims = ClaimMap("sub", (), None, None, (), "", found)
    granted = claims.with_implied(frozenset({scope}))

    assert scope in granted
    for each in granted:
        assert set(implies.get(each, ())) <= granted
