"""Capabilities: what a pattern covers, and uris that have two readings."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluiceway.middlewares.access.capability import MAX_CANONICAL, Sort, canonical, parse_capability

LAW = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Other sessions run on the same machine: how long an example takes says nothing."""

SRV = parse_capability("resources:file:///srv/*")


@pytest.mark.parametrize(
    ("text", "sort", "name", "covered"),
    [
        ("tools:db_*", "tools", "db_read", True),
        ("tools:db_*", "prompts", "db_read", False),
        ("tools:db_*", "tools", "xdb_read", False),
        ("files.*", "tools", "files.read", True),
        ("files.*", "prompts", "files.read", True),
        ("files.*", "resources", "files.read", True),
        ("files.*", "methods", "files.read", False),
        ("files.*", "tools", "filesXread", False),
        ("methods:acme/*", "methods", "acme/ping", True),
        ("resources:a/*/b/*", "resources", "a/x/y/b/z", True),
        ("resources:a/*/b/*", "resources", "a/x/c/z", False),
        ("file:///srv/*", "resources", "file:///srv/a", True),
        ("file:///srv/*", "tools", "file:///srv/a", True),
        ("*", "tools", "anything", True),
        ("prompts:review", "prompts", "review", True),
        ("prompts:review", "prompts", "reviewer", False),
    ],
)
def test_a_pattern_covers_what_it_says(text: str, sort: Sort, name: str, covered: bool) -> None:
    """S4-CA-03, D-43: every star counts, a dot is a dot, anchored at both ends."""
    capability = parse_capability(text)

    assert covered == capability.allows(sort, name)
    assert covered == capability.denies(sort, name)


@pytest.mark.parametrize(
    "uri",
    [
        "file:///srv/../etc/passwd",
        "file:///srv/%2e%2e/etc/passwd",
        "file:///srv/%252e%252e/etc/passwd",
        "file:///srv/..%2fetc/passwd",
        "file:///srv/..%5cetc",
        "file:///srv/..\\etc",
        "file:///srv/a/../../etc",
        "file:///srv/" + "%" + "25" * 10 + "2e",
        "file:///srv/" + "a" * MAX_CANONICAL,
    ],
)
def test_a_uri_with_another_reading_outside_is_not_allowed(uri: str) -> None:
    """S1: what the policy reads is what the upstream would."""
    assert not SRV.allows("resources", uri)


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/shadow",
        "file:///srv/../etc/shadow",
        "FILE:///etc/shadow",
        "file://localhost/etc/shadow",
        "file:/etc/shadow",
        "file:///etc//shadow",
        "file:///%65tc/shadow",
        "file:///etc\\shadow",
        "file:///etc/./shadow",
        "file:///x/" + "%" + "25" * 10 + "2e",
    ],
)
def test_a_uri_is_denied_in_every_spelling(uri: str) -> None:
    """Also where the spelling hides too well to be sure."""
    assert parse_capability("resources:file:///etc/*").denies("resources", uri)


@pytest.mark.parametrize(
    ("uri", "form"),
    [
        ("docs://Guide/Intro", "docs://guide/Intro"),
        ("file:///srv/a%20b", "file:///srv/a b"),
        ("file:///", "file:///"),
        ("file:///../..", "file:///"),
        ("http://x/a/b/..", "http://x/a/"),
        ("mailto:A@b", "mailto:A@b"),
        ("a/./b//c/", "a/b/c/"),
        ("/x/../y", "/y"),
        ("file:///srv/{name}", "file:///srv/{name}"),
        ("", ""),
        ("%zz", "%zz"),
    ],
)
def test_the_canonical_form(uri: str, form: str) -> None:
    """For matching only; what goes upstream is what came."""
    assert form == canonical(uri)


def test_an_exact_pattern_allows_the_text_it_is() -> None:
    """An operator may name a uri that no wildcard would let through."""
    odd = parse_capability("resources:file:///srv/../odd")

    assert odd.allows("resources", "file:///srv/../odd")
    assert not odd.allows("resources", "file:///odd")


def test_a_pattern_may_hold_another_uri() -> None:
    """Pattern and uri are brought to the same form."""
    proxy = parse_capability("resources:proxy:///https://docs.example.com/*")

    assert proxy.allows("resources", "proxy:///https://docs.example.com/a")
    assert not proxy.allows("resources", "proxy:///https://evil.example.com/a")


@LAW
@given(st.text(st.sampled_from("ab:/.%2\\ef*"), max_size=20))
def test_the_canonical_form_is_one(uri: str) -> None:
    """To bring it to that form again changes nothing."""
    form = canonical(uri)

    assert form is None or form == canonical(form)


@pytest.mark.parametrize("text", ["tools:", "resources:", ""])
def test_a_capability_of_nothing_is_an_error(text: str) -> None:
    """Everything is a star."""
    with pytest.raises(ValueError, match="names nothing"):
        parse_capability(text)
