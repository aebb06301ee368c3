"""
What all auth stages have in common: who is asked, what a refusal records, and that no credential goes further.

Several auth stages in one chain are alternatives, asked in their order. Each looks for a credential of its own kind.
If there is one, it decides: the caller is established, or the exchange is refused. A wrong credential is never passed
on to the next stage, where it could come out as nobody's. If there is none, the stage refuses, unless it is
`optional`: then it leaves the question to the next. Who has been established is not asked again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from typing import ClassVar, Final, TypeVar, final

from attrs import frozen

from sluiceway.pipeline.model.component import Context, Middleware
from sluiceway.pipeline.model.exchange import MAX_DECISIONS, Decision, Exchange, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import option
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import SessionNotFound, Unauthenticated
from sluiceway.pipeline.protocol.messages import Json, Reply

CREDENTIALS: Final = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})
"""Headers that no stage or sink behind an auth stage sees (MCP 2026-07-28, authorization: no token passthrough)."""

_E = TypeVar("_E", bound=Unauthenticated)


def optional_option() -> bool:
    """The option `optional`, which every auth stage has."""
    flag: bool = option(
        False,
        doc="Whether a request without a credential of this kind goes on to the next auth stage instead of being "
        "refused. A wrong credential is refused in any case. At least one auth stage of a chain must not be optional.",
    )
    return flag


@final
@frozen
class Admission:
    """Somebody who may come in, and the decision to let them: what a credential that is remembered leads to."""

    caller: Caller
    decision: Decision


class AuthStage(Middleware):
    """
    Base of the auth stages. Subclasses implement `caller_of`.

    Args:
        config: With an option `optional`.
        context: As for every component.
        hides: Headers that carry this stage's credential, beside those that are hidden anyway.
    """

    reads_results = False
    by_headers = True
    role = "auth"
    order = (
        Order("before", "access", "error", "rules about callers would be asked about nobody"),
        Order("before", "tenant", "error", "there is no principal yet whose tenants are known"),
        Order(
            "before", "cache", "error",
            "keys would be computed for an anonymous caller: one tenant could be served another one's data",
        ),
        Order(
            "before", "dedup", "error",
            "keys would be computed for an anonymous caller: one tenant could be served another one's data",
        ),
    )  # fmt: skip
    OUTCOMES: ClassVar[tuple[str, ...]] = ("allow", "refuse", "pass")

    def __init__(self, config: object, context: Context, hides: Iterable[str] = ()) -> None:
        super().__init__(config, context)
        self._optional: bool = getattr(config, "optional", False)
        self._hidden = CREDENTIALS.union(hides)
        self._counts: dict[str, int] = dict.fromkeys(self.OUTCOMES, 0)
        self._checks = type(self).check is not AuthStage.check

    def remembered(self, exchange: Exchange) -> Admission | None:
        """Whom `caller_of` would name, where that is known already; for subclasses. None says nothing."""

    async def caller_of(self, exchange: Exchange) -> Caller | None:
        """
        Who the exchange's credential says it is; None if it carries none of this kind.

        Raises:
            Unauthenticated: It carries one that is wrong; made with `refusal`.
        """
        raise TypeError(f"{type(self).__name__} does not implement caller_of")

    def missing(self, exchange: Exchange) -> Unauthenticated:
        """The refusal of who brings no credential; made with `refusal`."""
        raise TypeError(f"{type(self).__name__} does not implement missing")

    def check(self, exchange: Exchange, caller: Caller) -> None:
        """Refuse a caller who is established and may not do this; for subclasses. Raises a `GatewayError`."""

    def __call__(self, exchange: Exchange, call_next: Service) -> Awaitable[Reply]:
        """Establish who calls, or refuse."""
        if exchange.caller.how != "none":
            return call_next(exchange)
        known = self.remembered(exchange)
        return self._ask(exchange, call_next) if known is None else self.admit(exchange, known, call_next)

    def admission(self, caller: Caller) -> Admission:
        """How a caller comes in."""
        return Admission(caller, Decision(self.context.id, "allow", caller.credential))

    async def _ask(self, exchange: Exchange, call_next: Service) -> Reply:
        caller = await self.caller_of(exchange)
        if caller is None:
            if not self._optional:
                raise self.missing(exchange)
            self._note(exchange, "pass", "no credential")
            return await call_next(exchange)
        return await self.admit(exchange, self.admission(caller), call_next)

    def admit(self, exchange: Exchange, admission: Admission, call_next: Service) -> Awaitable[Reply]:
        """Go on as this caller, without its credential."""
        caller = admission.caller
        try:
            exchange.authenticate(caller)
        except SessionNotFound:
            self._note(exchange, "refuse", "session of another principal")
            raise
        if self._checks:
            self.check(exchange, caller)
        self._counts["allow"] += 1
        decisions = exchange.link.decisions
        if len(decisions) < MAX_DECISIONS:  # what `decide` does, with a decision that is made already
            decisions.append(admission.decision)
        client = exchange.client
        if client.headers:
            exchange = exchange.with_client(client.without(self._hidden))
        return call_next(exchange)

    def refusal(self, exchange: Exchange, cls: type[_E], cause: str, message: str, challenge: str | None) -> _E:
        """
        Record a refusal and make the error to raise.

        Args:
            exchange: What is refused.
            cls: The error's class.
            cause: One of a few fixed phrases, for those who read decisions.
            message: For the client; without what it sent.
            challenge: Value of `WWW-Authenticate`.
        """
        self._note(exchange, "refuse", cause)
        return cls(f"{self.context.id}: {message}", challenge=challenge)

    def _note(self, exchange: Exchange, outcome: str, cause: str) -> None:
        exchange.decide(self.context.id, outcome, cause)
        self._counts[outcome] += 1

    def figures(self) -> Iterable[Figure]:
        """How many were let in, refused, and left to the next stage."""
        for outcome in self.OUTCOMES:
            yield Figure(
                "auth_decisions_total", self._counts[outcome], "counter",
                "Exchanges let in, refused, or left to the next auth stage.", {"outcome": outcome},
            )  # fmt: skip

    def details(self) -> Mapping[str, Json]:
        """The same, for `status`."""
        return {outcome: self._counts[outcome] for outcome in self.OUTCOMES}
