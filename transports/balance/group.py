"""
The upstreams of a group, and which of them may be used now.

Who may be used is worked out when something changes, not for every request: when a probe or an operator says so, when
failures put one out, and when the time of one that is out is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, final

from attrs import define, field, frozen

from .ejection import EjectionRules
from .member import Member, Vitals

_NEVER: Final = float("inf")


@final
@define(eq=False)
class Ledger:
    """What is known of upstreams by the id of their sink; it outlives a reload."""

    vitals: dict[str, Vitals] = field(factory=dict)
    total: int = 0
    """Requests in flight in all."""


@final
@frozen(kw_only=True)
class GroupRules:
    """When upstreams are used although, or not used because, they seem ill."""

    eject: EjectionRules
    max_ejected: float
    """Share of the group that may be out because of failures; one may always."""
    panic_threshold: float
    """Share of the group that must be well; below it all are used."""
    unhealthy_after: int
    healthy_after: int


Notice = Callable[[Member, str], None]
"""Told of a member's new state: `ejected`, `back`, `down`, `up`, `drained`, `undrained`."""


@final
class Group:
    """
    Args:
        members: In the order of the configuration.
        ledger: Where their vitals come from.
        rules: The group's.
        notice: Told of changes. Must not block.
    """

    def __init__(self, members: Sequence[Member], ledger: Ledger, rules: GroupRules, notice: Notice) -> None:
        self.members = tuple(members)
        self.by_id = {member.id: member for member in members}
        self._ledger = ledger
        self._rules = rules
        self._notice = notice
        self._usable: tuple[Member, ...] = ()
        self._next_change = -_NEVER
        self._out: set[Member] = set()
        self.version = 0
        """Counts up whenever `usable` becomes another."""
        self.panics = False
        """Too few are well, so all are used."""

    def usable(self, now: float) -> tuple[Member, ...]:
        """Who may be used; the same object until that changes. Empty if nobody is."""
        if now >= self._next_change:
            self._renew(now)
        return self._usable

    def is_ill(self, member: Member, now: float) -> bool:
        """Whether failures or probes speak against it."""
        return member.vitals.probed.is_down or member.vitals.ejection.is_out(now)

    def has_other(self, member: Member, now: float) -> bool:
        """Whether there is somebody else to go to."""
        return any(each is not member for each in self.usable(now))

    def state_of(self, member: Member, now: float) -> str:
        """One word for people."""
        vitals = member.vitals
        if vitals.drained or not member.weight:
            return "drained"
        if vitals.probed.is_down:
            return "down"
        if vitals.ejection.is_out(now):
            return "ejected"
        return "ready" if member.ramp(now) >= 1.0 else "warming"

    def enter(self, member: Member) -> None:
        """A request goes to a member; `leave` must follow."""
        member.vitals.requests += 1
        member.vitals.in_flight += 1
        self._ledger.total += 1

    def leave(self, member: Member) -> None:
        """It is over, one way or another."""
        member.vitals.in_flight -= 1
        self._ledger.total -= 1

    def succeeded(self, member: Member, seconds: float | None, now: float) -> None:
        """A member has answered; in so many seconds, if they say something about it."""
        member.vitals.ejection.succeeded()
        if seconds is not None:
            member.vitals.latency.observe(seconds, now)

    def failed(self, member: Member, seconds: float, now: float) -> bool:
        """
        A member has failed; a failure that comes fast does not make it look fast.

        Returns:
            Whether it was put out.
        """
        vitals = member.vitals
        vitals.failures += 1
        vitals.latency.observe(max(seconds, vitals.latency.at(now)), now)
        if not vitals.ejection.failed(now, self._rules.eject) or self.is_ill(member, now):
            return False
        out = sum(1 for each in self.members if each.vitals.ejection.is_out(now))
        if out >= max(1, int(self._rules.max_ejected * len(self.members))) or len(self.members) == 1:
            return False
        vitals.ejection.eject(now, self._rules.eject)
        self._notice(member, "ejected")
        self._renew(now)
        return True

    def probed(self, member: Member, now: float, *, well: bool) -> None:
        """What a probe of a member has found."""
        vitals, rules = member.vitals, self._rules
        changed = vitals.probed.note(
            well=well, unhealthy_after=rules.unhealthy_after, healthy_after=rules.healthy_after
        )
        if well and not vitals.probed.is_down and vitals.ejection.is_out(now):
            vitals.ejection.take_back(now)
            self._renew(now)
        if changed:
            self._notice(member, "up" if well else "down")
            self._renew(now)

    def drain(self, member: Member, now: float, *, drained: bool) -> None:
        """An operator takes a member out of use, or gives it back."""
        if member.vitals.drained != drained:
            member.vitals.drained = drained
            self._notice(member, "drained" if drained else "undrained")
        for stream in member.streams if drained else ():
            stream.set()
        self._renew(now)

    def _renew(self, now: float) -> None:
        candidates = tuple(m for m in self.members if m.weight and not m.vitals.drained)
        well = tuple(m for m in candidates if not self.is_ill(m, now))
        out = set(self.members).difference(well)
        for member in self.members:
            if member in self._out and member not in out:
                member.vitals.warm_since = now
                self._notice(member, "back")
        self._out = out
        self.panics = len(well) < self._rules.panic_threshold * len(candidates)
        usable = candidates if self.panics else well
        if usable != self._usable:
            self._usable = usable
            self.version += 1
        ends = [m.vitals.ejection.until for m in self.members if m.vitals.ejection.is_out(now)]
        self._next_change = min(ends, default=_NEVER)
