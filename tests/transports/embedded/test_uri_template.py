"""RFC 6570 level 1, both ways."""

from __future__ import annotations

import pytest

from sluiceway.transports.embedded.uri_template import UriTemplate


@pytest.mark.parametrize(
    ("template", "uri", "values"),
    [
        ("user://{id}/data", "user://7/data", {"id": "7"}),
        ("user://{id}/data", "user://a%2Fb/data", {"id": "a/b"}),
        ("user://{id}/data", "user://%C3%A9/data", {"id": "é"}),
        ("x://{a}.{b}", "x://1.2", {"a": "1", "b": "2"}),
        ("user://{id}/data", "user://7/data/more", None),
        ("user://{id}/data", "user://a/b/data", None),
        ("user://{id}/data", "user:///data", None),
        ("a.b://{id}", "aXb://1", None),
    ],
)
def test_a_template_matches_its_expansions_only(template: str, uri: str, values: dict[str, str] | None) -> None:
    """A variable is one segment, values are decoded, and literal text is literal."""
    assert values == UriTemplate(template).match(uri)


@pytest.mark.parametrize("text", ["plain://x", "x://{a", "x://{}", "x://{+path}", "x://{a*}", "x://{a}{a}", "x://{a}}"])
def test_what_is_not_level_1_is_refused(text: str) -> None:
    """Operators, repeated and nameless variables, and loose braces are errors at registration."""
    with pytest.raises(ValueError, match=text[:3]):
        UriTemplate(text)
