"""
The names clients use, and whose they are.

Where every upstream but one has a prefix, a name says by itself where it goes: a look into a dict for each separator in
the name, however many upstreams and tools there are. Where several have none, a table is made of all their lists
(`NameTable`). Names are compared as people and models see them: without regard to case, Unicode form and characters of
no width; they are used exactly as they are.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, final

from attrs import define, field, frozen

from sluiceway.pipeline.model.exchange import Service
from sluiceway.pipeline.model.when import matcher
from sluiceway.pipeline.protocol.gate import fold

Policy = Literal["error", "first", "prefix"]


def fold_name(name: str) -> str:
    """The form in which names that look alike are equal: NFKC, case folding, no characters of no width."""
    folded = fold(name)
    return folded if folded.isascii() else "".join(c for c in folded if unicodedata.category(c) != "Cf")


@final
class Exposure:
    """
    What one upstream shows of one kind, and under which names.

    Args:
        allow: Globs.
        deny: Globs; they win.
        rename: Other names, by the upstream's own.
    """

    def __init__(
        self, allow: Iterable[str] = ("*",), deny: Iterable[str] = (), rename: Mapping[str, str] | None = None
    ) -> None:
        self._allowed: Callable[[str], bool] = matcher(allow)
        self._denied: Callable[[str], bool] = matcher(deny)
        self._rename = dict(rename or {})
        self._back = {new: old for old, new in self._rename.items()}

    def shows(self, own: str) -> bool:
        """Whether clients see this name or uri of the upstream."""
        return self._allowed(own) and not self._denied(own)

    def local(self, own: str) -> str | None:
        """The name clients see, without prefix; None if they see none, or if a renamed one has taken it."""
        if not self.shows(own):
            return None
        if own in self._back and own not in self._rename:
            return None
        return self._rename.get(own, own)

    def own(self, local: str) -> str | None:
        """The upstream's own name for one that clients use; None if there is none of that name for them."""
        own = self._back.get(local)
        if own is None:
            if local in self._rename:
                return None
            own = local
        return own if self.shows(own) else None


@final
@frozen(eq=False)
class Upstream:
    """One of the sinks a route sends to."""

    id: str
    index: int
    """Its place in `to`."""
    service: Service
    """The sink, behind its own chain."""
    prefix: str
    """With separator; what its names begin with, or would where a collision asks for it. May be empty."""
    bare: bool
    """Its names have no prefix."""
    tools: Exposure = field(factory=Exposure)
    prompts: Exposure = field(factory=Exposure)
    resources: Exposure = field(factory=Exposure)

    def names(self, kind: str) -> Exposure:
        """What it shows of `tools` or `prompts`."""
        return self.tools if kind == "tools" else self.prompts


Target = tuple[Upstream, str]
"""An upstream, and its own name for what is meant."""


@final
class Directory:
    """
    The upstreams by prefix.

    Args:
        upstreams: In the order of the configuration.
        separator: Between prefixes and names.
    """

    def __init__(self, upstreams: Sequence[Upstream], separator: str) -> None:
        self._separator = separator
        self._by_prefix = {u.prefix: u for u in upstreams if not u.bare}
        self._bare = [u for u in upstreams if u.bare]
        self.needs_table = len(self._bare) > 1
        """Whether names do not say by themselves where they go."""

    def prefixed(self, name: str) -> tuple[Upstream, str] | None:
        """The upstream whose prefix a name has, and the rest of the name."""
        width = len(self._separator)
        at = name.find(self._separator)
        while at >= 0:
            upstream = self._by_prefix.get(name[: at + width])
            if upstream is not None:
                return upstream, name[at + width :]
            at = name.find(self._separator, at + 1)
        return None

    def find(self, kind: str, name: str) -> Target | None:
        """Whose name this is, where no table is needed; None if nobody can have it."""
        found = self.prefixed(name)
        if found is None:
            if not self._bare:
                return None
            found = self._bare[0], name
        own = found[0].names(kind).own(found[1])
        return None if own is None else (found[0], own)

    def expose(self, kind: str, upstream: Upstream, own: str) -> str | None:
        """The name clients see; None if they see none, or if it reads as a name of another upstream."""
        local = upstream.names(kind).local(own)
        if local is None:
            return None
        if upstream.bare:
            return None if self.prefixed(local) is not None else local
        return upstream.prefix + local

    def shadowed(self, kind: str, upstream: Upstream, own: str) -> Upstream | None:
        """Whose name an upstream's own reads as, if it has no prefix and reads as somebody else's."""
        local = upstream.names(kind).local(own) if upstream.bare else None
        found = None if local is None else self.prefixed(local)
        return None if found is None else found[0]


@final
@define(eq=False)
class NameTable:
    """Every name of one kind, where names do not say whose they are."""

    targets: dict[str, Target] = field(factory=dict)
    """What names mean."""
    shown: dict[tuple[str, str], str] = field(factory=dict)
    """The names clients see, by upstream's id and its own name."""
    collisions: dict[str, list[str]] = field(factory=dict)
    """Names that mean nothing because several upstreams have them, with the ids of those."""

    def adopt(self, kind: str, upstream: Upstream, own: str) -> str | None:
        """Take up a name that was not there when the table was made; None if clients may not see it, or it is taken."""
        local = upstream.names(kind).local(own)
        name = local if local is None or upstream.bare else upstream.prefix + local
        if name is None or name in self.targets or name in self.collisions:
            return None
        self.targets[name], self.shown[upstream.id, own] = (upstream, own), name
        return name


def make_table(kind: str, names: Sequence[tuple[Upstream, Sequence[str]]], policy: Policy) -> NameTable:
    """
    Decide what every name means.

    Args:
        kind: `tools` or `prompts`.
        names: Each upstream's own names, in the order of the configuration.
        policy: What a name means that several upstreams have.
    """
    table = NameTable()
    holders: dict[str, list[tuple[Upstream, str, str]]] = {}
    for upstream, own_names in names:
        for own in dict.fromkeys(own_names):
            local = upstream.names(kind).local(own)
            if local is not None:
                name = local if upstream.bare else upstream.prefix + local
                holders.setdefault(fold_name(name), []).append((upstream, own, name))
    for holding in holders.values():
        ids = list(dict.fromkeys(upstream.id for upstream, _, _ in holding))
        if len(ids) > 1 and policy == "error":
            table.collisions.update({name: ids for _, _, name in holding})
            continue
        for upstream, own, name in holding:
            shared = len(ids) > 1
            if shared and policy == "first" and upstream.id != ids[0]:
                table.collisions.setdefault(name, ids)
                continue
            given = upstream.prefix + name if shared and policy == "prefix" and upstream.bare else name
            if given in table.targets and table.targets[given][0] is not upstream:
                table.collisions[given] = [table.targets[given][0].id, upstream.id]
                continue
            table.targets[given] = (upstream, own)
            table.shown[upstream.id, own] = given
    return table
