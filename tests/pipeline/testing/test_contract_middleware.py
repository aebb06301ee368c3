"""`check_middleware` passes good stages and fails, for each rule, a stage that breaks just that one."""

import random
import socket
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import define, frozen

from sluiceway.middlewares.concurrency_limit import ConcurrencyLimit
from sluiceway.middlewares.headers import Headers
from sluiceway.middlewares.log import Log
from sluiceway.middlewares.request_id import RequestId
from sluiceway.middlewares.timeout import Timeout
from sluiceway.pipeline.model.component import ComponentKind, Context, Middleware, middleware
from sluiceway.pipeline.model.keys import principal_of
from sluiceway.pipeline.model.options import option
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import CapacityExceeded, ConnectFailed, Forbidden, GatewayError
from sluiceway.pipeline.protocol.messages import Notification, Result
from sluiceway.pipeline.stores.memory import MemoryStore
from sluiceway.pipeline.testing import leaks
from sluiceway.pipeline.testing.contract import check_middleware
from sluiceway.pipeline.testing.exchanges import legacy_client
from sluiceway.pipeline.testing.musts import MUSTS, ContractViolation

KEPT = []
"""Sockets that bad stages leave open; closed after each test."""


class Plain(Middleware):
    """What the stages below have in common: a name and no options."""

    @frozen
    class Config:
        """No options."""

    name = "plain"


@pytest.mark.parametrize(
    ("cls", "config"),
    [
        (ConcurrencyLimit, {"max_in_flight": 1, "max_waiting": 1}),
        (ConcurrencyLimit, None),
        (Headers, None),
        (Log, None),
        (RequestId, None),
        (Timeout, None),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value),
)
def test_a_built_in_stage_keeps_the_contract(cls, config):
    """Those that ship are examples."""
    check_middleware(cls, config)


# M-NAME


class Unnamed(Plain):
    """Was not decorated."""

    name = ""


class Kindless(Plain):
    """Says it is something else."""

    kind = ComponentKind.SINK


class FromTheFuture(Plain):
    """Speaks another version of the contract."""

    api = 99


class Undocumented(Plain):
    __doc__ = " "


class DocumentedByItsBaseOnly(Plain):
    pass


# M-OPTIONS


class Optionless(Plain):
    """Has no attrs class."""

    Config = dict


class Changeable(Plain):
    """Its options can be changed while it runs."""

    @define
    class Config:
        """Not frozen."""

        size: int = option(1, doc="A size.")


class BareField(Plain):
    """A field says nothing about itself."""

    @frozen
    class Config:
        """One bare field."""

        size: int = 1


class EmptyDoc(Plain):
    """An option says an empty thing about itself."""

    @frozen
    class Config:
        """One option."""

        size: int = option(1, doc=" ")


class NoExample(Plain):
    """Nobody knows what to write."""

    @frozen
    class Config:
        """One option."""

        pattern: str | None = option(None, doc="A pattern.")


class NoExampleOfAList(Plain):
    """Nor here."""

    @frozen
    class Config:
        """One option."""

        patterns: list[str] = option(factory=list, doc="Patterns.")


# M-PURE


class ReadsAFile(Plain):
    """Opens a file in the constructor."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.text = Path(__file__).read_text()


class OpensASocket(Plain):
    """Keeps a socket, outside `open`."""

    def __init__(self, config, context):
        super().__init__(config, context)
        socket.socket().close()


class StartsAThread(Plain):
    """Starts a thread in the constructor."""

    may_end = threading.Event()

    def __init__(self, config, context):
        super().__init__(config, context)
        threading.Thread(target=self.may_end.wait, name="started", daemon=True).start()


class LooksAtTheClock(Plain):
    """Needs a running event loop."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.born = trio.current_time()


# M-REOPEN and M-CLEAN


class OpensOnce(Plain):
    """Cannot be opened again."""

    was_open = False

    def open(self):
        if self.was_open:
            raise RuntimeError("once is enough")
        self.was_open = True
        return super().open()


class KeepsADescriptor(Plain):
    """Does not close what it opened."""

    def open(self):
        KEPT.append(socket.socket())
        return super().open()


class LeavesATask(Plain):
    """Starts a task for an exchange that outlives the stage."""

    async def __call__(self, exchange, call_next):
        reply = await call_next(exchange)
        trio.lowlevel.spawn_system_task(trio.sleep_forever, name="left")
        return reply


# M-CANCEL


class LosesPlaces(Plain):
    """Gives a place back, but not when it is cancelled."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.limiter = trio.CapacityLimiter(1000)

    async def __call__(self, exchange, call_next):
        self.limiter.acquire_on_behalf_of_nowait(exchange)
        try:
            reply = await call_next(exchange)
        except Exception:
            self.limiter.release_on_behalf_of(exchange)
            raise
        self.limiter.release_on_behalf_of(exchange)
        return reply


class ForgetsTheCancelled(Plain):
    """A cancelled exchange stays in the table."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.running = {}

    async def __call__(self, exchange, call_next):
        self.running[id(exchange)] = exchange
        try:
            return await call_next(exchange)
        except Exception:
            raise
        finally:
            if trio.current_effective_deadline() != -float("inf"):
                del self.running[id(exchange)]


class BreaksWhenCancelled(Plain):
    """Its cleanup fails."""

    async def __call__(self, exchange, call_next):
        try:
            return await call_next(exchange)
        except trio.Cancelled:
            raise KeyError("the cleanup has a bug") from None


class BreaksTheWaiting(Plain):
    """Whoever is cancelled while waiting keeps the place it was about to get."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.semaphore = trio.Semaphore(1, max_value=1)

    async def __call__(self, exchange, call_next):
        try:
            self.semaphore.acquire_nowait()
        except trio.WouldBlock:
            waited = False
            try:
                await self.semaphore.acquire()
                waited = True
            finally:
                if not waited:
                    self.lost = [*getattr(self, "lost", []), exchange]
        try:
            return await call_next(exchange)
        finally:
            self.semaphore.release()


class OpensUncleanly(Plain):
    """Cancelled while it opens, it leaves a socket."""

    @asynccontextmanager
    async def open(self):
        KEPT.append(socket.socket())
        await trio.lowlevel.checkpoint()
        yield
        KEPT.pop().close()


# M-CALL-ONCE and M-CALL-LATE


class CallsTwice(Plain):
    """Throws the first reply away."""

    async def __call__(self, exchange, call_next):
        await call_next(exchange)
        return await call_next(exchange)


class RetriesWithoutSayingSo(Plain):
    """Repeats what failed, and does not say so."""

    async def __call__(self, exchange, call_next):
        try:
            return await call_next(exchange)
        except ConnectFailed:
            return await call_next(exchange)


class CallsTheLastOne(Plain):
    """Keeps `call_next` and uses it for the next exchange."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.kept = None

    async def __call__(self, exchange, call_next):
        self.kept, kept = call_next, self.kept
        if kept is not None:
            await kept(exchange)
        return await call_next(exchange)


# M-PASS and M-RELAY


class AddsToEveryReply(Plain):
    """Signs what it has no reason to sign."""

    async def __call__(self, exchange, call_next):
        reply = await call_next(exchange)
        return Result({**reply.value, "signed": True}) if isinstance(reply, Result) else reply


class LetsNobodyIn(Plain):
    """Refuses every sample, so that nothing can be seen."""

    async def __call__(self, exchange, call_next):
        await trio.lowlevel.checkpoint()
        raise Forbidden("nobody")


class AnswersEverything(Plain):
    """Never asks the inner chain."""

    async def __call__(self, exchange, call_next):
        await trio.lowlevel.checkpoint()
        return Result()


class SwallowsNotifications(Plain):
    """Drops what flows back."""

    async def relay(self, exchange, notification, forward):
        pass


class Reorders(Plain):
    """Holds every notification back until the next one has gone."""

    async def relay(self, exchange, notification, forward):
        held = exchange.marks.pop(self.context.id, None)
        exchange.marks[self.context.id] = notification
        if held is not None:
            await forward(exchange, notification)
            await forward(exchange, held)
            exchange.marks.pop(self.context.id, None)


class Rewords(Plain):
    """Changes every notification."""

    async def relay(self, exchange, notification, forward):
        await forward(exchange, Notification(notification.method, {**notification.params, "seen": True}))


# M-BUGS, M-MARKS, M-NO-MUTATE, M-REFUSE, M-REPLY


class HidesBugs(Plain):
    """Catches everything."""

    async def __call__(self, exchange, call_next):
        try:
            return await call_next(exchange)
        except GatewayError:
            raise
        except Exception as error:
            raise CapacityExceeded("something went wrong") from error


class WritesForeignMarks(Plain):
    """Changes another stage's mark."""

    async def __call__(self, exchange, call_next):
        for mark in exchange.marks.values():
            mark.clear()
        return await call_next(exchange)


class InventsMarks(Plain):
    """Uses a key that is not its id."""

    async def __call__(self, exchange, call_next):
        exchange.marks["seen"] = True
        return await call_next(exchange)


class ChangesTheParams(Plain):
    """Writes into the request."""

    async def __call__(self, exchange, call_next):
        exchange.request.params["seen"] = True
        return await call_next(exchange)


class ReplacesTheRequest(Plain):
    """Changes the request of the stages around it."""

    async def __call__(self, exchange, call_next):
        exchange.request = exchange.request.with_params(exchange.request.params)
        return await call_next(exchange)


class ChangesTheReply(Plain):
    """Writes into the reply."""

    async def __call__(self, exchange, call_next):
        reply = await call_next(exchange)
        if isinstance(reply, Result):
            reply.value["seen"] = True
        return reply


class RefusesWithAnything(Plain):
    """Refuses with an exception of its own making."""

    async def __call__(self, exchange, call_next):
        if exchange.method == "tools/list":
            raise PermissionError("not you")
        return await call_next(exchange)


class TurnsFaultsIntoItsOwn(Plain):
    """Turns a failure of the inner chain into something the boundary does not know."""

    async def __call__(self, exchange, call_next):
        try:
            return await call_next(exchange)
        except GatewayError as error:
            raise OSError("it failed") from error


class AnswersWithADict(Plain):
    """Returns something that is no reply."""

    async def __call__(self, exchange, call_next):
        reply = await call_next(exchange)
        return dict(reply.value) if isinstance(reply, Result) else reply


# M-OWN-REPLY, M-AT-REST, M-BOUNDED, M-END, M-SEEDED


class SharesAVariable(Plain):
    """Keeps the reply of an exchange on itself."""

    async def __call__(self, exchange, call_next):
        self.reply = await call_next(exchange)
        await trio.sleep(0.1)
        return self.reply


class ForgetsTheTenant(Plain):
    """A cache whose key has the subject, and nothing else of who asks."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.kept = {}

    async def __call__(self, exchange, call_next):
        key = (exchange.caller.subject, exchange.method)
        if key not in self.kept:
            self.kept[key] = await call_next(exchange)
        return self.kept[key]


class ForgetsTheRights(Plain):
    """Joins equal requests of one principal, whatever its credential allows."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.flights = {}

    async def __call__(self, exchange, call_next):
        key = (principal_of(exchange), exchange.method)
        flight = self.flights.get(key)
        if flight is not None:
            with trio.move_on_after(60):
                await flight[0].wait()
            return flight[1] if len(flight) > 1 else await call_next(exchange)
        flight = self.flights[key] = [trio.Event()]
        try:
            flight.append(await call_next(exchange))
        finally:
            flight[0].set()
            del self.flights[key]
        return flight[1]


class BreaksInCompany(Plain):
    """Has no place for two."""

    inside = False

    async def __call__(self, exchange, call_next):
        if self.inside:
            raise RuntimeError("one at a time")
        self.inside = True
        try:
            return await call_next(exchange)
        finally:
            self.inside = False


class NeverGivesBack(Plain):
    """Takes a token for every exchange."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.limiter = trio.CapacityLimiter(10_000)

    async def __call__(self, exchange, call_next):
        self.limiter.acquire_on_behalf_of_nowait(exchange)
        return await call_next(exchange)


class RemembersEverything(Plain):
    """Counts every exchange in a table of its own."""

    def __init__(self, config, context):
        super().__init__(config, context)
        self.seen = {}

    async def __call__(self, exchange, call_next):
        self.seen[len(self.seen)] = exchange.method
        return await call_next(exchange)


class NeverEnds(Plain):
    """Waits for something that does not come."""

    async def __call__(self, exchange, call_next):
        await call_next(exchange)
        await trio.sleep_forever()


class DrawsFromTheProcess(Plain):
    """Uses the random numbers of the process, without any effect."""

    async def __call__(self, exchange, call_next):
        random.random()
        return await call_next(exchange)


class MakesItsOwnIds(Plain):
    """Its ids cannot be repeated."""

    async def __call__(self, exchange, call_next):
        exchange.correlation_id = str(random.SystemRandom().random())
        return await call_next(exchange)


BAD = [
    ("M-NAME", Unnamed, "has no name"),
    ("M-NAME", Kindless, "is a sink, not a middleware"),
    ("M-NAME", FromTheFuture, "speaks component API 99, not 1"),
    ("M-NAME", Undocumented, "no docstring"),
    ("M-NAME", DocumentedByItsBaseOnly, "no docstring"),
    ("M-OPTIONS", Optionless, "Config is <class 'dict'>"),
    ("M-OPTIONS", Changeable, "is not frozen"),
    ("M-OPTIONS", BareField, r"BareField\.Config\.size is not an option"),
    ("M-OPTIONS", EmptyDoc, "empty doc"),
    ("M-OPTIONS", NoExample, "no example"),
    ("M-OPTIONS", NoExampleOfAList, "no example"),
    ("M-PURE", ReadsAFile, r"did I/O: open\("),
    ("M-PURE", OpensASocket, r"did I/O: socket\.__new__"),
    ("M-PURE", StartsAThread, "thread 'started'"),
    ("M-PURE", LooksAtTheClock, "raised RuntimeError: must be called from async context"),
    ("M-REOPEN", OpensOnce, "the second time: RuntimeError: once is enough"),
    ("M-CLEAN", KeepsADescriptor, "socket"),
    ("M-CLEAN", LeavesATask, "task 'left'"),
    ("M-CANCEL", LosesPlaces, r"cancelled .* in .*self\.limiter: 1 taken, 0 before"),
    ("M-CANCEL", ForgetsTheCancelled, r"self\.running has 1 entries, 0 before"),
    ("M-CANCEL", BreaksWhenCancelled, "cancelled before step 0.*the cleanup has a bug"),
    ("M-CANCEL", BreaksTheWaiting, r"self\.lost has 1 entries"),
    ("M-CANCEL", OpensUncleanly, "Leak: left behind"),
    ("M-CALL-ONCE", CallsTwice, "awaited 2 times"),
    ("M-CALL-ONCE", RetriesWithoutSayingSo, "awaited 2 times"),
    ("M-CALL-LATE", CallsTheLastOne, "1 calls too late"),
    ("M-PASS", AddsToEveryReply, "became"),
    ("M-PASS", LetsNobodyIn, "no sample reached the inner chain.*tools/call: nobody"),
    ("M-PASS", AnswersEverything, "no sample reached the inner chain.*answered without it"),
    ("M-RELAY", SwallowsNotifications, r"became \[\]"),
    ("M-RELAY", Reorders, "became"),
    ("M-RELAY", Rewords, "'seen': True"),
    ("M-BUGS", HidesBugs, "_Bug.* became CapacityExceeded"),
    ("M-MARKS", WritesForeignMarks, r"another stage's mark became \{\}"),
    ("M-MARKS", InventsMarks, "set 'seen'"),
    ("M-NO-MUTATE", ChangesTheParams, "the request was"),
    ("M-NO-MUTATE", ReplacesTheRequest, "the request was"),
    ("M-NO-MUTATE", ChangesTheReply, "the reply was"),
    ("M-REFUSE", RefusesWithAnything, "tools/list: PermissionError: not you"),
    ("M-REFUSE", TurnsFaultsIntoItsOwn, "with an inner chain that fails: OSError"),
    ("M-REPLY", AnswersWithADict, "was answered with {"),
    ("M-OWN-REPLY", SharesAVariable, "got"),
    ("M-APART", ForgetsTheTenant, "of .* brought what was .*'s"),
    ("M-APART", ForgetsTheRights, "of ana of acme.* brought what was ana of acme.*'s"),
    ("M-REFUSE", BreaksInCompany, "with others at the same time: RuntimeError: one at a time"),
    ("M-AT-REST", NeverGivesBack, r"self\.limiter: 130 taken, 0 before"),
    ("M-BOUNDED", RemembersEverything, r"self\.seen has 130 entries, 65 before"),
    ("M-END", NeverEnds, "NeverEnds was still busy"),
    ("M-SEEDED", DrawsFromTheProcess, "drew from the module `random`"),
    ("M-SEEDED", MakesItsOwnIds, "once .* then"),
]


@pytest.fixture(autouse=True)
def _tidy(monkeypatch):
    """Close what bad stages keep on purpose, and do not wait for it to go."""
    monkeypatch.setattr(leaks, "GRACE_S", 0.0)
    StartsAThread.may_end.clear()
    yield
    monkeypatch.undo()
    while KEPT:
        KEPT.pop().close()
    StartsAThread.may_end.set()


@pytest.mark.parametrize(("must", "cls", "found"), BAD, ids=[f"{row[0]}-{row[1].__name__}" for row in BAD])
def test_a_stage_that_breaks_a_rule_is_told_which(must, cls, found, monkeypatch):
    """The violation names the rule and what was found."""
    with pytest.raises(ContractViolation, match=f"(?s)^{must}: .*found: .*{found}") as caught:
        check_middleware(cls)

    assert caught.value.must is MUSTS[must]


def test_every_rule_of_stages_is_broken_by_a_stage_here():
    """A rule that no stage can break is not checked."""
    rules = {must.id for must in MUSTS.values() if ComponentKind.MIDDLEWARE in must.kinds}

    assert rules == {must for must, _cls, _found in BAD}


def test_a_stage_that_says_it_replays_may_call_again():
    """`replays` allows what M-CALL-ONCE forbids."""

    @middleware("patient")
    class Patient(RetriesWithoutSayingSo):
        """Repeats what failed."""

        replays = True

    check_middleware(Patient)


def test_a_stage_that_authenticates_gets_the_client_it_wants():
    """Samples, client and caller are those of the test."""

    @middleware("picky")
    class Picky(Plain):
        """Lets one caller with a session list tools."""

        async def __call__(self, exchange, call_next):
            if exchange.caller.subject != "ana" or exchange.client.session is None or exchange.method != "tools/list":
                raise Forbidden("not you")
            return await call_next(exchange)

    check_middleware(Picky, client=legacy_client(), caller=Caller("ana"), samples=[("tools/list", {})])

    with pytest.raises(ContractViolation, match="M-PASS"):
        check_middleware(Picky)


def test_a_stage_gets_its_stores():
    """A store that is given is used; one that is not given is in memory."""
    given = MemoryStore(MemoryStore.Config(), Context(id="given"))

    @middleware("keeper")
    class Keeper(Plain):
        """Keeps one entry in each of two stores."""

        async def __call__(self, exchange, call_next):
            await self.context.store("given").put("key", b"value")
            await self.context.store("other").put("key", b"value")
            return await call_next(exchange)

    check_middleware(Keeper, stores={"given": given})

    assert given.size() == 1


def test_a_bound_that_is_not_reached_looks_like_none():
    """A table with a bound passes once the config puts the bound within reach; the message says so."""

    @middleware("latest")
    class Latest(Plain):
        """Remembers the latest exchanges."""

        @frozen
        class Config:
            """One option."""

            max_entries: int = option(1000, ge=1, doc="Entries held at most.")

        def __init__(self, config, context):
            super().__init__(config, context)
            self.seen = []

        async def __call__(self, exchange, call_next):
            self.seen = [*self.seen, exchange.method][-self.config.max_entries :]
            return await call_next(exchange)

    with pytest.raises(ContractViolation, match="give the checker a config in which it is below 64"):
        check_middleware(Latest)

    check_middleware(Latest, {"max_entries": 10})


async def test_a_checker_brings_its_own_event_loop():
    """Called from an async test it says what to do instead."""
    with pytest.raises(RuntimeError, match="call them from a plain"):
        check_middleware(RequestId)
