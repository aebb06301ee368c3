"""
RFC 6570 templates: those of level 1, `user://{id}/data`, and at the end the query of level 3, `log://all{?since,limit}`.

A variable stands for one path segment: anything but `/`, `?` and `#`. Values come out percent-decoded, so a value may
hold a slash (`%2F`); a handler treats it as data and never as a path. Variables of the query may be left out, and come
in any order.
"""

from __future__ import annotations

import re
from typing import Final, final
from urllib.parse import unquote

from attrs import field, frozen

_VARIABLE: Final = re.compile(r"\{([^{}]*)\}")
_QUERY: Final = re.compile(r"\{\?([^{}]*)\}$")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@final
@frozen
class UriTemplate:
    """
    A compiled template.

    Raises:
        ValueError: It has no variable, repeats one, or uses an operator of a higher level.
    """

    text: str
    names: tuple[str, ...] = field(init=False)
    """Its variables, in order; those of the query last."""
    optional: frozenset[str] = field(init=False)
    """Those of the query."""
    literal: int = field(init=False)
    """Characters outside variables: of two templates that match, the one with more is meant."""
    _pattern: re.Pattern[str] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        query = _QUERY.search(self.text)
        path = self.text if query is None else self.text[: query.start()]
        optional = () if query is None else tuple(query[1].split(","))
        names = (*_VARIABLE.findall(path), *optional)
        rest = _VARIABLE.sub("", path)
        if not names or "{" in rest or "}" in rest:
            raise ValueError(f"{self.text!r} is not a URI template with {{variables}}")
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{{{name}}} in {self.text!r}: only plain names, and {{?a,b}} at the end, are served")
        if len(set(names)) != len(names):
            raise ValueError(f"{self.text!r} names a variable twice")
        parts = _VARIABLE.split(path)
        pattern = "".join(f"(?P<{part}>[^/?#]+)" if odd % 2 else re.escape(part) for odd, part in enumerate(parts))
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "optional", frozenset(optional))
        object.__setattr__(self, "literal", len(rest))
        object.__setattr__(self, "_pattern", re.compile(pattern))

    def match(self, uri: str) -> dict[str, str] | None:
        """The values of the variables it gives, if the uri is an expansion of the template, else None."""
        path, _, query = uri.partition("?") if self.optional else (uri, "", "")
        match = self._pattern.fullmatch(path)
        if match is None:
            return None
        values = {name: unquote(value) for name, value in match.groupdict().items()}
        for pair in query.split("&") if query else ():
            name, equals, value = pair.partition("=")
            if not equals or name not in self.optional or name in values:
                return None
            values[name] = unquote(value)
        return values
