"""
RFC 6570 level 1 templates: `user://{id}/data`, both ways.

A variable stands for one path segment: anything but `/`, `?` and `#`. Values come out percent-decoded, so a value may
hold a slash (`%2F`); a handler treats it as data and never as a path.
"""

from __future__ import annotations

import re
from typing import Final, final
from urllib.parse import unquote

from attrs import field, frozen

_VARIABLE: Final = re.compile(r"\{([^{}]*)\}")
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
    """Its variables, in order."""
    literal: int = field(init=False)
    """Characters outside variables: of two templates that match, the one with more is meant."""
    _pattern: re.Pattern[str] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        names = tuple(_VARIABLE.findall(self.text))
        rest = _VARIABLE.sub("", self.text)
        if not names or "{" in rest or "}" in rest:
            raise ValueError(f"{self.text!r} is not a URI template with {{variables}}")
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{{{name}}} in {self.text!r}: only plain names (RFC 6570 level 1) are served")
        if len(set(names)) != len(names):
            raise ValueError(f"{self.text!r} names a variable twice")
        parts = _VARIABLE.split(self.text)
        pattern = "".join(f"(?P<{part}>[^/?#]+)" if odd % 2 else re.escape(part) for odd, part in enumerate(parts))
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "literal", len(rest))
        object.__setattr__(self, "_pattern", re.compile(pattern))

    def match(self, uri: str) -> dict[str, str] | None:
        """The variables' values if the uri is an expansion of the template, else None."""
        match = self._pattern.fullmatch(uri)
        return None if match is None else {name: unquote(value) for name, value in match.groupdict().items()}
