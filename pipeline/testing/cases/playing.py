"""A case, step by step, against a gateway in memory and virtual time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final, final

import trio
from attrs import define, field
from msgspec.structs import replace

from ...config.case_rules import Declared, component_ids, jump_s, sendings
from ...model.cases import CallerGiven, Case, ClientGiven, Expect, Sending, Step
from ...model.session import ANONYMOUS, Asker, Caller, Client, Session
from ...model.when import glob
from ...protocol.errors import GatewayError
from ...protocol.mcp import LATEST, LATEST_LEGACY, Era, ErrorCode
from ...protocol.messages import ErrorReply, Json, Reply, Result
from ..harness import PipelineHarness
from .checks import check_figures, check_request, check_sent
from .findings import Finding, Path
from .mocks import MockSink
from .observed import Arrival, Observed, messages_at

MAX_WAIT_S: Final = 86_400.0
"""Virtual time after which a request is given up: nothing will answer it."""
MAX_FINDINGS: Final = 20
"""A case ends when it has found so much wrong."""


@final
@define(eq=False)
class Clock:
    """The date in a case: it goes with virtual time, and jumps when the case says so."""

    clock: trio.abc.Clock
    """Virtual time. Asked directly, for dates are read in threads, too."""
    start: float
    """Seconds since 1970 at the beginning of virtual time."""
    jumped: float = 0.0

    def now(self) -> float:
        """The date, in seconds since 1970."""
        return self.start + self.jumped + self.clock.current_time()


@final
@define(eq=False)
class Player:
    """Plays one case."""

    declared: Declared
    gateway: PipelineHarness
    mocks: Mapping[str, MockSink]
    arrivals: list[Arrival]
    """What reached the mocks, in order; they add to it."""
    clock: Clock
    source: str
    """Source that requests come in by."""
    findings: list[Finding] = field(factory=list)
    observed: list[Observed] = field(factory=list)
    _ids: list[str] = field(init=False)
    _sessions: dict[str, Session] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self._ids = component_ids(self.gateway.engine.document)

    @property
    def case(self) -> Case:
        """What is played."""
        return self.declared.case

    async def play(self) -> None:
        """Play it to its end, or until it has found enough wrong."""
        for _, sending in sendings(self.case):
            await self._open_session(sending)
        if not self.case.steps:
            await self._send((), self.case)
            return
        for index, step in enumerate(self.case.steps):
            if len(self.findings) >= MAX_FINDINGS:
                return
            await self._step(("steps", index), step)
        if self.case.expect is not None:
            self._check_whole(self.case.expect, ("expect",), 0)

    async def _step(self, path: Path, step: Step) -> None:
        arrived = len(self.arrivals)
        if step.clock_jump is not None:
            self.clock.jumped += jump_s(step.clock_jump)
        if step.request is not None:
            await self._send(path, step)
            return
        if step.after is not None:
            await trio.sleep(step.after)
        async with trio.open_nursery() as nursery:
            for index, each in enumerate(step.together):
                nursery.start_soon(self._send, (*path, "together", index), each)
        if step.expect is not None:
            self._check_whole(step.expect, (*path, "expect"), arrived)

    def _check_whole(self, expect: Expect, path: Path, since: int) -> None:
        self.findings += check_sent(expect, messages_at(self.arrivals[since:], self.mocks), path)
        self.findings += check_figures(expect, self.gateway.engine.snapshot(), path)

    async def _send(self, path: Path, sending: Sending) -> None:
        """One request, as often as it is asked for, and what is expected of each and of the last."""
        if sending.after is not None:
            await trio.sleep(sending.after)
        seen: list[Observed] = []
        for _ in range(sending.repeat):
            if sending.at_once == 1:
                seen.append(await self._one(path, sending))
            else:
                seen += await self._crowd(path, sending)
            if sending.expect is not None and sending.at_once == 1:
                self._check(sending.expect, seen[-1], (*path, "expect"))
            if len(self.findings) >= MAX_FINDINGS:
                return
        if sending.expect is not None and sending.at_once > 1:
            for each in seen:
                self._check(sending.expect, each, (*path, "expect"))
        if sending.expect_last is not None:
            self._check(sending.expect_last, seen[-1], (*path, "expect_last"))

    def _check(self, expect: Expect, seen: Observed, path: Path) -> None:
        self.findings += check_request(expect, seen, path, self._ids)
        if expect.figures:
            self.findings += check_figures(expect, self.gateway.engine.snapshot(), path)

    async def _crowd(self, path: Path, sending: Sending) -> list[Observed]:
        """The same request some times at the same moment; the last to end is the last."""
        seen: list[Observed] = []

        async def one() -> None:
            seen.append(await self._one(path, sending))

        async with trio.open_nursery() as nursery:
            for _ in range(sending.at_once):
                nursery.start_soon(one)
        return seen

    async def _one(self, path: Path, sending: Sending) -> Observed:
        assert sending.request is not None  # the rules of cases
        request, asked = sending.request, list[Json]()
        given = sending.client or self.case.client or ClientGiven()
        gateway = self.gateway
        gateway.source = self.source
        gateway.caller = caller_of(sending.caller or self.case.caller)
        gateway.ask = asker_of(given, asked)
        gateway.client = replace(self._client(given), headers={**given.headers, **request.headers})
        began = trio.current_time()
        call = gateway.start(request.method, request.params)
        if sending.cancel_after is not None:
            with trio.move_on_after(sending.cancel_after):
                await call.wait()
            call.cancel()
        with trio.move_on_after(MAX_WAIT_S):
            await call.wait()
        if not call.is_done:
            text = f"{request.method} does not end: cancel it, with cancel_after, if that is right"
            self.findings.append(Finding((*path, "request"), text))
            call.cancel()
            await call.wait()
        seen = Observed(
            exchange=call.exchange,
            reply=call.reply,
            relayed=[{"method": each.method, "params": dict(each.params)} for each in call.interim],
            asked=asked,
            began=began,
            ended=trio.current_time(),
        )
        seen.sent = messages_at(self.arrivals, self.mocks, seen.link)
        seen.runs = [run for run in gateway.stage_log if run.exchange.link is seen.link]
        self.observed.append(seen)
        return seen

    async def _open_session(self, sending: Sending) -> None:
        """The session of a legacy client, as its handshake would have left it: it belongs to who opened it."""
        given = sending.client or self.case.client
        if sending.request is None or given is None or given.era == "modern" or given.session in self._sessions:
            return
        client = replace(self._client(given), headers={**given.headers, **sending.request.headers})
        session = client.session
        assert session is not None
        session.caller = caller_of(sending.caller or self.case.caller)
        with suppress(GatewayError):  # then the request itself is refused, too
            await self.gateway.engine.sources[self.source].identify(client, None)
        session.version = client.version

    def _client(self, given: ClientGiven) -> Client:
        """What sends a request; one session for each name."""
        if given.era == "modern":
            return Client(
                era=Era.MODERN, version=given.version or LATEST, capabilities=given.capabilities, info=given.info,
                transport=given.transport, address=given.address,
            )  # fmt: skip
        version = given.version or LATEST_LEGACY
        session = self._sessions.get(given.session)
        if session is None:
            session = self._sessions[given.session] = Session(
                id=given.session, source=self.source, capabilities=given.capabilities, info=given.info
            )
        return Client(
            era=Era.LEGACY, version=version, capabilities=given.capabilities, info=given.info, session=session,
            transport=given.transport, address=given.address,
        )  # fmt: skip


def caller_of(given: CallerGiven | None) -> Caller:
    """Who asks."""
    if given is None:
        return ANONYMOUS
    return Caller(
        given.subject, given.tenant, frozenset(given.scopes), given.how, frozenset(given.roles),
        frozenset(given.tenants),
    )  # fmt: skip


def asker_of(given: ClientGiven, asked: list[Json]) -> Asker | None:
    """How the client answers questions, which are added to `asked`; None if it answers none."""
    if not given.answers:
        return None

    async def ask(method: str, params: Mapping[str, Json]) -> Reply:
        await trio.lowlevel.checkpoint()
        asked.append({"method": method, "params": dict(params)})
        for answer in given.answers:
            if glob(answer.method).fullmatch(method) is None:
                continue
            if answer.delay is not None:
                await trio.sleep(answer.delay)
            if answer.error is not None:
                return ErrorReply(answer.error.code, answer.error.message, answer.error.data)
            return Result(answer.reply if answer.reply is not None else {})
        return ErrorReply(ErrorCode.METHOD_NOT_FOUND, f"the client of the test has no answer to {method}")

    return ask
