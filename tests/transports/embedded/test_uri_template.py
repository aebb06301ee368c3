"""RFC 6570: variables in the path, and a query at the end."""

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
        ("log://all{?a,b}", "log://all", {}),
        ("log://all{?a,b}", "log://all?", {}),
        ("log://all{?a,b}", "log://all?b=x%26y&a=", {"a": "", "b": "x&y"}),
        ("log://{day}{?a}", "log://1?a=2", {"day": "1", "a": "2"}),
        ("log://all{?a,b}", "log://all?c=1", None),
        ("log://all{?a,b}", "log://all?a=1&a=2", None),
        ("log://all{?a,b}", "log://all?a", None),
        ("log://{day}{?a}", "log://1?day=2", None),
        ("log://{day}", "log://1?a=2", None),
    ],
)
def test_a_template_matches_its_expansions_only(template: str, uri: str, values: dict[str, str] | None) -> None:
    """A variable is one segment, values are decoded, and literal text is literal."""
    assert values == UriTemplate(template).match(uri)


@pytest.mark.parametrize(
    "text",
    ["plain://x", "x://{a", "x://{}", "x://{+path}", "x://{a*}", "x://{a}{a}", "x://{a}}",
    "x://{?a}/b", "x://{a}{?a}", "x://{?}", "x://{?a,}", "x://{?a b}", "x://{&a}"],
)  # fmt: skip
def test_what_is_not_served_is_refused(text: str) -> None:
    """Operators, repeated and nameless variables, and loose braces are errors at registration."""
    with pytest.raises(ValueError, match=text[:3]):
        UriTemplate(text)
