"""
Guards: which exchanges a stage is meant for.

`when:` is data, not an expression: every key given must match; a key with several patterns matches if one does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import final

from attrs import frozen

from .exchange import Exchange
from .options import option


@lru_cache(maxsize=4096)
def glob(pattern: str) -> re.Pattern[str]:
    """
    Compile a glob: `*` is any run of characters, `/` and `.` included; everything else is itself. Anchored.

    What stands between two stars is taken where it comes first and not tried again (atomic groups), which for globs
    finds the same matches: so no name a client makes up costs more than its length for each star.
    """
    first, *rest = map(re.escape, pattern.split("*"))
    if not rest:
        return re.compile(first)
    *between, last = rest
    return re.compile(first + "".join(f"(?>.*?{piece})" for piece in between) + ".*" + last, re.DOTALL)


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """A predicate that is true if one of some globs matches the whole text."""
    exact = frozenset(p for p in patterns if "*" not in p)
    globs = tuple(glob(p).fullmatch for p in patterns if "*" in p)
    if not globs:
        return exact.__contains__
    return lambda text: text in exact or any(match(text) for match in globs)


@final
@frozen
class When:
    """The guard of a stage: `when: {method: [tools/call], name: "db_*"}`."""

    method: tuple[str, ...] = option((), doc="Methods, as globs.", example=["tools/*"])
    name: tuple[str, ...] = option((), doc="Names of tools and prompts, uris of resources, as globs.", example="db_*")
    caller: tuple[str, ...] = option((), doc="Subjects of the caller, as globs.", example="ci-*")
    tenant: tuple[str, ...] = option((), doc="Tenants of the caller, as globs.", example="acme")
    source: tuple[str, ...] = option((), doc="Ids of sources, as globs.", example="public")

    def compile(self) -> Callable[[Exchange], bool]:
        """A predicate over exchanges: true if every key that was given matches."""
        tests: list[Callable[[Exchange], bool]] = []
        if self.method:
            method = matcher(self.method)
            tests.append(lambda x: method(x.request.method))
        if self.name:
            name = matcher(self.name)
            tests.append(lambda x: (target := x.target) is not None and name(target))
        if self.caller:
            caller = matcher(self.caller)
            tests.append(lambda x: caller(x.caller.subject))
        if self.tenant:
            tenant = matcher(self.tenant)
            tests.append(lambda x: x.caller.tenant is not None and tenant(x.caller.tenant))
        if self.source:
            source = matcher(self.source)
            tests.append(lambda x: source(x.source))
        if len(tests) == 1:
            return tests[0]
        return lambda x: all(test(x) for test in tests)
