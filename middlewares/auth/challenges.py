"""`WWW-Authenticate` values, and the credentials in `Authorization` (RFC 9110 section 11, RFC 6750)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_CREDENTIALS: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?: +(.*))?")
TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What a bearer token consists of (RFC 6750 section 2.1, `b64token`)."""


def split_authorization(value: str) -> tuple[str, str] | None:
    """The scheme, in lower case, and what follows it; None if there is no scheme."""
    match = _CREDENTIALS.fullmatch(value)
    return (match[1].lower(), match[2] or "") if match is not None else None


def render_challenge(scheme: str, parameters: Mapping[str, str]) -> str:
    """
    A challenge whose parameters are quoted strings.

    Characters that no quoted string of RFC 6750 may hold become spaces or apostrophes: nothing that comes from outside
    gets here, but the header must be well-formed whatever an operator writes.
    """
    rendered = ", ".join(f'{name}="{_quotable(value)}"' for name, value in parameters.items())
    return f"{scheme} {rendered}" if rendered else scheme


def _quotable(value: str) -> str:
    text = value.replace('"', "'").replace("\\", "/")
    return "".join(character if " " <= character <= "~" else " " for character in text)
