"""A rule, made ready to be asked, and the answer it gives."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import final

from attrs import define, field, frozen

from sluiceway.pipeline.model.session import ANONYMOUS, Caller
from sluiceway.pipeline.model.when import matcher
from sluiceway.pipeline.protocol.messages import Json

from .arguments import ANY, Outcome, compile_tests, texts
from .capability import Sort, covering, parse_capability
from .config import Rule


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
    covers: Callable[[Sort, str], bool]
    """Whether it is about a name."""
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
            covers=covering(map(parse_capability, texts(rule.allow or rule.deny)), denies=bool(rule.deny)),
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

    def obstacle(self, sort: Sort, action: str, now: float, arguments: Json) -> Reason | None:
        """What keeps it from applying to something whose name it covers; None if nothing does."""
        if self.actions is not None and action not in self.actions:
            return Reason.ACTION
        if now >= self.ends_at:
            return Reason.EXPIRED
        if self.tests is None:
            return None
        if sort != "tools" and sort != "prompts":
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
