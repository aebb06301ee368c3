"""
No option of a stage is parsed and ignored: each one changes something that can be seen.

Every option has a row: two values, and what else is set. The same day of exchanges is sent through the stage with each
value; what was seen of it (replies, errors, headers, notifications, log lines, times) must differ. A new option without
a row fails here, and so does a row whose option is gone. Other components: `tests/test_no_inert_options.py`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import pytest
import structlog
import trio
import trio.testing
from attrs import frozen
from structlog.testing import LogCapture

from sluiceway.middlewares.timeout import Override
from sluiceway.pipeline.config.declarations import options_of
from sluiceway.pipeline.config.describe import groups_in
from sluiceway.pipeline.model.component import ComponentKind, Context, Middleware
from sluiceway.pipeline.model.exchange import Exchange, Link
from sluiceway.pipeline.model.registry import BUILT_IN, Registry
from sluiceway.pipeline.model.session import Caller, Client
from sluiceway.pipeline.model.when import When
from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.mcp import Era, method_of
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.chain import Stage, compile_chain


@frozen
class Two:
    """Two values of one option that must not look the same; `given` are the other options."""

    one: Any
    other: Any
    given: Mapping[str, Any] = {}


ORIGIN = "https://a.example"
ROWS: Mapping[str, Two] = {
    "concurrency_limit.max_in_flight": Two(1, 2),
    "concurrency_limit.max_keys": Two(1, 2, {"per": "caller"}),
    "concurrency_limit.max_listeners": Two(None, 1),
    "concurrency_limit.max_waiting": Two(0, 1, {"max_in_flight": 1}),
    "concurrency_limit.per": Two("all", "caller", {"max_in_flight": 1}),
    "concurrency_limit.retry_after": Two(1.0, 2.0, {"max_in_flight": 1}),
    "concurrency_limit.wait_at_most": Two(1.0, 2.0, {"max_in_flight": 1, "max_waiting": 9}),
    "headers.add": Two({}, {"x-added": "1"}),
    "headers.allowed_hosts": Two(None, ("b.example",)),
    "headers.allowed_origins": Two(None, ("https://b.example",)),
    "headers.expose": Two(None, ("x-request-id",)),
    "headers.hide": Two((), ("cookie",)),
    "headers.security": Two(False, True),
    "log.level": Two("info", "warning"),
    "log.params": Two("redacted", "digest"),
    "log.redact": Two((), ("note",)),
    "log.sample": Two(1.0, 0.5),
    "log.start": Two(True, False),
    "request_id.accept": Two(True, False),
    "request_id.header": Two("x-request-id", "x-correlation-id"),
    "request_id.max_length": Two(128, 4),
    "timeout.after": Two(5.0, 15.0),
    "timeout.at_most": Two(20.0, 30.0, {"after": 9.0}),
    "timeout.idle_after": Two(None, 3.0),
    "timeout.on_progress": Two("reset", "keep", {"after": 9.0}),
    "timeout.overrides": Two((), (Override(when=When(name=("echo",)), after=0.5),)),
    "timeout.overrides.after": Two((Override(when=When(), after=9.0),), (Override(when=When(), after=0.5),)),
    "timeout.overrides.when": Two(
        (Override(when=When(name=("echo",)), after=0.5),), (Override(when=When(name=("work",)), after=0.5),)
    ),
}
"""`stage.option` -> two values; a nested option stands below the option that holds it."""


def _options(prefix: str, declared: type) -> Iterator[str]:
    for option in options_of(declared):
        yield f"{prefix}.{option.name}"
        for group in groups_in(option.shape):
            if group is not When:
                yield from _options(f"{prefix}.{option.name}", group)


def test_every_option_has_a_row_and_every_row_an_option():
    """Whoever adds an option says here how it shows."""
    options = set()
    for name in BUILT_IN[ComponentKind.MIDDLEWARE]:
        options.update(_options(name, Registry().find(ComponentKind.MIDDLEWARE, name).Config))

    assert ROWS.keys() == options


class Day:
    """What can be seen of a stage that serves one day of exchanges, in virtual time."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.logged = LogCapture()

    def note(self, *what: Any) -> None:
        self.seen.append((round(trio.current_time() - self.start, 3), *what))

    def context(self) -> Context:
        ids = count(1)
        log = structlog.wrap_logger(
            None,
            processors=[structlog.contextvars.merge_contextvars, self.logged],
            wrapper_class=structlog.make_filtering_bound_logger(10),
        )
        return Context(id="stage", log=log, random=random.Random(0), new_id=lambda: f"id-{next(ids)}")

    async def sink(self, exchange: Exchange) -> Reply:
        """Says what it sees, then takes 25 seconds with progress every 8, one second, or five for a listener."""
        self.note("sink sees", exchange.target, sorted(exchange.client.headers.items()), exchange.correlation_id)
        for _ in range(3 if exchange.target == "work" else 0):
            await trio.sleep(8)
            await exchange.relay(Notification("notifications/progress", {"progressToken": 1, "progress": 1}))
        await trio.sleep(5 if exchange.target is None else 1)
        return Result({"done": exchange.target})

    async def visit(self, n: int, exchange: Exchange, stage: Stage) -> None:
        chain = compile_chain([stage], self.sink)
        exchange._relay = chain.relay
        try:
            outcome: Any = await chain.service(exchange)
        except GatewayError as error:
            outcome = (error.reason, error.message, error.retry_after_s, error.data)
        self.note(n, "ended", outcome, sorted(exchange.reply_headers.items()))

    def exchanges(self) -> Iterator[Exchange]:
        """Two at a time of everything that stages tell apart."""
        headers = {"host": "a.example", "origin": ORIGIN, "cookie": "c", "x-request-id": "theirs"}
        for method, target in [("tools/call", "work"), ("tools/call", "echo"), ("subscriptions/listen", None)]:
            for caller in ("ana", "bob"):
                for _ in range(2):
                    yield self.exchange(method, target, headers, caller)

    def exchange(self, method: str, target: str | None, headers: Mapping[str, str], caller: str) -> Exchange:
        async def emit(notification: Notification) -> None:
            self.note("client gets", notification.method)

        params = {} if target is None else {"name": target, "arguments": {"note": "n"}}
        client = Client(era=Era.MODERN, version="2026-07-28", headers=headers, transport="http")
        return Exchange(
            request=Request(1, method, params), kind=method_of(method).kind, client=client, caller=Caller(caller),
            link=Link(emit),
        )  # fmt: skip

    async def live(self, cls: type[Middleware], options: Mapping[str, Any]) -> list[Any]:
        """Everything seen, in order."""
        self.start = trio.current_time()
        stage = Stage("stage", cls(cls.Config(**options), self.context()))
        async with trio.open_nursery() as nursery:
            for n, exchange in enumerate(self.exchanges()):
                nursery.start_soon(self.visit, n, exchange, stage)
                await trio.testing.wait_all_tasks_blocked()
                await trio.sleep(0.125)
        return [sorted(self.seen, key=repr), sorted(self.logged.entries, key=repr)]


async def _observe(stage: str, options: Mapping[str, Any]) -> list[Any]:
    cls = Registry().find(ComponentKind.MIDDLEWARE, stage)
    assert issubclass(cls, Middleware)
    return await Day().live(cls, options)


@pytest.mark.parametrize("name", ROWS)
async def test_two_values_of_a_stages_option_do_not_look_the_same(name, autojump_clock):
    """The same day with another value is another day."""
    stage, option = name.split(".")[:2]
    row = ROWS[name]

    one, other = [await _observe(stage, {**row.given, option: value}) for value in (row.one, row.other)]

    assert one != other


@pytest.mark.parametrize("stage", sorted({name.split(".")[0] for name in ROWS}))
async def test_the_same_options_look_the_same(stage, autojump_clock):
    """The observation itself is deterministic; otherwise the test above would prove nothing."""
    assert await _observe(stage, {}) == await _observe(stage, {})
