"""What is known of whose a resource is, learned from what upstreams listed and answered. Bounded."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, final

from attrs import define, field

from .naming import Upstream
from .templates import Template

MAX_OWNED: Final = 10_000
"""Uris remembered for one client; the longest unused is forgotten first."""
MAX_TEMPLATES: Final = 1_000
"""Uri templates remembered for one client."""


@final
@define(eq=False)
class Owners:
    """Ids of upstreams by the key of something they own."""

    maximum: int = MAX_OWNED
    _owners: OrderedDict[str, tuple[Upstream, ...]] = field(factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._owners)

    def learn(self, key: str, upstream: Upstream) -> tuple[Upstream, ...]:
        """
        Note an owner.

        Returns:
            Everybody who is known to own the key, in the order of the configuration; more than one is a collision.
        """
        known = self._owners.get(key, ())
        if upstream not in known:
            known = tuple(sorted((*known, upstream), key=lambda each: each.index))
            self._owners[key] = known
        self._owners.move_to_end(key)
        if len(self._owners) > self.maximum:
            self._owners.popitem(last=False)
        return known

    def of(self, key: str) -> tuple[Upstream, ...]:
        """Everybody who is known to own the key."""
        found = self._owners.get(key, ())
        if found:
            self._owners.move_to_end(key)
        return found


@final
@define(eq=False)
class Templates:
    """Uri templates and whose they are."""

    _known: OrderedDict[str, tuple[Template, Upstream]] = field(factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, text: str, upstream: Upstream) -> Upstream:
        """Note a template; of two upstreams with the same one, the first keeps it. Returns whose it is."""
        known = self._known.get(text)
        if known is None or upstream.index < known[1].index:
            self._known[text] = (Template(text), upstream)
            if len(self._known) > MAX_TEMPLATES:
                self._known.popitem(last=False)
            return upstream
        return known[1]

    def owner(self, uri: str) -> Upstream | None:
        """Whose template matches a uri, or is it; the one with the most literal text."""
        exact = self._known.get(uri)
        if exact is not None:
            return exact[1]
        matching = [each for each in self._known.values() if each[0].matches(uri)]
        if not matching:
            return None
        return max(matching, key=lambda each: (each[0].literal, -each[1].index))[1]
