"""
The decision: may this caller do this with that, and if not, why not. Pure: no clock, no I/O.

A rule that denies wins over all that allow. Among those that allow, one that holds is enough (D-44). Lists ask the same
question without arguments: what could be called with some arguments is shown, nothing else is.

What does not change from one request to the next is worked out once: for a caller, which rules concern it; for a
caller and a name, which of these cover it. Both tables are bounded; what falls out is worked out again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias, final

from attrs import frozen

from sluiceway.pipeline.model.remembered import Remembered
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.messages import Json

from .arguments import ANY, texts
from .capability import SORTS, Sort
from .config import AccessConfig, Rule, closure
from .permit import Permit, Reason, Verdict

MAX_RULINGS: Final = 10_000
"""Names, by caller, whose rules are kept ready."""
MAX_NAME: Final = 256
"""Characters of the longest name that is kept there."""


_Who: TypeAlias = tuple[str, str | None, frozenset[str], frozenset[str]]
"""What of a caller decides which rules concern it."""
_Asked: TypeAlias = tuple[str, str | None, frozenset[str], frozenset[str], Sort, str]
"""Caller, sort and name."""

_NEARNESS: Final = (Reason.SCOPES, Reason.ARGUMENTS, Reason.EXPIRED, Reason.ACTION)
"""Of several reasons why nothing allows something, the first of these is told."""


@final
@frozen
class Standing:
    """The rules that concern one caller."""

    denies: tuple[Permit, ...]
    allows: tuple[Permit, ...]
    """Those without a rate first."""
    beyond: tuple[Permit, ...]
    """Those that would allow with more scopes."""
    scopes: frozenset[str]
    """What the caller has, with all that is included."""

    def on(self, sort: Sort, name: str) -> Standing:
        """Those of them that cover a name."""
        return Standing(
            tuple(each for each in self.denies if each.covers(sort, name)),
            tuple(each for each in self.allows if each.covers(sort, name)),
            tuple(each for each in self.beyond if each.covers(sort, name)),
            self.scopes,
        )

    def judge(self, sort: Sort, action: str, now: float, arguments: Json) -> Verdict:
        """The answer about a name that all of them cover."""
        for permit in self.denies:
            if permit.obstacle(sort, action, now, arguments) is None:
                return Verdict(False, permit.id, Reason.DENIED)
        limited: list[Permit] | None = None
        for permit in self.allows:
            if permit.obstacle(sort, action, now, arguments) is None:
                if limited is None:
                    if permit.rule.rate is None:
                        return permit.verdict
                    limited = []
                limited.append(permit)
        if limited is not None:
            return Verdict(True, limited[0].id, Reason.ALLOWED, (), tuple(limited))
        return self._refusal(sort, action, now, arguments)

    def shows(self, sort: Sort, name: str, action: str, now: float) -> bool:
        """Whether there are arguments with which something is allowed; what `judge` says of `ANY`, for long lists."""
        for permit in self.denies:
            if permit.obstacle(sort, action, now, ANY) is None and permit.covers(sort, name):
                return False
        return any(
            permit.obstacle(sort, action, now, ANY) is None and permit.covers(sort, name) for permit in self.allows
        )

    def _refusal(self, sort: Sort, action: str, now: float, arguments: Json) -> Verdict:
        found: dict[Reason, Permit] = {}
        for permit in self.beyond:
            found.setdefault(permit.obstacle(sort, action, now, arguments) or Reason.SCOPES, permit)
        for permit in self.allows:
            found.setdefault(permit.obstacle(sort, action, now, arguments) or Reason.ALLOWED, permit)
        for reason in _NEARNESS:
            if reason in found:
                scopes = texts(found[reason].rule.scopes) if reason is Reason.SCOPES else ()
                return Verdict(False, found[reason].id, reason, scopes)
        return Verdict(False, "", Reason.NO_RULE)


@final
class Policy:
    """
    All rules.

    Args:
        config: The stage's options.
    """

    def __init__(self, config: AccessConfig) -> None:
        self.permits: tuple[Permit, ...] = tuple(Permit.of(rule, number) for number, rule in enumerate(config.rules))
        self.timed = any(rule.valid_until is not None for rule in config.rules)
        """Whether answers depend on the date."""
        self._roles = config.roles
        self._scopes = config.scopes
        self._prefix = config.scope_prefix
        self._standings = Remembered[_Who, Standing](config.max_callers)
        self._rulings = Remembered[_Asked, Standing](MAX_RULINGS)

    @property
    def callers(self) -> int:
        """Callers whose rules are kept ready."""
        return len(self._standings)

    @property
    def rulings(self) -> int:
        """Names whose rules are kept ready."""
        return len(self._rulings)

    def standing(self, caller: Caller) -> Standing:
        """The rules that concern a caller."""
        key = (caller.subject, caller.tenant, caller.roles, caller.scopes)
        known = self._standings.get(key)
        if known is None:
            known = self._stand(caller)
            self._standings.keep(key, known)
        return known

    def why(self, caller: Caller, sort: Sort, name: str, action: str, now: float, arguments: Json = ANY) -> Verdict:
        """
        Whether a caller may do something, and why or why not; the stage and an operator get the same answer.

        Args:
            caller: Who.
            sort: What kind of thing.
            name: Which one.
            action: What is done with it; see `config.Action`.
            now: Seconds since 1970.
            arguments: Those of the call, `ANY` to ask whether there are some with which it is allowed.
        """
        key = (caller.subject, caller.tenant, caller.roles, caller.scopes, sort, name)
        ruling = self._rulings.get(key)
        if ruling is None:
            ruling = self.standing(caller).on(sort, name)
            if len(name) <= MAX_NAME:
                self._rulings.keep(key, ruling)
        return ruling.judge(sort, action, now, arguments)

    def consider(
        self, caller: Caller, sort: Sort, name: str, action: str, now: float, arguments: Json = ANY
    ) -> Iterable[tuple[str, Reason]]:
        """Every rule, in order, and what it says about something, or why it says nothing."""
        roles, scopes = closure(caller.roles, self._roles), closure(caller.scopes, self._scopes)
        for permit in (*self.permits, *self._granted(caller)):
            if not permit.concerns(caller, roles):
                yield permit.id, Reason.CALLER
            elif not permit.covers(sort, name):
                yield permit.id, Reason.NAME
            elif (obstacle := permit.obstacle(sort, action, now, arguments)) is not None:
                yield permit.id, obstacle
            elif not permit.scopes <= scopes:
                yield permit.id, Reason.SCOPES
            else:
                yield permit.id, Reason.DENIED if permit.denies else Reason.ALLOWED

    def _stand(self, caller: Caller) -> Standing:
        roles, scopes = closure(caller.roles, self._roles), closure(caller.scopes, self._scopes)
        permits = (*self.permits, *self._granted(caller))
        concerned = [permit for permit in permits if permit.concerns(caller, roles)]
        allows = [permit for permit in concerned if not permit.denies and permit.scopes <= scopes]
        return Standing(
            tuple(permit for permit in concerned if permit.denies),
            tuple(sorted(allows, key=lambda permit: permit.rule.rate is not None)),
            tuple(permit for permit in concerned if not permit.denies and not permit.scopes <= scopes),
            scopes,
        )

    def _granted(self, caller: Caller) -> Iterable[Permit]:
        """What the caller's own scopes allow; those that name nothing are scopes like others."""
        if self._prefix is not None:
            for scope in sorted(caller.scopes):
                what = scope.removeprefix(self._prefix)
                if what not in (scope, "", *(f"{sort}:" for sort in SORTS)):
                    yield Permit.of(Rule(id=f"scope {scope}", allow=what), -1)
