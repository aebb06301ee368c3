"""Compiled chains: order, guards, the return path, chains inside chains."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Any

import pytest
import trio

from sluiceway.pipeline.model.component import Context, Middleware
from sluiceway.pipeline.model.exchange import Exchange, Link, Relay, Service, deliver
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.model.when import When
from sluiceway.pipeline.protocol.errors import Forbidden
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.chain import Stage, compile_chain, nest


class Step(Middleware):
    """Writes its name on the way in, on the way out, and on notifications if it is a `Watcher`."""

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        log: list[str] = self.config
        log.append(f"{self.context.id} in")
        reply = await call_next(exchange)
        log.append(f"{self.context.id} out")
        return reply


class Watcher(Step):
    async def relay(self, exchange: Exchange, notification: Notification, forward: Relay) -> None:
        self.config.append(f"{self.context.id} relay")
        await forward(exchange, notification)


class Gate(Middleware):
    """Lets an exchange pass, or not, and has nothing to do with what comes back."""

    def __call__(self, exchange: Exchange, call_next: Service) -> Awaitable[Reply]:
        if exchange.method == "prompts/get":
            raise Forbidden("no prompts")
        return call_next(exchange)


def stage(name: str, log: list[str], cls: type[Step] = Step, when: When | None = None) -> Stage:
    return Stage(name, cls(log, Context(id=name)), when.compile() if when else None)


def exchange(log: list[str], relay: Any, method: str = "tools/call") -> Exchange:
    async def emit(notification: Notification) -> None:
        log.append(f"client got {notification.method}")

    client = Client(era=Era.MODERN, version="2026-07-28")
    return Exchange(
        request=Request(1, method, {"name": "x"}), kind=Kind.CALL, client=client, link=Link(emit), way_back=relay
    )


async def noisy_sink(x: Exchange) -> Reply:
    await x.relay(Notification("n"))
    return Result({"ok": True})


async def test_a_stage_may_be_a_plain_method() -> None:
    """What it refuses comes out where the stages around it await it."""
    log: list[str] = []
    chain = compile_chain([stage("a", log), Stage("gate", Gate(None, Context(id="gate")))], noisy_sink)

    reply = await chain.service(exchange(log, chain.relay))
    with pytest.raises(Forbidden):
        await chain.service(exchange(log, chain.relay, "prompts/get"))

    assert Result({"ok": True}) == reply
    assert ["a in", "client got n", "a out", "a in"] == log


class Tagged(Middleware):
    """Its method is defined in a function, and speaks to its base: it has a closure."""

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        self.tag = "t"

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        self.config.append(self.tag)
        return await super().__call__(exchange, call_next)


class Sparing(Middleware):
    """Its method takes more than chains give it."""

    async def __call__(self, exchange: Exchange, call_next: Service, *rest: Any, note: str = "spared") -> Reply:
        self.config.append(f"{note} {len(rest)}")
        return await call_next(exchange)


async def test_whatever_can_be_called_with_two_arguments_can_be_a_stage() -> None:
    """A method with a closure, one with other arguments, one that was wrapped, and one of the instance."""
    log: list[str] = []

    async def of_its_own(exchange: Exchange, call_next: Service) -> Reply:
        log.append("of its own")
        return await call_next(exchange)

    special, wrapped = Step(log, Context(id="special")), Step(log, Context(id="wrapped"))
    setattr(special, "__call__", of_its_own)  # noqa: B010  # a plain assignment is no method, says the type checker
    setattr(wrapped, "__call__", partial(Step.__call__, wrapped))  # noqa: B010  # as above
    stages = [Tagged(log, Context(id="t")), Sparing(log, Context(id="s")), special, wrapped]
    chain = compile_chain([Stage(each.context.id, each) for each in stages], noisy_sink)

    assert Result({"ok": True}) == await chain.service(exchange(log, chain.relay))
    assert ["t", "spared 0", "of its own", "wrapped in", "client got n", "wrapped out"] == log


async def test_one_stage_in_two_chains_goes_on_to_what_is_behind_it_in_each() -> None:
    """Chains are compiled again when a stage is replaced, and exchanges are inside the old one still."""
    log: list[str] = []
    shared = stage("a", log)

    async def other_sink(x: Exchange) -> Reply:
        return Result({"other": True})

    one = compile_chain([shared, stage("b", log)], noisy_sink)
    two = compile_chain([shared], other_sink)
    replies = [await each.service(exchange(log, each.relay)) for each in (one, two, one)]

    assert [Result({"ok": True}), Result({"other": True}), Result({"ok": True})] == replies
    assert Result({"ok": True}) == await shared.middleware(exchange(log, one.relay), noisy_sink)


async def test_stages_run_in_the_order_written() -> None:
    """The first one is the outermost."""
    log: list[str] = []
    chain = compile_chain([stage("a", log), stage("b", log)], noisy_sink)

    assert Result({"ok": True}) == await chain.service(exchange(log, chain.relay))
    assert ["a in", "b in", "client got n", "b out", "a out"] == log


async def test_notifications_pass_watching_stages_from_the_inside_out() -> None:
    """Stages that do not override `relay` are not on the way back at all."""
    log: list[str] = []
    stages = [stage("a", log, Watcher), stage("b", log), stage("c", log, Watcher)]
    chain = compile_chain(stages, noisy_sink)
    await chain.service(exchange(log, chain.relay))

    assert ["c relay", "a relay", "client got n"] == log[3:6]


async def test_a_guarded_stage_sees_only_what_it_is_meant_for() -> None:
    """On both ways."""
    log: list[str] = []
    chain = compile_chain([stage("a", log, Watcher, When(method=("prompts/*",))), stage("b", log)], noisy_sink)
    await chain.service(exchange(log, chain.relay))
    await chain.service(exchange(log, chain.relay, "prompts/get"))

    assert ["b in", "client got n", "b out"] == log[:3]
    assert ["a in", "b in", "a relay", "client got n", "b out", "a out"] == log[3:]


async def test_a_probe_stands_around_every_stage() -> None:
    """And is not there when there is none."""
    log: list[str] = []

    async def probe(stage_id: str, x: Exchange, inner: Service) -> Reply:
        log.append(f"probe {stage_id}")
        return await inner(x)

    chain = compile_chain([stage("a", log), stage("b", log)], noisy_sink, probe=probe)
    await chain.service(exchange(log, chain.relay))

    assert ["probe a", "a in", "probe b", "b in"] == log[:4]


async def test_a_nested_chain_relays_through_its_own_stages_first() -> None:
    """Then through those of the chain around it."""
    log: list[str] = []
    inner = nest(compile_chain([stage("i", log, Watcher), stage("s", log), stage("j", log, Watcher)], noisy_sink))
    outer = compile_chain([stage("o", log, Watcher)], inner)
    await outer.service(exchange(log, outer.relay))

    assert ["j relay", "i relay", "o relay", "client got n"] == log[4:8]


async def test_a_nested_chain_without_watchers_costs_nothing() -> None:
    """It is just its service."""
    chain = compile_chain([stage("i", [])], noisy_sink)

    assert chain.service is nest(chain)


class Indifferent(Step):
    """Looks at no result."""

    reads_results = False


@pytest.mark.parametrize(("kinds", "in_pieces"), [((Indifferent,), True), ((Indifferent, Step), False), ((), True)])
async def test_results_come_in_pieces_only_if_no_stage_may_read_them(kinds: Any, in_pieces: bool) -> None:
    """A stage says that it does not; one that says nothing gets them whole, in an inner chain too."""
    taken: list[bool] = []

    async def taking(x: Exchange) -> Reply:
        await trio.lowlevel.checkpoint()
        taken.append(x.takes_pieces)
        return Result({})

    async def write(_piece: bytes) -> None:
        await trio.lowlevel.checkpoint()

    inner = nest(compile_chain([stage(f"i{n}", [], kind) for n, kind in enumerate(kinds)], taking))
    for service in (inner, compile_chain([stage("o", [], Indifferent)], inner).service):
        seen = exchange([], deliver)
        seen.link.pieces = write
        await service(seen)

    assert [in_pieces, in_pieces] == taken


async def test_only_content_comes_in_pieces() -> None:
    """Lists and handshakes are read by somebody, whoever made the chain."""
    taken: list[bool] = []

    async def taking(x: Exchange) -> Reply:
        await trio.lowlevel.checkpoint()
        taken.append(x.takes_pieces)
        return Result({})

    async def unused(_piece: bytes) -> None:
        raise AssertionError("nobody writes")

    for method in ("tools/list", "initialize", "server/discover"):
        seen = exchange([], deliver, method)
        seen.link.pieces = unused
        await compile_chain([], taking).service(seen)

    assert [False, False, False] == taken
