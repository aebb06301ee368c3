"""
Whether a uri can come from a URI template (RFC 6570), to find out whose it is.

Only the text between the expressions is compared, in order and in linear time: templates come from upstreams and uris
from clients, so nothing here may take long. An upstream that is asked for a uri it does not serve says so.
"""

from __future__ import annotations

import re
from typing import Final, final

from attrs import field, frozen

_EXPRESSION: Final = re.compile(r"\{[^{}]*\}")


@final
@frozen
class Template:
    """A template, taken apart."""

    text: str
    parts: tuple[str, ...] = field(init=False)
    """The literal text before, between and after its expressions."""

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(_EXPRESSION.split(self.text)))

    @property
    def literal(self) -> int:
        """Characters outside expressions: of two templates that match, the one with more is meant."""
        return sum(map(len, self.parts))

    def matches(self, uri: str) -> bool:
        """Whether the uri begins, goes on and ends as the template does."""
        first, *middle = self.parts
        if not middle:
            return uri == first
        last = middle.pop()
        if not uri.startswith(first) or not uri.endswith(last) or len(uri) < len(first) + len(last):
            return False
        at, end = len(first), len(uri) - len(last)
        for part in middle:
            at = uri.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True
