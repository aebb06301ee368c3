"""
Capabilities: which tools, prompts, resources and methods a rule is about.

Written `kind:pattern`, where the pattern is a glob whose star crosses `/` and `.` (D-43): `tools:db_*`,
`resources:file:///srv/*`, `prompts:review`, `methods:acme/*`. Without a kind it is about tools, prompts and resources
alike: `files.*`.

The name of a tool or prompt means the same to everybody. A uri does not: `file:///srv/%2e%2e/etc/passwd` begins as
`file:///srv/` does, and is another file. So a uri is read twice, as it is and in canonical form; who allows needs both
readings to match, who denies one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final, Literal, TypeAlias, final, get_args
from urllib.parse import unquote

from attrs import frozen

from sluiceway.pipeline.model.when import glob, matcher

MAX_DECODINGS: Final = 3
"""How often percent-encoding is taken off; what is still encoded then has no canonical form."""
MAX_CANONICAL: Final = 4096
"""Characters of the longest uri that has a canonical form."""

_ENCODED: Final = re.compile(r"%[0-9A-Fa-f]{2}")


Sort: TypeAlias = Literal["tools", "prompts", "resources", "methods"]
"""What a capability can be about, `methods` being those that MCP does not define; also the word before the colon."""

SORTS: Final[Mapping[str, Sort]] = {sort: sort for sort in get_args(Sort)}
_UNSORTED: Final[frozenset[Sort]] = frozenset({"tools", "prompts", "resources"})


@final
@frozen
class Capability:
    """One capability: sorts of things, and a glob over their names."""

    sorts: frozenset[Sort]
    glob: str
    """The pattern as it is written."""
    pattern: re.Pattern[str]
    canonical: re.Pattern[str]
    """The same for the canonical form of uris."""
    exact: bool
    """Whether the pattern has no star."""

    def allows(self, sort: Sort, name: str) -> bool:
        """Whether it covers a name beyond doubt."""
        if sort not in self.sorts or self.pattern.fullmatch(name) is None:
            return False
        if sort != "resources" or self.exact:
            return True
        form = canonical(name)
        return form is not None and self.canonical.fullmatch(form) is not None

    def denies(self, sort: Sort, name: str) -> bool:
        """Whether it covers a name in any reading."""
        if sort not in self.sorts:
            return False
        if self.pattern.fullmatch(name) is not None:
            return True
        if sort != "resources":
            return False
        form = canonical(name)
        return form is None or self.canonical.fullmatch(form) is not None


def parse_capability(text: str) -> Capability:
    """
    Read a capability.

    Raises:
        ValueError: It is empty.
    """
    word, colon, rest = text.partition(":")
    sort = SORTS.get(word) if colon else None
    sorts, pattern = (_UNSORTED, text) if sort is None else (frozenset({sort}), rest)
    if not pattern:
        raise ValueError(f"{text!r} names nothing; write {text}* for everything")
    return Capability(sorts, pattern, glob(pattern), glob(canonical(pattern) or pattern), "*" not in pattern)


def covering(capabilities: Iterable[Capability], *, denies: bool) -> Callable[[Sort, str], bool]:
    """Whether one of some capabilities covers a name: beyond doubt, or, of a rule that denies, in any reading."""
    all_of = tuple(capabilities)
    names = {
        sort: matcher(tuple(each.glob for each in all_of if sort in each.sorts))
        for sort in SORTS
        if sort != "resources"
    }
    uris = tuple(each for each in all_of if "resources" in each.sorts)

    def covers(sort: Sort, name: str) -> bool:
        if sort != "resources":
            return names[sort](name)
        return any(each.denies(sort, name) if denies else each.allows(sort, name) for each in uris)

    return covers


def canonical(uri: str) -> str | None:
    """
    A uri without what upstreams are known to read differently, for matching only: percent-encoding taken off, `\\` as
    `/`, runs of `/` joined, `.` and `..` resolved, scheme and host in lower case, `file://localhost` as `file://`.

    Returns:
        None if it is too long, or encoded too often, to be sure.
    """
    return _canonical(uri) if len(uri) <= MAX_CANONICAL else None


@lru_cache(maxsize=512)
def _canonical(uri: str) -> str | None:
    text = uri
    for _ in range(MAX_DECODINGS):
        if "%" not in text:
            break
        text = unquote(text)
    if _ENCODED.search(text):
        return None
    text = text.replace("\\", "/")
    scheme, colon, rest = text.partition(":")
    if not colon or "/" in scheme:
        return _resolve(text)
    scheme = scheme.lower()
    if not rest.startswith("//"):
        return f"{scheme}:{'//' if scheme == 'file' and rest.startswith('/') else ''}{_resolve(rest)}"
    host, slash, path = rest[2:].partition("/")
    host = host.lower()
    if scheme == "file" and host == "localhost":
        host = ""
    return f"{scheme}://{host}{_resolve(slash + path)}"


def _resolve(path: str) -> str:
    """Joins slashes and resolves dot segments (RFC 3986 section 5.2.4); never leaves the root."""
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == ".." and kept:
            kept.pop()
        elif segment not in ("", ".", ".."):
            kept.append(segment)
    end = "/" if kept and segments[-1] in ("", ".", "..") else ""
    return ("/" if path.startswith("/") else "") + "/".join(kept) + end
