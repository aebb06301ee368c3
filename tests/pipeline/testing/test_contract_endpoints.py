"""`check_sink` and `check_source` pass good components and name the rule that a bad one breaks."""

import random

import pytest
import trio
from attrs import frozen

from sluiceway.pipeline.model.component import ComponentKind, Sink, Source
from sluiceway.pipeline.protocol.errors import UpstreamClosed
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import Notification, Request, Result
from sluiceway.pipeline.testing import leaks
from sluiceway.pipeline.testing.contract import check_sink, check_source
from sluiceway.pipeline.testing.contract_endpoints import _Pipeline
from sluiceway.pipeline.testing.exchanges import MODERN_CLIENT
from sluiceway.pipeline.testing.musts import MUSTS, ContractViolation


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """What is left is left."""
    monkeypatch.setattr(leaks, "GRACE_S", 0.0)


@frozen
class NoOptions:
    """No options."""


class Answers(Sink):
    """A sink that answers with what was asked, after a notification."""

    Config = NoOptions
    name = "answers"

    async def __call__(self, exchange):
        await exchange.relay(Notification("notifications/message", {"level": "info", "data": "at work"}))
        if exchange.kind is Kind.LISTEN:
            await exchange.draining.wait()
        await trio.sleep(0.01)
        return Result({"of": exchange.method, "params": dict(exchange.request.params)})


class Fails(Answers):
    """A sink whose upstream is always gone."""

    async def __call__(self, exchange):
        await trio.lowlevel.checkpoint()
        raise UpstreamClosed("gone")


class WithoutACall(Sink):
    """Does not implement what a sink does."""

    Config = NoOptions
    name = "without_a_call"


class AnswersWithNothing(Answers):
    """Returns no reply for a notification, as the docstring of `Sink` would not have it."""

    async def __call__(self, exchange):
        reply = await super().__call__(exchange)
        return None if exchange.kind is Kind.NOTIFY else reply


class WritesIntoTheRequest(Answers):
    """Changes the params in place."""

    async def __call__(self, exchange):
        exchange.request.params["seen"] = True
        return await super().__call__(exchange)


class RelaysLate(Answers):
    """Sends a notification after the reply, from a task of its own."""

    async def __call__(self, exchange):
        reply = await super().__call__(exchange)

        async def later():
            await trio.sleep(1)
            await exchange.relay(Notification("notifications/message"))

        trio.lowlevel.spawn_system_task(later)
        return reply


class MixesReplies(Answers):
    """Keeps the exchange on itself."""

    async def __call__(self, exchange):
        self.exchange = exchange
        await trio.sleep(0.01)
        return Result({"of": self.exchange.method})


class KeepsInboxes(Answers):
    """Opens an inbox for every exchange and forgets to remove it."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.inboxes = {}

    async def __call__(self, exchange):
        self.inboxes[len(self.inboxes)] = exchange
        return await super().__call__(exchange)


class KeepsInboxesOfTheCancelled(Answers):
    """Removes an inbox only if the reply came."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.inboxes = {}

    async def __call__(self, exchange):
        self.inboxes[id(exchange)] = exchange
        reply = await super().__call__(exchange)
        del self.inboxes[id(exchange)]
        return reply


class TakesAPlace(Answers):
    """Fills a channel that nobody empties."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.send, self.receive = trio.open_memory_channel(10_000)

    async def __call__(self, exchange):
        self.send.send_nowait(exchange)
        return await super().__call__(exchange)


class ListensForEver(Answers):
    """Does not end a LISTEN exchange when the gateway drains."""

    async def __call__(self, exchange):
        if exchange.kind is Kind.LISTEN:
            await trio.sleep_forever()
        return await super().__call__(exchange)


class Gambles(Answers):
    """Answers by chance."""

    async def __call__(self, exchange):
        await trio.lowlevel.checkpoint()
        return Result({"chance": random.SystemRandom().random()})


BAD_SINKS = [
    ("M-REFUSE", WithoutACall, "TypeError: WithoutACall does not implement __call__"),
    ("M-REPLY", AnswersWithNothing, "notifications/roots/list_changed was answered with None"),
    ("M-NO-MUTATE", WritesIntoTheRequest, "the request was"),
    ("M-RELAY-LATE", RelaysLate, "came after the end"),
    ("M-OWN-REPLY", MixesReplies, "got"),
    ("M-BOUNDED", KeepsInboxes, r"self\.inboxes has"),
    ("M-CANCEL", KeepsInboxesOfTheCancelled, r"self\.inboxes has 1 entries, 0 before"),
    ("M-AT-REST", TakesAPlace, r"self\.send: .* taken"),
    ("M-END", ListensForEver, "ListensForEver was still busy"),
    ("M-SEEDED", Gambles, "chance"),
]


@pytest.mark.parametrize("cls", [Answers, Fails])
def test_a_good_sink_keeps_the_contract(cls):
    """Answering is fine, and so is failing in the right way."""
    check_sink(cls)


@pytest.mark.parametrize(("must", "cls", "found"), BAD_SINKS, ids=[f"{row[0]}-{row[1].__name__}" for row in BAD_SINKS])
def test_a_sink_that_breaks_a_rule_is_told_which(must, cls, found):
    """The violation names the rule and what was found."""
    with pytest.raises(ContractViolation, match=f"(?s)^{must}: .*found: .*{found}"):
        check_sink(cls)


def test_every_rule_of_sinks_alone_is_broken_by_a_sink_here():
    """Rules that bind stages too, and every component, are broken by stages as well."""
    rules = {m.id for m in MUSTS.values() if ComponentKind.SINK in m.kinds and ComponentKind.STORE not in m.kinds}

    assert rules | {"M-CANCEL", "M-END", "M-BOUNDED"} == {must for must, _cls, _found in BAD_SINKS}


def test_a_sink_is_checked_in_real_time_where_it_must_be():
    """Nothing sleeps for an hour then."""

    class Counting(Answers):
        """Answers at once."""

        async def __call__(self, exchange):
            await trio.lowlevel.checkpoint()
            if trio.current_effective_deadline() == float("inf"):
                raise AssertionError("there is a bound")
            return Result()

    check_sink(Counting, virtual_time=False, samples=[("tools/list", {}), ("ping", {})])


class Speaks(Source):
    """A source with a client inside: `say` sends a message through and keeps the reply."""

    Config = NoOptions
    name = "speaks"

    def __init__(self, config, context):
        super().__init__(config, context)
        self.handle = None
        self.replies = []

    async def serve(self, handle):
        self.handle = handle
        await trio.sleep_forever()

    async def say(self, message):
        async def emit(_notification):
            pass

        ticket = self.handle(message, client=MODERN_CLIENT, emit=emit)
        self.replies.append(await ticket.run())
        return ticket


async def drive(source):
    """Two messages."""
    await source.say(Request(1, "tools/list"))
    ticket = await source.say(Notification("notifications/roots/list_changed"))

    assert ticket.exchange.client.era is Era.MODERN
    assert len(source.replies) == 2

    ticket.cancel()


class DiesWhenServing(Speaks):
    """Serving fails."""

    async def serve(self, handle):
        await trio.lowlevel.checkpoint()
        raise OSError("no such address")


class DiesWhenStopped(Speaks):
    """Cannot be told to stop accepting."""

    def stop_accepting(self):
        raise KeyError("nothing to stop")


class EndsBadlyWhenStopped(Speaks):
    """Serving ends with an exception when it is told to stop accepting."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.stopped = trio.Event()

    async def serve(self, handle):
        self.handle = handle
        await self.stopped.wait()
        raise RuntimeError("told to stop")

    def stop_accepting(self):
        self.stopped.set()


class OpensTicketsForNothing(Speaks):
    """Opens a ticket and does not run it."""

    async def say(self, message):
        async def emit(_notification):
            pass

        self.replies.append(None)
        return self.handle(message, client=MODERN_CLIENT, emit=emit)


class RunsTwice(Speaks):
    """Runs a ticket twice."""

    async def say(self, message):
        ticket = await super().say(message)
        await ticket.run()
        return ticket


class Deaf(Speaks):
    """Hears nothing: what is said to it goes elsewhere."""

    async def serve(self, handle):
        await super().serve(elsewhere)


def elsewhere(message, *, client, emit, ask=None):
    """Another pipeline than the one under examination."""
    return _Pipeline()(message, client=client, emit=emit, ask=ask)


class LeavesATaskWhenCancelledEarly(Speaks):
    """Cancelled before it is quite there, it leaves what it started."""

    async def serve(self, handle):
        try:
            await trio.lowlevel.checkpoint()
            self.handle = handle
        finally:
            if self.handle is None:
                trio.lowlevel.spawn_system_task(trio.sleep_forever, name="left")
        await trio.sleep_forever()


BAD_SOURCES = [
    ("M-SERVE", DiesWhenServing, "OSError: no such address"),
    ("M-STOP", DiesWhenStopped, "KeyError: 'nothing to stop'"),
    ("M-SERVE", EndsBadlyWhenStopped, "RuntimeError: told to stop"),
    ("M-TICKET", OpensTicketsForNothing, "the ticket of tools/list was run 0 times"),
    ("M-TICKET", RunsTwice, "the ticket of tools/list was run 2 times"),
    ("M-TICKET", Deaf, "reached no pipeline"),
    ("M-CANCEL", LeavesATaskWhenCancelledEarly, "task 'left'"),
]


def test_a_good_source_keeps_the_contract():
    """With and without a client that drives it."""
    check_source(Speaks)
    check_source(Speaks, drive=drive)


@pytest.mark.parametrize(
    ("must", "cls", "found"), BAD_SOURCES, ids=[f"{row[0]}-{row[1].__name__}" for row in BAD_SOURCES]
)
def test_a_source_that_breaks_a_rule_is_told_which(must, cls, found):
    """The violation names the rule and what was found."""
    with pytest.raises(ContractViolation, match=f"(?s)^{must}: .*found: .*{found}"):
        check_source(cls, drive=drive)


def test_every_rule_of_sources_alone_is_broken_by_a_source_here():
    """Those that bind no other kind."""
    rules = {must.id for must in MUSTS.values() if must.kinds == (ComponentKind.SOURCE,)}

    assert rules <= {must for must, _cls, _found in BAD_SOURCES}


def test_a_source_is_checked_in_real_time_where_it_must_be():
    """A source with sockets keeps real time."""
    check_source(Speaks, virtual_time=False)
