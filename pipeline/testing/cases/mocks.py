"""What stands in the place of sinks and stores in a test case."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, final

import trio

from ...model.cases import Answer, Mock
from ...model.component import Context, Sink, sink
from ...model.exchange import Exchange
from ...model.faults import FaultPlan
from ...model.options import Duration
from ...model.patterns import mismatches
from ...model.suffering import suffer
from ...model.when import glob
from ...protocol.errors import (
    CapacityExceeded,
    ConnectFailed,
    DeadlineExceeded,
    GatewayError,
    OutcomeUnknown,
    UpstreamClosed,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from ...protocol.mcp import LATEST_LEGACY, LEGACY_VERSIONS, MODERN_VERSIONS, Kind
from ...protocol.messages import ErrorReply, Json, Notification, Reply, Request, Result
from .findings import Finding, Path, findings_of
from .observed import Arrival

_FAILURES: Final[Mapping[str, Callable[[str], GatewayError]]] = {
    ConnectFailed.reason: ConnectFailed,
    UpstreamClosed.reason: UpstreamClosed,
    UpstreamProtocolError.reason: UpstreamProtocolError,
    UpstreamUnavailable.reason: UpstreamUnavailable,
    OutcomeUnknown.reason: OutcomeUnknown,
    CapacityExceeded.reason: CapacityExceeded,
    DeadlineExceeded.reason: lambda text: DeadlineExceeded(text, timeout_s=0.0),
}
"""`fail:` of an answer -> what is raised."""

_LISTS: Final[Mapping[str, tuple[str, str]]] = {
    "tools/list": ("tools", "name"),
    "resources/list": ("resources", "uri"),
    "prompts/list": ("prompts", "name"),
}
"""What a server offers: method of the list -> its member, and what an item is known by."""
_TEMPLATES: Final = "resources/templates/list"
_UNTOLD: Final = ("notifications/initialized", "notifications/cancelled")
"""Notifications that are not worth counting."""


def message_of(message: Request | Notification) -> dict[str, Json]:
    """A message as expectations see it."""
    return {"method": message.method, "params": dict(message.params)}


@final
@sink("mock")
class MockSink(Sink):
    """
    A sink that does what a case says, and remembers what reached it.

    Handshakes and pings it answers by itself, and lists of what it offers; that does not count as reaching it.

    Args:
        sink_id: Whose place it takes.
        mock: What it does; None for a sink that must not be reached.
        rng: What its faults are seeded from.
        arrivals: Gets what reaches it, in order; several may share one.
    """

    def __init__(self, sink_id: str, mock: Mock | None, rng: random.Random, arrivals: list[Arrival]) -> None:
        super().__init__(None, Context(id=f"sinks.{sink_id}"))
        self._id = sink_id
        self._mock = Mock() if mock is None else mock
        self._must_not = mock is None
        self._plan = FaultPlan(self._mock.faults, rng)
        self._played = 0
        self._arrivals = arrivals
        self.findings: list[Finding] = []
        """What it did not expect; places are those below the case."""

    async def __call__(self, exchange: Exchange) -> Reply:
        """Do what the case says."""
        await trio.lowlevel.checkpoint()
        request = exchange.request
        where, answer = self._rule_for(exchange)
        if answer is None:
            by_itself = self._by_itself(request)
            if by_itself is not None:
                return by_itself
        self._arrivals.append(Arrival(self._id, exchange))
        if self._must_not:
            return self._unexpected(exchange)
        if exchange.kind is Kind.NOTIFY:
            return Result()
        if not self._mock.faults:
            return await self._answer(exchange, where, answer)
        return await suffer(self._plan, exchange, lambda each: self._answer(each, where, answer))

    def _rule_for(self, exchange: Exchange) -> tuple[Path, Answer | None]:
        """The first of `rules` that a request fits."""
        for index, rule in enumerate(self._mock.rules):
            target = exchange.target
            is_named = rule.name is None or (target is not None and glob(rule.name).fullmatch(target) is not None)
            if is_named and glob(rule.method).fullmatch(exchange.method) is not None:
                return ("sinks", self._id, "rules", index), rule
        return ("sinks", self._id), None

    async def _answer(self, exchange: Exchange, where: Path, answer: Answer | None) -> Reply:
        mock = self._mock
        if answer is None and mock.script:
            index, self._played = self._played, self._played + 1
            if index >= len(mock.script):
                text = (
                    f"{self._id} got request number {index + 1} ({exchange.method}); its script has {len(mock.script)}"
                )
                self.findings.append(Finding((*where, "script"), text))
                raise UpstreamUnavailable("the script of the test has ended")
            where, answer = (*where, "script", index), mock.script[index]
        return await self._play(exchange, where, mock if answer is None else answer)

    async def _play(self, exchange: Exchange, where: Path, answer: Answer) -> Reply:
        if answer.got is not None:
            found = mismatches(answer.got, message_of(exchange.request))
            self.findings += findings_of(found, (*where, "got"), f"{self._id} got another request")
        for said in answer.relay:
            await _pause(said.after)
            await exchange.relay(Notification(said.method, said.params))
        for index, asked in enumerate(answer.ask):
            reply = await exchange.ask(asked.method, asked.params)
            if asked.answer is not None:
                found = mismatches(asked.answer, shown_reply(reply))
                what = f"the client's answer to {asked.method} is another one"
                self.findings += findings_of(found, (*where, "ask", index, "answer"), what)
        await _pause(answer.delay)
        if answer.fail is not None:
            raise _FAILURES[answer.fail](f"{self._id} fails as the test says")
        if answer.error is not None:
            return ErrorReply(answer.error.code, answer.error.message, answer.error.data)
        if answer.echo:
            return Result(message_of(exchange.request))
        return Result(answer.reply if answer.reply is not None else {})

    def _unexpected(self, exchange: Exchange) -> Reply:
        target = f" {exchange.target}" if exchange.target is not None else ""
        text = f"{exchange.method}{target} reached sink {self._id}, which the test does not mock"
        found = Finding(("sinks",), text, hint=f"add {self._id}: {{reply: {{}}}} under sinks:")
        if found not in self.findings:  # a retry asks again
            self.findings.append(found)
        raise UpstreamUnavailable("the test has nothing in the place of this sink")

    def _by_itself(self, request: Request | Notification) -> Reply | None:
        """The answer to what every server answers, and no test is about; None for everything else."""
        mock, method = self._mock, request.method
        if method in _UNTOLD or method == "ping":
            return Result()
        if method == "initialize":
            wanted = request.params.get("protocolVersion")
            version = wanted if wanted in LEGACY_VERSIONS else LATEST_LEGACY
            return Result({"protocolVersion": version, **self._introduction()})
        if method == "server/discover":
            versions = [*MODERN_VERSIONS, *LEGACY_VERSIONS]
            return Result({"resultType": "complete", "supportedVersions": versions, **self._introduction()})
        told = mock.script or mock.echo or any(each is not None for each in (mock.reply, mock.error, mock.fail))
        if method == _TEMPLATES and not told:
            return Result({"resourceTemplates": []})
        if method not in _LISTS:
            return None
        member, key = _LISTS[method]
        offered: Sequence[str | Mapping[str, Any]] = getattr(mock, member)
        if told and not offered:
            return None
        return Result({member: [_item(each, key, member) for each in offered]})

    def _introduction(self) -> dict[str, Json]:
        capabilities: dict[str, Json] = {member: {} for member, _ in _LISTS.values() if getattr(self._mock, member)}
        return {"capabilities": capabilities, "serverInfo": {"name": self._id, "version": "0"}}


def _item(given: str | Mapping[str, Any], key: str, member: str) -> Mapping[str, Json]:
    """An item of a list, of no more than its name if that is all that was given."""
    if not isinstance(given, str):
        return given
    item: dict[str, Json] = {"name": given, key: given}
    if member == "tools":
        item["inputSchema"] = {"type": "object"}
    return item


async def _pause(seconds: Duration | None) -> None:
    if seconds is not None:
        await trio.sleep(seconds)


def shown_reply(reply: Reply | None) -> Json:
    """A reply as expectations see it: `result` or `error`."""
    if reply is None:
        return {}
    if isinstance(reply, Result):
        return {"result": dict(reply.value)}
    return {"error": {"code": reply.code, "message": reply.message, "data": reply.data}}
