"""Who may call what: the rules of two `access` stages, taken apart until it does not matter how they are written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final, final

from attrs import frozen

from ...config.declarations import flow
from ...model.when import glob
from ...protocol.messages import Json
from .change import Change

MAX_PARTS: Final = 4096
"""Permits that one rule is taken apart into; a larger one is taken as it is."""
KINDS: Final = ("tools", "prompts", "resources", "methods")
_ANONYMOUS: Final = "anonymous"


@final
@frozen
class Permit:
    """One thing that some callers may do, or may not."""

    allows: bool
    subject: str
    """A glob; empty for everybody."""
    tenant: str
    role: str
    what: str
    """A capability: a glob, perhaps with a kind in front."""
    actions: tuple[str, ...]
    terms: str
    """Under which conditions, in words; empty without."""

    @property
    def of(self) -> tuple[Any, ...]:
        """All but its conditions."""
        return self.allows, self.subject, self.tenant, self.role, self.what, self.actions

    @property
    def who(self) -> str:
        """In words."""
        parts = [f"callers {self.subject}"] if self.subject else []
        if self.tenant:
            parts.append(f"of tenant {self.tenant}" if parts else f"tenant {self.tenant}")
        if self.role:
            parts.append(f"with role {self.role}" if parts else f"role {self.role}")
        return " ".join(parts) or "everybody"

    @property
    def thing(self) -> str:
        """In words."""
        kind, colon, rest = self.what.partition(":")
        named = f"{kind} {rest}" if colon and kind in KINDS else self.what
        return named if self.actions == ("*",) else f"{named} ({', '.join(self.actions)})"

    def covers(self, other: Permit) -> bool:
        """Whether it says all that the other one says, for as many callers at least."""
        return (
            self.allows is other.allows
            and not self.terms
            and self.actions in (("*",), other.actions)
            and _covers(self.subject, other.subject)
            and _covers(self.tenant, other.tenant)
            and self.role in ("", other.role)
            and _covers_what(self.what, other.what)
        )


def permits_of(rules: Sequence[Mapping[str, Any]]) -> frozenset[Permit]:
    """What some rules say, as plain data with all options in it."""
    return frozenset(permit for rule in rules for permit in _parts(rule))


def compare(path: str, old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> Iterator[Change]:
    """A sentence for everything that somebody may do now and could not do, or the other way round."""
    before, after = permits_of(old), permits_of(new)
    both = before & after
    gone = _telling(before - after, both)
    come = _telling(after - before, both)
    was: defaultdict[tuple[Any, ...], list[Permit]] = defaultdict(list)
    for permit in gone:
        was[permit.of].append(permit)
    for permit in come:
        if not was[permit.of]:
            if not any(other.covers(permit) for other in before):
                yield Change(path, "access", _come(permit), "rules")
            continue
        earlier = was[permit.of].pop(0)
        yield Change(path, "access", _altered(earlier, permit), "rules")
    for permit in gone:
        if permit in was[permit.of] and not any(other.covers(permit) for other in after):
            yield Change(path, "access", _gone(permit), "rules")


def _telling(permits: Iterable[Permit], both: frozenset[Permit]) -> list[Permit]:
    """Those that say something beside what is said before and after, in an order of their own."""
    free = [each for each in both if not each.terms]
    found = [each for each in permits if not any(other.covers(each) for other in free)]
    return sorted(found, key=lambda each: (each.who, each.thing, each.allows, each.terms))


def _come(permit: Permit) -> str:
    if permit.allows:
        return f"{permit.who} may use {permit.thing} now{_terms(permit)}"
    return f"{permit.thing} is denied to {permit.who} now{_terms(permit)}"


def _gone(permit: Permit) -> str:
    if permit.allows:
        return f"{permit.who} may no longer use {permit.thing}{_terms(permit)}"
    return f"{permit.thing} is no longer denied to {permit.who}{_terms(permit)}"


def _altered(old: Permit, new: Permit) -> str:
    says = f"{new.who} may use {new.thing}" if new.allows else f"{new.thing} is denied to {new.who}"
    return f"{says} {new.terms or 'without conditions'} now, and not {old.terms or 'without conditions'} as before"


def _terms(permit: Permit) -> str:
    return f", {permit.terms}" if permit.terms else ""


def _parts(rule: Mapping[str, Any]) -> Iterator[Permit]:
    allows = bool(rule["allow"])
    what = rule["allow"] or rule["deny"]
    parts = [rule["subject"] or ("",), rule["tenant"] or ("",), rule["role"] or ("",), what]
    count = 1
    for each in parts:
        count *= len(each)
    if count > MAX_PARTS:
        parts = [(", ".join(sorted(each)),) for each in parts]
    actions = tuple(sorted(rule["actions"]))
    for subject, tenant, role, one in product(*parts):
        shared = sorted(set(what) - {one}) if rule["rate"] else []
        yield Permit(allows, subject, tenant, role, one, actions, _conditions(rule, shared))


def _conditions(rule: Mapping[str, Any], shared: Sequence[str]) -> str:
    found = []
    if rule["scopes"]:
        found.append(f"with the scopes {', '.join(sorted(rule['scopes']))}")
    tests: Mapping[str, Json] = rule["arguments"]
    found += [f"where {name} is {flow(tests[name])}" for name in sorted(tests)]
    if rule["valid_until"] is not None:
        found.append(f"until {rule['valid_until']}")
    if rule["rate"]:
        burst = "" if rule["burst"] is None else f" ({rule['burst']} at once)"
        found.append(f"at {rule['rate']}{burst}")
        if shared:
            found.append(f"counted with {', '.join(shared)}")
    return " ".join(found)


def _covers(mine: str, theirs: str) -> bool:
    """Whether a glob for callers or tenants matches all that another one matches."""
    if not mine or mine == theirs:
        return True
    return bool(theirs) and theirs != _ANONYMOUS and glob(mine).fullmatch(theirs) is not None


def _covers_what(mine: str, theirs: str) -> bool:
    kind, colon, rest = mine.partition(":")
    if not colon or kind not in KINDS:
        kind, rest = "", mine
    other_kind, colon, other = theirs.partition(":")
    if not colon or other_kind not in KINDS:
        other_kind, other = "", theirs
    return kind in ("", other_kind) and glob(rest).fullmatch(other) is not None
