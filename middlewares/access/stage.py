"""
`access`: who may do what.

The shell around `policy`: it reads off what a request asks leave for, asks, and refuses or goes on. What passes back is
filtered with the same answers, so that what cannot be called is not shown.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final, final

import trio
from attrs import evolve

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import MAX_DECISIONS, Decision, Exchange, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.gcra import Ledger, LedgerFull, Limit, Window, nanoseconds
from sluiceway.pipeline.model.keys import principal_of
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.model.session import ANONYMOUS
from sluiceway.pipeline.protocol.errors import CapacityExceeded, Forbidden, RateLimited, SluicewayError
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import Json, Notification, Reply, Request, Result

from .asking import FREE, LIST_OF_TASKS, LISTEN, LISTS, OF_TASKS, Asked, asked_by
from .config import AccessConfig
from .lists import Shown, is_shared, subset, without
from .permit import Permit, Reason, Verdict
from .policy import Policy
from .tasks import Owners, may_be_task, task_in
from .why import explain

MAX_SHOWN: Final = 200
"""Characters of a name that a refusal repeats."""
ALWAYS: Final = float("-inf")
"""A date at which no rule has ended: to give something up, leave that once was given is enough."""

Handler = Callable[[Exchange, Service], Awaitable[Reply]]


@final
@middleware("access")
class Access(Middleware):
    """
    Let callers do what a rule allows them, and nothing else.

    * Tools, prompts and resources need a rule that allows them, and none that denies them. So do methods that MCP does
      not define (`methods:acme/*`). Handshakes, pings, log levels and MCP's notifications are free.
    * Lists show what the caller could call, get or read, by the same rules, and cost nothing of a `rate`. Their cursors
      stay. What a caller sees is its own: `cacheScope: public` becomes `private`.
    * Who may get a prompt or read a template may complete its arguments. Subscriptions are filtered the same way.
    * A task belongs to whoever made it; others, and those that nobody is known to have made, are refused.
    * A refusal reads the same for what does not exist. Only where scopes are all that is missing does it name them.

    Raises:
        Forbidden: No rule allows it, or one denies it.
        RateLimited: All rules that allow it are used up, with `retry_after_ms`.
    """

    reads_results = False
    role = "access"
    order = (
        Order("after", "auth", "error", "rules are about callers, and before authentication all are anonymous"),
        Order("after", "tenant", "error", "rules are about tenants, and the caller's is not chosen yet"),
        Order("before", "cache", "error", "what the cache keeps would be given to callers who may not have it"),
        Order("before", "dedup", "error", "a caller could join a call that it may not make"),
        Order("before", "retry", "warning", "a refusal does not change when it is repeated"),
    )
    actions = {"why": "Say whether a caller may do something, and which rule decides."}
    Config = AccessConfig

    def __init__(self, config: AccessConfig, context: Context) -> None:
        super().__init__(config, context)
        self._policy = Policy(config)
        self._owners = Owners(context.id, max_tasks=config.max_tasks, max_age_s=config.task_age)
        self._ledgers: Mapping[Permit, Ledger] = {
            permit: Ledger(Limit(Window(rate, permit.rule.burst or max(1, int(rate.count)))), config.max_keys)
            for permit in self._policy.permits
            if (rate := permit.rule.rate) is not None
        }
        self._allows = {permit: Decision(context.id, "allow", permit.id) for permit in self._policy.permits}
        self._counts = dict.fromkeys(("allowed", "refused", "limited", "hidden"), 0)
        self._handlers: Mapping[str, Handler] = {
            **dict.fromkeys(LISTS, self._filter),
            **dict.fromkeys(OF_TASKS, self._ask_for_task),
            LIST_OF_TASKS: self._filter_tasks,
            LISTEN: self._listen,
            "resources/read": self._read,
        }

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Find the store, if owners of tasks are kept in one."""
        if self.config.store is not None:
            self._owners.store = self.context.store(self.config.store)
        try:
            yield
        finally:
            self._owners.store = None

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Decide, and go on or refuse."""
        method = exchange.request.method
        if method == "tools/call":
            self._admit(exchange)
            if not may_be_task(exchange):
                return await call_next(exchange)
            exchange.hold()
            reply = await call_next(exchange)
            task = task_in(reply)
            if task is not None:  # it is the caller's
                await self._learn(exchange, task)
            return reply
        handler = self._handlers.get(method)
        if handler is not None:
            exchange.hold()
            return await handler(exchange, call_next)
        if method not in FREE or (exchange.kind is not Kind.NOTIFY and method.startswith("notifications/")):
            self._admit(exchange)
        return await call_next(exchange)

    async def act(self, action: str, arguments: Mapping[str, Json]) -> Json:
        """
        `why`: the answer to `caller`, `method` and `name`, and what each rule says; see `why.explain`.

        Raises:
            LookupError: There is no such action.
            ValueError: The question cannot be understood.
        """
        if action != "why":
            return await super().act(action, arguments)
        return explain(self._policy, arguments, self.context.now())

    def details(self) -> Mapping[str, Json]:
        """How many rules there are, and what is kept."""
        return {
            "rules": len(self._policy.permits),
            "callers": self._policy.callers,
            "rulings": self._policy.rulings,
            "tasks": len(self._owners),
        }

    def figures(self) -> Iterable[Figure]:
        """What was decided so far."""
        for outcome, count in self._counts.items():
            help_ = "Entries that lists did not show." if outcome == "hidden" else "Requests, by decision."
            name = "access_hidden_total" if outcome == "hidden" else "access_decisions_total"
            labels = {} if outcome == "hidden" else {"outcome": outcome}
            yield Figure(name, count, "counter", help_, labels)
        yield Figure("access_rate_keys", sum(map(len, self._ledgers.values())), "gauge", "Callers with uses to count.")

    def _now(self) -> float:
        return self.context.now() if self._policy.timed else 0.0

    def _admit(self, exchange: Exchange) -> None:
        """
        Let one request pass, or not.

        Raises:
            Forbidden: It may not.
            RateLimited: Not now.
        """
        asked = asked_by(exchange.request.method, exchange.request.params)
        if asked is None:
            raise self._refusal(exchange, Verdict(False, "", Reason.NAME), "request", exchange.request.method)
        now = ALWAYS if exchange.request.method == "resources/unsubscribe" else self._now()
        verdict = self._policy.why(exchange.caller, asked.sort, asked.name, asked.action, now, asked.arguments)
        if not verdict.allowed:
            raise self._refusal(exchange, verdict, asked.noun, asked.name)
        permit = verdict.permits[0]
        if permit.rule.rate is not None:
            permit = self._charge(exchange, verdict, asked)
        self._counts["allowed"] += 1
        decision, decisions = self._allows.get(permit), exchange.link.decisions
        if decision is None or len(decisions) >= MAX_DECISIONS:
            exchange.decide(self.context.id, "allow", permit.id)
        else:
            decisions.append(decision)  # what `decide` does, with a decision that is made already

    def _charge(self, exchange: Exchange, verdict: Verdict, asked: Asked) -> Permit:
        """The first of some rules with a rate that has something left for the caller."""
        key, now_ns = _payer(exchange), nanoseconds(trio.current_time())
        waits: list[tuple[int, str, str]] = []
        for permit in verdict.permits:
            ledger = self._ledgers[permit]
            try:
                wait_ns = ledger.take(key, now_ns)
            except LedgerFull as full:
                wait_ns = max(full.relief_ns, 1)
            if wait_ns == 0:
                return permit
            waits.append((wait_ns, permit.id, str(ledger.limit)))
        wait_ns, rule, limit = min(waits)
        self._counts["limited"] += 1
        exchange.decide(self.context.id, "limit", rule)
        raise RateLimited(
            f"{asked.noun} {asked.name[:MAX_SHOWN]}: {limit} for each caller; try again later",
            retry_after_s=wait_ns / 1e9,
        )

    def _refusal(self, exchange: Exchange, verdict: Verdict, noun: str, name: str) -> Forbidden:
        self._counts["refused"] += 1
        cause = f"{verdict.rule}: {verdict.reason}" if verdict.rule else str(verdict.reason)
        exchange.decide(self.context.id, "refuse", cause)
        shown = name[:MAX_SHOWN]
        if verdict.reason is Reason.SCOPES:
            return Forbidden(
                f"Insufficient permissions for {noun}: {shown}; scopes needed: {' '.join(verdict.scopes)}",
                scopes=verdict.scopes,
                data={"scopes": list(verdict.scopes)},
            )
        if verdict.reason is Reason.ARGUMENTS:
            return Forbidden(f"Access denied for {noun}: {shown}, with these arguments")
        return Forbidden(f"Access denied for {noun}: {shown}")

    async def _read(self, exchange: Exchange, call_next: Service) -> Reply:
        """`resources/read`; that this caller may have it does not mean that everybody may."""
        self._admit(exchange)
        reply = await call_next(exchange)
        if exchange.client.era is Era.LEGACY or not isinstance(reply, Result) or b"cacheScope" not in reply.raw:
            return reply
        return reply if not is_shared(reply.value) else Result({**reply.value, "cacheScope": "private"})

    async def _filter(self, exchange: Exchange, call_next: Service) -> Reply:
        """A list: only what the caller could use."""
        listing = LISTS[exchange.request.method]
        reply = await call_next(exchange)
        if not isinstance(reply, Result):
            return reply
        standing, now = self._policy.standing(exchange.caller), self._now()

        def is_shown(name: str) -> bool:
            return standing.shows(listing.sort, name, listing.action, now)

        return self._only(exchange, reply, listing.members, listing.key, is_shown)

    async def _filter_tasks(self, exchange: Exchange, call_next: Service) -> Reply:
        """`tasks/list`: only the caller's own."""
        reply = await call_next(exchange)
        if not isinstance(reply, Result):
            return reply
        listed = reply.value.get("tasks")
        tasks = [each.get("taskId") for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        made = await self._made(exchange, tasks)
        return self._only(exchange, reply, "tasks", "taskId", made.__contains__)

    def _only(self, exchange: Exchange, reply: Result, members: str, key: str, is_shown: Shown) -> Reply:
        shown, hidden = without(reply, members, key, is_shown)
        if hidden:
            self._counts["hidden"] += hidden
            exchange.decide(self.context.id, "filter", f"{hidden} not shown")
        return shown

    async def _ask_for_task(self, exchange: Exchange, call_next: Service) -> Reply:
        """`tasks/get` and its like: for whoever made it."""
        task = exchange.request.params.get("taskId")
        if not await self._made(exchange, [task]):
            raise self._refusal(exchange, Verdict(False, "", Reason.NO_RULE), "task", str(task))
        return await call_next(exchange)

    async def _listen(self, exchange: Exchange, call_next: Service) -> Reply:
        """`subscriptions/listen`: only what the caller may read; the acknowledgement says what is left."""
        request = exchange.request
        wanted = request.params.get("notifications")
        if not isinstance(wanted, dict):
            return await call_next(exchange)
        standing, now = self._policy.standing(exchange.caller), self._now()
        tasks = wanted.get("taskIds")
        made = await self._made(exchange, tasks if isinstance(tasks, list) else [])
        sort = LISTS["resources/list"].sort
        kept = {
            **subset(wanted, "resourceSubscriptions", lambda uri: standing.shows(sort, uri, "subscribe", now)),
            **subset(wanted, "taskIds", made.__contains__),
        }
        hidden = sum(len(wanted[key]) - len(kept[key]) for key in kept)
        if not hidden:
            return await call_next(exchange)
        self._counts["hidden"] += hidden
        exchange.decide(self.context.id, "filter", f"{hidden} subscriptions left out")
        params = {**request.params, "notifications": {**wanted, **kept}}
        inner: Request | Notification
        inner = request.with_params(params) if isinstance(request, Request) else evolve(request, body=params)
        return await call_next(exchange.with_request(inner))

    async def _learn(self, exchange: Exchange, task: str) -> None:
        """Note whose a task is. That it cannot be written does not undo the call; this process knows it."""
        try:
            await self._owners.learn(principal_of(exchange), task, trio.current_time())
        except (SluicewayError, OSError) as error:
            self.context.log.warning("owner of a task not stored", store=self.config.store, error=str(error))

    async def _made(self, exchange: Exchange, tasks: Iterable[object]) -> set[str]:
        """
        Those of some tasks that the caller made.

        Raises:
            CapacityExceeded: Whose they are cannot be read now.
        """
        try:
            return await self._owners.made(principal_of(exchange), tasks, trio.current_time())
        except (SluicewayError, OSError) as error:
            exchange.decide(self.context.id, "refuse", "store")
            self.context.log.warning("owners of tasks cannot be read", store=self.config.store, error=str(error))
            raise CapacityExceeded(
                f"{self.context.id}: whose task it is cannot be read now; try again later", retry_after_s=1.0
            ) from error


def _payer(exchange: Exchange) -> str:
    """Whose uses are counted. Who is not authenticated can have as many sessions as it likes: its address counts."""
    caller = exchange.caller
    who = exchange.client.address if caller.subject == ANONYMOUS.subject else caller.subject
    return f"{caller.tenant!r} {caller.how == 'none'} {who}"
