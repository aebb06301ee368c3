"""
Play a tape to a gateway of some configuration, and hand out what that made of it, as entries of another tape.

The gateway is a real one: its engine, its stages, its routers. Only what reaches the world outside is stood in for:
sources, sinks that lead to an upstream, stores, and stages that read credentials, which are on no tape.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import Any, final

import trio
from trio.testing import MockClock

from ..model.changes import Changes
from ..model.component import Component, ComponentKind, State
from ..model.document import Document
from ..model.exchange import Exchange, Service
from ..model.figures import Figure
from ..model.handle import Handle
from ..protocol.errors import UpstreamUnavailable
from ..protocol.messages import Reply
from ..runtime.chain import Probe
from ..runtime.edges import Edges
from ..runtime.engine import Engine
from .entries import Entry
from .masking import Masking
from .narration import Narration
from .player import Player, Unknown
from .reading import Tape
from .recorder import Recorder
from .stand_ins import PlayedIdentity, PlayedSink, PlayedSource

IDENTITY = frozenset({"auth", "tenant"})
"""Roles of stages that read what is on no tape."""


@final
class Played:
    """What became of a replay."""

    def __init__(self) -> None:
        self.lacking: list[str] = []
        """What was asked for that the tape does not have."""


def play(tape: Tape, document: Document, see: Callable[[Entry], None], *, unknown: Unknown | None = None) -> Played:
    """
    Play a tape on a clock of its own; takes as long as the work takes, however long the tape is.

    Args:
        tape: What is played.
        document: The configuration under which.
        see: Told of everything that happens, as a recorder would write it down, in order.
        unknown: Answers what upstreams were not asked when the tape was made; that fails if absent.

    Raises:
        ComponentError: A component cannot be opened.
    """
    played = Played()
    trio.run(_play, tape, document, see, unknown or _nobody, played, clock=MockClock(autojump_threshold=0))
    return played


async def _nobody(exchange: Exchange, sink: str) -> Reply:
    await trio.lowlevel.checkpoint()
    raise UpstreamUnavailable(f"{sink}: the tape has no answer to {exchange.method}")


async def _play(tape: Tape, document: Document, see: Callable[[Entry], None], unknown: Unknown, played: Played) -> None:
    player = Player(tape.entries(), tape.header.epoch, unknown)
    sources = {source_id: PlayedSource(source_id) for source_id in document.sources}
    engine = Engine(document, listen=False, overrides=_stand_ins(document, player, sources), edges=_both(player, see))
    async with engine.running():
        for source in sources.values():
            await source.handle()
        await player.run()
    played.lacking = player.lacking


def _stand_ins(
    document: Document, player: Player, sources: dict[str, PlayedSource]
) -> dict[tuple[ComponentKind, str], Component]:
    found: dict[tuple[ComponentKind, str], Component] = {
        (ComponentKind.SOURCE, source_id): source for source_id, source in sources.items()
    }
    for sink in document.sinks.values():
        if not sink.routes:
            found[ComponentKind.SINK, sink.id] = PlayedSink(sink.id)
    chains = [each.chain for each in document.pipelines.values()] + [each.chain for each in document.sinks.values()]
    for chain in chains:
        for stage in chain:
            if (stage.cls.role or stage.cls.name) in IDENTITY:
                found[ComponentKind.MIDDLEWARE, stage.id] = PlayedIdentity(stage.id, player.caller_of)
    return found


class _Ear:
    """Where a recorder's entries go at once."""

    def __init__(self, see: Callable[[Entry], None]) -> None:
        self._zero, self._clock = trio.current_time(), trio.lowlevel.current_clock()
        self._see = see

    def clock(self) -> float:
        """Seconds since it began to listen."""
        return self._clock.current_time() - self._zero

    def put(self, weight: int, make: Callable[..., Entry], *arguments: Any) -> None:
        """See `Scribe`."""
        self._see(make(self.clock(), *arguments))

    def note(self, t: float, make: Callable[..., Entry], *arguments: Any) -> None:
        """See `Scribe`."""
        self._see(make(t, *arguments))

    def figures(self) -> Iterable[Figure]:
        """Nothing is counted."""
        return ()


def _both(player: Player, see: Callable[[Entry], None]) -> Edges:
    """The player, and around it a recorder."""
    ear = _Ear(see)
    masking = Masking(secrets.token_bytes(32), (), ())
    recorder = Recorder(ear, Narration(masking, lambda _digest: None, spliced=False), ear.clock, 0.0)
    return _Stack(player, recorder)


class _Stack(Edges):
    """A recorder sees what the player gives."""

    def __init__(self, player: Player, recorder: Recorder) -> None:
        self._player = player
        self._recorder = recorder

    def now(self, now: Callable[[], float]) -> Callable[[], float]:
        return self._player.now(now)

    def configured(self, document: Document, generation: int, changes: Changes) -> None:
        self._player.configured(document, generation, changes)
        self._recorder.configured(document, generation, changes)

    def client(self, source: str, pipeline: Callable[[], str], handle: Handle) -> Handle:
        return self._player.client(source, pipeline, self._recorder.client(source, pipeline, handle))

    def sink(self, sink: str, service: Service) -> Service:
        return self._recorder.sink(sink, self._player.sink(sink, service))

    def probe(self) -> Probe | None:
        return self._recorder.probe()

    def seed(self, component: str, seed: int) -> int:
        return self._recorder.seed(component, self._player.seed(component, seed))

    def new_id(self, component: str, new_id: Callable[[], str]) -> Callable[[], str]:
        return self._recorder.new_id(component, self._player.new_id(component, new_id))

    def became(self, component: str, state: State, reason: str) -> None:
        self._recorder.became(component, state, reason)
