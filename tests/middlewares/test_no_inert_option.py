"""
No option of a stage is parsed and ignored: each one changes something that can be seen.

Every option has a row in `options/<stage>.py`, one of two things. `{"one": ..., "other": ..., "given": {...}}` are two
values, and what else is set: the same day of exchanges is sent through the stage with each value; what was seen of it
(replies, errors, headers, notifications, log lines, times) must differ. `{"by": "middlewares/test_x.py::test_y",
"word": ...}` names a test that shows the option where a day cannot; it must exist, and mention the option or the word.

A new option without a row fails here, and so does a row whose option is gone. Other components:
`tests/test_no_inert_options.py`.
"""

from __future__ import annotations

import ast
import random
import re
import runpy
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import trio.testing
from attrs import frozen
from structlog.testing import LogCapture

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

TESTS = Path(__file__).resolve().parents[1]
ORIGIN = "https://a.example"


@frozen
class Two:
    """Two values of one option that must not look the same; `given` are the other options."""

    one: Any
    other: Any
    given: Mapping[str, Any] = {}


@frozen
class By:
    """A test that shows an option, as `file::function`, and the word it must mention if that is not its name."""

    by: str
    word: str = ""


ROWS: Mapping[str, Two | By] = {
    name: By(**row) if "by" in row else Two(**row)
    for path in sorted((TESTS / "middlewares" / "options").glob("*.py"))
    for name, row in runpy.run_path(str(path))["ROWS"].items()
}
"""`stage.option` -> its row; a nested option stands below the option that holds it."""


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
        exchange.way_back = chain.relay
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
        middleware = cls(cls.Config(**options), self.context())
        stage = Stage("stage", middleware)
        async with middleware.open(), trio.open_nursery() as nursery:
            for n, exchange in enumerate(self.exchanges()):
                nursery.start_soon(self.visit, n, exchange, stage)
                await trio.testing.wait_all_tasks_blocked()
                await trio.sleep(0.125)
        return [sorted(self.seen, key=repr), sorted(self.logged.entries, key=repr)]


async def _observe(stage: str, options: Mapping[str, Any]) -> list[Any]:
    cls = Registry().find(ComponentKind.MIDDLEWARE, stage)
    assert issubclass(cls, Middleware)
    return await Day().live(cls, options)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if isinstance(row, Two)])
async def test_two_values_of_a_stages_option_do_not_look_the_same(name, autojump_clock):
    """The same day with another value is another day."""
    stage, option = name.split(".")[:2]
    row = ROWS[name]
    assert isinstance(row, Two)

    one, other = [await _observe(stage, {**row.given, option: value}) for value in (row.one, row.other)]

    assert one != other


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if isinstance(row, Two)])
async def test_the_same_options_look_the_same(name, autojump_clock):
    """The observation itself is deterministic; otherwise the test above would prove nothing."""
    stage, option = name.split(".")[:2]
    row = ROWS[name]
    assert isinstance(row, Two)
    options = {**row.given, option: row.one}

    assert await _observe(stage, options) == await _observe(stage, options)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if isinstance(row, By)])
def test_an_option_that_a_day_cannot_show_is_shown_by_the_test_it_names(name):
    """The test exists, and mentions the option."""
    row = ROWS[name]
    assert isinstance(row, By)
    file, _, function = row.by.partition("::")

    bodies = [
        ast.unparse(node)
        for node in ast.walk(ast.parse((TESTS / file).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function
    ]

    assert bodies != [], f"no {row.by}"
    assert re.search(rf"\b{re.escape(row.word or name.rsplit('.', 1)[-1])}", bodies[0])
