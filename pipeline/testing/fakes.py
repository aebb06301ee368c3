"""
Stand-ins for what surrounds a chain: sinks that answer as told, a source that tests speak through.

A `FakeSink` is told beforehand what to do (`echo`, `script`, `fail`, `slow`), or is held by the test while it works
(`await sink.next()`), in the manner of tower-test. Both remember what reached them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, final

import trio
from attrs import frozen

from ..model.component import Context, Sink, Source, sink, source
from ..model.exchange import Exchange
from ..model.faults import FaultPlan
from ..model.handle import Handle, Ticket
from ..model.session import Asker, Client
from ..model.suffering import suffer
from ..protocol.errors import CapacityExceeded, ConnectFailed, GatewayError
from ..protocol.messages import EMPTY, ErrorReply, Json, Notification, Reply, Request, Result

Step = Reply | Mapping[str, Json] | Exception | Sequence["Notification | Reply | Mapping[str, Json] | Exception"]
"""
One answer of a script: a reply, a mapping (the value of a `Result`), an exception to raise, or a sequence of
notifications to relay that ends with one of those.
"""

Behaviour = Callable[[Exchange], Awaitable[Reply]]
"""What a fake sink does with an exchange."""

_ORDERS: Final = 1024
"""Messages that a held request may have waiting for its exchange."""


@frozen
class _NoOptions:
    """A fake is configured in Python."""


@final
class HeldRequest:
    """A request that waits inside a `FakeSink` for the test to answer it."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        """As it reached the sink, with what the stages made of it."""
        self.cancelled = trio.Event()
        """Set when the exchange was cancelled while it was held."""
        self._send, self._orders = trio.open_memory_channel[Notification | Reply | Exception](_ORDERS)
        self._answered = trio.Event()

    @property
    def method(self) -> str:
        """The method that arrived."""
        return self.exchange.request.method

    @property
    def params(self) -> Mapping[str, Json]:
        """The params that arrived."""
        return self.exchange.request.params

    def relay(self, method: str | Notification, params: Mapping[str, Json] = EMPTY) -> None:
        """Send a notification to the client before the reply; delivered in order, by the exchange's own task."""
        self._order(method if isinstance(method, Notification) else Notification(method, params))

    async def reply(self, reply: Reply | Mapping[str, Json] | None = None) -> None:
        """
        Answer, and wait until the exchange has taken the answer.

        Args:
            reply: A reply, or the value of a `Result`; an empty `Result` if there is none.
        """
        self._order(_as_reply(reply if reply is not None else EMPTY))
        await self._answered.wait()

    async def fail(self, error: GatewayError) -> None:
        """Fail as a sink does, and wait until the exchange has taken it."""
        self._order(error)
        await self._answered.wait()

    def _order(self, order: Notification | Reply | Exception) -> None:
        if self._answered.is_set():
            state = "was cancelled" if self.cancelled.is_set() else "is answered"
            raise RuntimeError(f"the exchange of {self.method} {state} already")
        self._send.send_nowait(order)

    async def _serve(self) -> Reply:
        """The sink's side: carry out what the test orders."""
        ended = False
        try:
            order = await self._orders.receive()
            while isinstance(order, Notification):
                await self.exchange.relay(order)
                order = await self._orders.receive()
            ended = True
            if isinstance(order, Exception):
                raise order
            return order
        finally:
            if not ended:
                self.cancelled.set()
            self._answered.set()
            self._send.close()


def _as_reply(value: Reply | Mapping[str, Json]) -> Reply:
    return value if isinstance(value, Result | ErrorReply) else Result(value)


@final
@sink("fake")
class FakeSink(Sink):
    """
    A sink that a test controls. Made without arguments it holds every request until the test takes it with `next`.

    Args:
        behaviour: What to do with an exchange instead.
    """

    Config = _NoOptions

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        super().__init__(_NoOptions(), Context(id="fake"))
        self._behaviour = behaviour or self._hold
        self._held: list[HeldRequest] = []
        self._arrived = trio.Event()
        self._refusing = False
        self.exchanges: list[Exchange] = []
        """Every exchange that reached the sink, in order."""
        self.opened = 0
        """How often it was opened."""
        self.is_open = False
        self.problems: list[str] = []
        """What the test did not foresee, such as a request after the end of a script; a harness fails on them."""

    @property
    def requests(self) -> list[Request | Notification]:
        """Every message that reached the sink, in order."""
        return [exchange.request for exchange in self.exchanges]

    @classmethod
    def echo(cls) -> FakeSink:
        """Answers each request with `{"method": ..., "params": ...}` of what arrived."""
        return cls(_echo)

    @classmethod
    def script(cls, steps: Iterable[Step]) -> FakeSink:
        """
        Answers the first request with the first step, and so on. A request after the last step is a `problem`.
        """
        left = list(steps)
        total = len(left)

        async def behave(exchange: Exchange) -> Reply:
            await trio.lowlevel.checkpoint()
            if not left:
                problem = f"the script has {total} steps, and there was one more request: {exchange.method}"
                made.problems.append(problem)
                raise AssertionError(problem)
            return await _play(exchange, left.pop(0))

        made = cls(behave)
        return made

    @classmethod
    def fail(cls, times: int = 1, then: Step | FakeSink | None = None, error: Exception | None = None) -> FakeSink:
        """
        Fails some times, then works.

        Args:
            times: How often it fails.
            then: What it does from then on: a step for every request, or another fake's behaviour; echo if absent.
            error: What it fails with; `ConnectFailed` if absent.
        """
        left = times

        async def behave(exchange: Exchange) -> Reply:
            nonlocal left
            await trio.lowlevel.checkpoint()
            if left:
                left -= 1
                raise error if error is not None else ConnectFailed("the fake sink was told to fail")
            return await _then(exchange, then)

        return cls(behave)

    @classmethod
    def slow(cls, seconds: float, then: Step | FakeSink | None = None) -> FakeSink:
        """Takes `seconds` of the Trio clock for each request, then does what `then` says; echo if absent."""

        async def behave(exchange: Exchange) -> Reply:
            await trio.sleep(seconds)
            return await _then(exchange, then)

        return cls(behave)

    @classmethod
    def faulty(cls, plan: FaultPlan, then: Step | FakeSink | None = None) -> FakeSink:
        """Does what `then` says (echo if absent), as well as a fault plan lets it."""

        async def behave(exchange: Exchange) -> Reply:
            await trio.lowlevel.checkpoint()
            return await suffer(plan, exchange, lambda each: _then(each, then))

        return cls(behave)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        self.opened += 1
        self.is_open = True
        try:
            yield
        finally:
            self.is_open = False

    async def __call__(self, exchange: Exchange) -> Reply:
        self.exchanges.append(exchange)
        if self._refusing:
            await trio.lowlevel.checkpoint()
            raise CapacityExceeded("the fake sink was told to refuse")
        return await self._behaviour(exchange)

    async def next(self) -> HeldRequest:
        """Wait for the next request that reaches the sink and is held, and take it."""
        await trio.lowlevel.checkpoint()
        while not self._held:
            self._arrived = trio.Event()
            await self._arrived.wait()
        return self._held.pop(0)

    def refuse(self, *, refusing: bool = True) -> None:
        """Refuse every request from now on with `CapacityExceeded`, or stop doing so."""
        self._refusing = refusing

    async def _hold(self, exchange: Exchange) -> Reply:
        held = HeldRequest(exchange)
        self._held.append(held)
        self._arrived.set()
        try:
            return await held._serve()
        finally:
            if held in self._held:
                self._held.remove(held)


async def _echo(exchange: Exchange) -> Reply:
    await trio.lowlevel.checkpoint()
    return Result({"method": exchange.request.method, "params": dict(exchange.request.params)})


async def _then(exchange: Exchange, then: Step | FakeSink | None) -> Reply:
    if then is None:
        return await _echo(exchange)
    return await (then(exchange) if isinstance(then, FakeSink) else _play(exchange, then))


async def _play(exchange: Exchange, step: Step) -> Reply:
    parts = list(step) if isinstance(step, Sequence) else [step]
    for part in parts[:-1]:
        if not isinstance(part, Notification):
            raise TypeError(f"only the last part of a step may be an answer, not {part!r}")
        await exchange.relay(part)
    last = parts[-1]
    if isinstance(last, Exception):
        raise last
    if isinstance(last, Notification):
        raise TypeError("a step must end with an answer, not with a notification")
    return _as_reply(last)


@final
@source("fake")
class FakeSource(Source):
    """A source that a test speaks through: it listens to nobody."""

    Config = _NoOptions

    def __init__(self) -> None:
        super().__init__(_NoOptions(), Context(id="fake"))
        self._handle: Handle | None = None
        self._serving = trio.Event()
        self.accepting = False
        """Whether it serves and was not told to stop."""

    async def serve(self, handle: Handle) -> None:
        self._handle, self.accepting = handle, True
        self._serving.set()
        try:
            await trio.sleep_forever()
        finally:
            self.accepting = False

    def stop_accepting(self) -> None:
        self.accepting = False

    async def wait_serving(self) -> None:
        """Wait until the engine has let it serve."""
        await self._serving.wait()

    def handle(
        self,
        message: Request | Notification,
        *,
        client: Client,
        emit: Callable[[Notification], Awaitable[None]],
        ask: Asker | None = None,
    ) -> Ticket:
        """
        Hand a message to the pipeline the source is connected to; see `component.Handle`.

        Raises:
            RuntimeError: It is not serving.
        """
        if self._handle is None:
            raise RuntimeError("the fake source is not connected; it serves inside `engine.running()`")
        return self._handle(message, client=client, emit=emit, ask=ask)
