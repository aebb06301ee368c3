"""
Who offers what, where the upstreams of a group are not quite equal: learned from the lists they gave. No I/O.

A request goes to those that have listed what it is about; if nobody has, to those whose lists are not known, or to all:
who is not known to lack a thing is asked. What was listed for any caller counts, for it decides only where a request is
sent: whether the caller may have it, the upstream says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, final

from attrs import define, field

from sluiceway.pipeline.model.exchange import Exchange

from ..route.templates import Template
from .member import Member

FRESH_S: Final = 300.0
"""After this long a list takes the place of what was known; before, it adds to it."""
MAX_NAMES: Final = 10_000
"""Names of one kind that are remembered of one upstream; of one with more nothing is known."""

KIND_OF: Final[Mapping[str, str]] = {
    "tools/call": "tools/list",
    "prompts/get": "prompts/list",
    "resources/read": "resources/list",
}
"""The list in which the target of a method stands."""
TEMPLATES: Final = "resources/templates/list"


@final
@define(eq=False)
class _Known:
    """What one upstream has listed of one kind."""

    since: float
    names: set[str]
    templates: tuple[Template, ...] = ()

    def has(self, target: str) -> bool:
        return target in self.names or any(template.matches(target) for template in self.templates)


@final
@define(eq=False)
class Offers:
    """The lists of a group."""

    _known: dict[tuple[str, str], _Known] = field(factory=dict)

    def learn(self, method: str, member_id: str, names: Iterable[str], now: float) -> None:
        """An upstream has given a whole list."""
        listed = set(names)
        known = self._known.get((method, member_id))
        if known is not None and now - known.since < FRESH_S:
            listed |= known.names
        if len(listed) > MAX_NAMES:
            self._known.pop((method, member_id), None)
            return
        templates = tuple(map(Template, sorted(listed))) if method == TEMPLATES else ()
        since = known.since if known is not None and now - known.since < FRESH_S else now
        self._known[method, member_id] = _Known(since, listed, templates)

    def forget(self, member_id: str, methods: Iterable[str]) -> None:
        """An upstream says that lists of it have changed."""
        for method in methods:
            self._known.pop((method, member_id), None)

    def knows(self, method: str, members: Sequence[Member]) -> bool:
        """Whether one of some upstreams has given such a list."""
        return any((method, member.id) in self._known for member in members)

    def who_has(self, exchange: Exchange, members: Sequence[Member]) -> tuple[Member, ...]:
        """Those of some upstreams that have listed what an exchange is about; none if it is about nothing."""
        method, target = KIND_OF.get(exchange.method), exchange.target
        if method is None or target is None:
            return ()
        return tuple(member for member in members if self._has(method, member, target))

    def who_may_have(self, exchange: Exchange, members: tuple[Member, ...]) -> tuple[Member, ...]:
        """Those of some upstreams that are not known to lack what an exchange is about; all if that is nobody."""
        method = KIND_OF.get(exchange.method)
        if method is None or exchange.target is None:
            return members
        return tuple(member for member in members if (method, member.id) not in self._known) or members

    def _has(self, method: str, member: Member, target: str) -> bool:
        known = self._known.get((method, member.id))
        if known is not None and target in known.names:
            return True
        listed = self._known.get((TEMPLATES, member.id)) if method == "resources/list" else None
        return listed is not None and listed.has(target)
