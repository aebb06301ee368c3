"""
Play a tape to a gateway of some configuration, and hand out what that made of it, as entries of another tape.

The gateway is a real one: its engine, its stages, its routers. Only what reaches the world outside is stood in for:
sources, sinks that lead to an upstream, stores, and stages that read credentials, which are on no tape; see
`stand_ins.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Final, final

import trio

from ..model.changes import Changes
from ..model.component import State
from ..model.document import Document
from ..model.exchange import Exchange, Service
from ..model.figures import Figure
from ..model.handle import Handle
from ..protocol.errors import UpstreamUnavailable
from ..protocol.messages import Reply
from ..runtime.chain import Probe
from ..runtime.edges import Edges
from ..runtime.engine import Engine
from ..runtime.nursery import unwrap_single
from ..telemetry.metrics import Snapshot
from .clock import RealPace, TapeClock
from .course import Course, Stride
from .entries import Entry
from .masking import Masking
from .narration import Narration
from .player import Player
from .reading import Tape
from .recorder import Recorder
from .stand_ins import identities, played_sources, secluded, stand_ins
from .upstreams import Unknown

REAL_LINGER_S: Final = 10.0
"""Seconds that real upstreams get after the end of a tape."""

See = Callable[[Entry], None]
"""Told of entries, in order."""


@final
class Played:
    """What became of a replay."""

    def __init__(self) -> None:
        self.lacking: list[str] = []
        """What was asked for that the tape does not have, in words; the first hundred."""
        self.lacked = 0
        """How often something was asked for that the tape does not have."""
        self.begun = 0
        """Exchanges that were played."""
        self.reloads: list[float] = []
        """When the recorded gateway loaded its configuration again, in seconds of the tape; a replay has one only."""
        self.figures: Snapshot = ()
        """What the gateway counted, at the end."""


def play(
    tape: Tape,
    document: Document,
    see: See,
    *,
    hear: See | None = None,
    unknown: Unknown | None = None,
    ignored: Collection[str] = (),
    files: bool = False,
    linger_s: float = 0.0,
) -> Played:
    """
    Play a tape on a clock of its own; takes as long as the work takes, however long the tape is. Outside of Trio.

    Args:
        tape: What is played: clients and upstreams.
        document: The configuration under which.
        see: Told of everything that happens, as a recorder would write it down, in order. Numbers of exchanges are
            those of the tape; numbers of lines are 0.
        hear: Told of the tape's own entries, in order, as they are read: a bounded way ahead of what happens.
        unknown: Answers what upstreams were not asked when the tape was made; that fails if absent.
        ignored: Globs of paths (`params.arguments.now`) that do not decide which recorded answer a request gets.
        files: Whether what `see` is told has the text of the configuration.
        linger_s: How long requests may go on when the tape is at its end; those that do not end on it never end here.

    Raises:
        ComponentError: A component cannot be opened.
    """
    played = Played()
    trio.run(
        _play_fast,
        tape,
        document,
        see,
        hear,
        unknown or fail_unknown,
        ignored,
        files,
        linger_s,
        played,
        clock=TapeClock(),
    )
    return played


def play_clients(tape: Tape, document: Document, see: See, *, hear: See | None = None) -> Played:
    """
    Play the clients of a tape to a gateway with its real upstreams, as fast as the clients were then. Outside of Trio.

    Args:
        tape: What is played.
        document: The configuration; its sinks are opened, and called.
        see: See `play`.
        hear: See `play`.

    Raises:
        ComponentError: A component cannot be opened.
    """
    played = Played()

    async def main() -> None:
        player = Player(
            _heard(tape, hear), tape.header.epoch, RealPace(), fail_unknown, upstreams=False, linger_s=REAL_LINGER_S
        )
        await _run(player, document, see, played, upstreams=False)

    trio.run(main)
    return played


async def fail_unknown(exchange: Exchange, sink: str, spent_s: float) -> Reply:
    """
    What a sink says that was not asked when the tape was made. One that was cancelled then is to be cancelled again.

    Raises:
        UpstreamUnavailable: Always, if it does not wait.
    """
    if spent_s:
        await trio.sleep_forever()
    await trio.lowlevel.checkpoint()
    raise UpstreamUnavailable(f"{sink}: the tape has no answer to {exchange.method}")


def _heard(tape: Tape, hear: See | None) -> Iterator[Entry]:
    for entry in tape.entries():
        if hear is not None:
            hear(entry)
        yield entry


async def _play_fast(
    tape: Tape,
    document: Document,
    see: See,
    hear: See | None,
    unknown: Unknown,
    ignored: Collection[str],
    files: bool,
    linger_s: float,
    played: Played,
) -> None:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, TapeClock)
    course = Course(trio.current_time())
    player = Player(
        course.watched(_heard(tape, hear)), tape.header.epoch, Stride(clock, course), unknown, ignored=ignored,
        linger_s=linger_s,
    )  # fmt: skip

    def saw(entry: Entry) -> None:
        course.saw(entry)
        see(entry)

    with unwrap_single(), course.taken(player.look_ahead):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clock.serve)
            await _run(player, document, saw, played, stages=tape.header.stages, files=files)
            nursery.cancel_scope.cancel()


async def _run(
    player: Player,
    document: Document,
    see: See,
    played: Played,
    *,
    stages: bool = False,
    files: bool = False,
    upstreams: bool = True,
) -> None:
    sources = played_sources(document)
    overrides = {**sources, **identities(document, player.caller_of)}
    if upstreams:
        overrides |= stand_ins(document)
    engine = Engine(secluded(document), listen=False, overrides=overrides, edges=_both(player, see, files, stages))
    async with engine.running():
        for source in sources.values():
            await source.handle()
        await player.run()
        played.figures = engine.snapshot()
    played.lacking, played.lacked, played.reloads = player.lacking, player.lacked, player.reloads
    played.begun = player.begun


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


def _both(player: Player, see: See, files: bool, stages: bool) -> Edges:
    """The player, and around it a recorder, which gives exchanges the numbers that they have on the tape."""
    ear = _Ear(see)
    narration = Narration(Masking(secrets.token_bytes(32)), lambda _digest: None, spliced=False)
    recorder = Recorder(ear, narration, ear.clock, 0.0, stages=stages, files=files)
    recorder.next_exchange, recorder.next_inside = player.next_exchange, player.next_inside
    player.corrected = lambda epoch: ear.note(ear.clock(), narration.clock_set, epoch)
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
