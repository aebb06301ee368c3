"""
The decision: may this caller do this with that, and if not, why not. Pure: no clock, no I/O.

A rule that denies wins over all that allow. Among those that allow, one that holds is enough (D-44). Lists ask the same
question without arguments: what could be called with some arguments is shown, nothing else is.

What does not change from one request to the next is worked out once: for a caller, which rules concern it; for a
caller and a name, which of these cover it. Both tables are bounded; what falls out is worked out again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, Final, final

from attrs import define, field, frozen

from sluiceway.pipeline.model.session import ANONYMOUS, Caller
from sluiceway.pipeline.model.when import matcher
from sluiceway.pipeline.protocol.messages import Json

from .arguments import ANY, Outcome, compile_tests, texts
from .capability import Capability, Sort, parse_capability
from .config import AccessConfig, Rule, closure

MAX_RULINGS: Final = 10_000
"""Names, by caller, whose rules are kept ready."""
MAX_NAME: Final = 256
"""Characters of the longest name that is kept there."""


class Reason(StrEnum):
    """Why a rule or a verdict is what it is; fit for `Exchange.decide`."""

    ALLOWED = "allowed"
    DENIED = "denied"
    NO_RULE = "no rule allows it"
    CALLER = "another caller"
    NAME = "another name"
    ACTION = "another action"
    EXPIRED = "expired"
    ARGUMENTS = "arguments"
    SCOPES = "scopes missing"
    RATE = "rate"


_NEARNESS: Final = (Reason.SCOPES, Reason.ARGUMENTS, Reason.EXPIRED, Reason.ACTION)
"""Of several reasons why nothing allows something, the first of these is told."""


@final
@frozen
class Verdict:
    """An answer, with its reason."""

    allowed: bool
    rule: str
    """The rule that decided, or came nearest to allowing it; empty if there is none."""
    reason: Reason
    scopes: tuple[str, ...] = ()
    """Scopes with which it would be allowed, if nothing else is missing."""
    permits: tuple[Permit, ...] = ()
    """Every rule that allows it; those without a rate first. One of them that has something left is enough."""


@final
@define(eq=False)
class Permit:
    """A rule, made ready."""

    id: str
    rule: Rule
    denies: bool
    capabilities: tuple[Capability, ...]
    actions: frozenset[str] | None
    """None for all."""
    ends_at: float
    """Seconds since 1970."""
    scopes: frozenset[str]
    tests: Callable[[Json], Outcome] | None
    """From arguments to outcome; None without tests."""
    verdict: Verdict = field(init=False)
    """What is answered where it alone allows something."""

    def __attrs_post_init__(self) -> None:
        self.verdict = Verdict(True, self.id, Reason.ALLOWED, (), (self,))

    @classmethod
    def of(cls, rule: Rule, number: int) -> Permit:
        """Make a rule ready."""
        ends_at = rule.ends_at()
        return cls(
            id=rule.id or f"rules[{number}]",
            rule=rule,
            denies=bool(rule.deny),
            capabilities=tuple(map(parse_capability, (*texts(rule.allow), *texts(rule.deny)))),
            actions=None if "*" in rule.actions else frozenset(rule.actions),
            ends_at=float("inf") if ends_at is None else ends_at,
            scopes=frozenset(texts(rule.scopes)),
            tests=compile_tests(rule.arguments) if rule.arguments else None,
        )

    def concerns(self, caller: Caller, roles: frozenset[str]) -> bool:
        """Whether it is about a caller, scopes apart."""
        rule = self.rule
        if rule.subject and not _is_subject(texts(rule.subject), caller):
            return False
        if rule.tenant and (caller.tenant is None or not matcher(texts(rule.tenant))(caller.tenant)):
            return False
        return not rule.role or not roles.isdisjoint(texts(rule.role))

    def covers(self, sort: Sort, name: str) -> bool:
        """Whether it is about a name."""
        if self.denies:
            return any(each.denies(sort, name) for each in self.capabilities)
        return any(each.allows(sort, name) for each in self.capabilities)

    def obstacle(self, sort: Sort, action: str, now: float, arguments: Json) -> Reason | None:
        """What keeps it from applying to something whose name it covers; None if nothing does."""
        if self.actions is not None and action not in self.actions:
            return Reason.ACTION
        if now >= self.ends_at:
            return Reason.EXPIRED
        if self.tests is None:
            return None
        if sort not in ("tools", "prompts"):
            return Reason.ARGUMENTS
        if arguments is ANY:
            return Reason.ARGUMENTS if self.denies else None
        outcome = self.tests(arguments)
        applies = outcome is not False if self.denies else outcome is True
        return None if applies else Reason.ARGUMENTS


def _is_subject(patterns: tuple[str, ...], caller: Caller) -> bool:
    """Whether a caller is one of some subjects: stars are for authenticated ones, `anonymous` is for the others."""
    if caller.subject == ANONYMOUS.subject:
        return caller.subject in patterns
    return matcher(patterns)(caller.subject)


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
        limited: list[Permit] = []
        for permit in self.allows:
            if permit.obstacle(sort, action, now, arguments) is None:
                if permit.rule.rate is None and not limited:
                    return permit.verdict
                limited.append(permit)
        if limited:
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
        self._max_callers = config.max_callers
        self._standings: dict[tuple[str, str | None, frozenset[str], frozenset[str]], Standing] = {}
        self._rulings: dict[tuple[str, str | None, frozenset[str], frozenset[str], Sort, str], Standing] = {}

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
            _keep(self._standings, key, known, self._max_callers)
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
                _keep(self._rulings, key, ruling, MAX_RULINGS)
        return ruling.judge(sort, action, now, arguments)

    def consider(
        self, caller: Caller, sort: Sort, name: str, action: str, now: float, arguments: Json = ANY
    ) -> Iterable[tuple[str, Reason]]:
        """Every rule, in order, and what it says about something, or why it says nothing."""
        roles, scopes = closure(caller.roles, self._roles), closure(caller.scopes, self._scopes)
        for permit in self.permits:
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
        concerned = [permit for permit in self.permits if permit.concerns(caller, roles)]
        allows = [permit for permit in concerned if not permit.denies and permit.scopes <= scopes]
        return Standing(
            tuple(permit for permit in concerned if permit.denies),
            tuple(sorted(allows, key=lambda permit: permit.rule.rate is not None)),
            tuple(permit for permit in concerned if not permit.denies and not permit.scopes <= scopes),
            scopes,
        )


def _keep(table: dict[Any, Any], key: Any, value: Any, maximum: int) -> None:
    """Keep something, and forget what was kept first if that is one too many."""
    if len(table) >= maximum:
        del table[next(iter(table))]
    table[key] = value
