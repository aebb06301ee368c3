"""Header forms of RFC 9110 section 11 and RFC 6750 section 3."""

from __future__ import annotations

import pytest

from sluiceway.middlewares.auth.challenges import TOKEN, render_challenge, split_authorization


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Bearer mF_9.B5f-4.1JqM", ("bearer", "mF_9.B5f-4.1JqM")),
        ("bEARER  a", ("bearer", "a")),
        ("Bearer", ("bearer", "")),
        ("Bearer ", ("bearer", "")),
        ("Basic YWxhZGRpbjpvcGVuc2VzYW1l", ("basic", "YWxhZGRpbjpvcGVuc2VzYW1l")),
        ("Bearer a b", ("bearer", "a b")),
        ("", None),
        (" Bearer a", None),
        ("Be\u00e4rer a", None),
        ("Bearer\ta", None),
    ],
)
def test_credentials_are_a_scheme_and_what_follows(value, expected):
    """The scheme is compared without case."""
    assert split_authorization(value) == expected


@pytest.mark.parametrize(
    ("text", "fits"),
    [("mF_9.B5f-4.1JqM", True), ("a+/~==", True), ("", False), ("a=b", False), ("a b", False), ("a,b", False)],
)
def test_a_token_is_a_b64token(text, fits):
    """RFC 6750 section 2.1."""
    assert (TOKEN.fullmatch(text) is not None) is fits


def test_parameters_are_quoted_strings():
    """What no quoted string of RFC 6750 may hold is replaced; nothing can break out of the quotes, or of the line."""
    assert render_challenge("Bearer", {}) == "Bearer"
    assert (
        render_challenge("Bearer", {"realm": "example", "error": 'in"va\\lid\r\nx: y', "scope": "a b"})
        == 'Bearer realm="example", error="in\'va/lid  x: y", scope="a b"'
    )
