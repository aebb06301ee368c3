"""Runs tests of configurations: each in a gateway of its own, on a clock of its own."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, final

import structlog
import trio
from attrs import define, evolve, field
from structlog.testing import LogCapture
from trio.testing import MockClock

from ...config.case_rules import Declared, start_date
from ...config.problems import Span
from ...config.suites import TEST_DIR, Suite, check_suite
from ...model.document import Document, SourceSpec
from ..fakes import FakeSource
from ..harness import PipelineHarness
from .clock import pass_time
from .coverage import Coverage
from .findings import Finding
from .mocks import MockSink
from .observed import Arrival, Observed, way_of
from .playing import Clock, Player
from .stores import FaultyStore, options_in_memory

MAX_LOGGED: Final = 5
"""Exceptions that are shown of what a test logged."""
_PREFIX: Final = "sluiceway-test-"
_SOURCE: Final = "test"
"""Id of the source that is added where no declared one feeds the pipeline."""


@final
@define(eq=False)
class Outcome:
    """How one test ended."""

    declared: Declared
    findings: list[Finding] = field(factory=list)
    """What is wrong; none if it passed."""
    ways: dict[int, list[str]] = field(factory=dict)
    """The way of each request that a finding is about, by identity of its link."""
    log: list[str] = field(factory=list)
    """Exceptions that were logged meanwhile: bugs, as a rule. The first `MAX_LOGGED`."""
    real_s: float = 0.0
    virtual_s: float = 0.0

    @property
    def name(self) -> str:
        """Name of the test."""
        return self.declared.case.name

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def span(self, finding: Finding) -> Span:
        """Where the expectation stands that a finding is about."""
        return self.declared.span(finding.path)


@contextmanager
def prepared(path: Path) -> Iterator[Suite]:
    """
    The tests of a file, with the variables they need set for this process, and a directory that goes at the end.

    Args:
        path: A file of tests, or a configuration.
    """
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        suite = check_suite(path, {**os.environ, TEST_DIR: folder})
        before = dict(os.environ)
        os.environ.update({**suite.env, TEST_DIR: folder})
        try:
            yield suite
        finally:
            os.environ.clear()
            os.environ.update(before)


def run_case(declared: Declared, document: Document, coverage: Coverage | None = None) -> Outcome:
    """
    Run one test. Inside of `prepared`, and outside of Trio.

    Args:
        declared: The test, without problems.
        document: The configuration.
        coverage: Notes what the test touches.
    """
    _empty_folder()
    outcome = Outcome(declared)
    began, clock = time.perf_counter(), MockClock()
    with _captured(outcome.log):
        try:
            trio.run(_run, declared, document, outcome, coverage, clock=clock)
        except Exception as error:  # the boundary: a test that breaks the gateway has failed, and others go on
            outcome.findings += [Finding((), text) for text in _sentences(error)]
    outcome.real_s, outcome.virtual_s = time.perf_counter() - began, clock.current_time()
    return outcome


async def _run(declared: Declared, document: Document, outcome: Outcome, coverage: Coverage | None) -> None:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_time, clock)
        await _play(declared, document, outcome, coverage)
        nursery.cancel_scope.cancel()


async def _play(declared: Declared, document: Document, outcome: Outcome, coverage: Coverage | None) -> None:
    case = declared.case
    document, source = _with_door(document, declared)
    rng = random.Random(case.seed)  # noqa: S311  # the same faults in every run
    arrivals: list[Arrival] = []
    sinks = {
        sink.id: MockSink(sink.id, case.sinks.get(sink.id), rng, arrivals)
        for sink in document.sinks.values()
        if sink.id in case.sinks or not (sink.routes or sink.cls.in_process)
    }
    stores = {
        store.id: FaultyStore(store.id, options_in_memory(store.cls, store.config), case.stores.get(store.id, ()), rng)
        for store in document.stores.values()
    }
    dates = Clock(trio.lowlevel.current_clock(), start_date(case.now))
    gateway = PipelineHarness(document, sinks=sinks, stores=stores, seed=case.seed, now=dates.now)
    player = Player(declared, gateway, sinks, arrivals, dates, source)
    try:
        async with gateway:
            await player.play()
    finally:
        found = player.findings + [finding for mock in sinks.values() for finding in mock.findings]
        outcome.findings += _once_each(found)
        _keep_ways(outcome, player.observed)
        if coverage is not None:
            coverage.see(player.observed, gateway.stage_log, arrivals)


def _with_door(document: Document, declared: Declared) -> tuple[Document, str]:
    """The source that the requests of a case come in by; one is added if none feeds the pipeline."""
    case = declared.case
    if case.source is not None:
        return document, case.source
    pipeline = case.pipeline if case.pipeline is not None else next(iter(document.pipelines))
    for source in document.sources.values():
        if source.pipeline == pipeline:
            return document, source.id
    added = SourceSpec(id=_SOURCE, cls=FakeSource, config=None, pipeline=pipeline)
    return evolve(document, sources={**document.sources, _SOURCE: added}), _SOURCE


def _once_each(findings: list[Finding]) -> Iterator[Finding]:
    """What is wrong with many requests in the same way is told once, of the first."""
    counts = Counter((each.path, each.message, repr(each.expected), repr(each.actual)) for each in findings)
    for each in findings:
        more = counts.pop((each.path, each.message, repr(each.expected), repr(each.actual)), 0) - 1
        if more > 0:
            yield evolve(each, message=f"{each.message} (and so with {more} more)")
        elif more == 0:
            yield each


def _keep_ways(outcome: Outcome, observed: list[Observed]) -> None:
    wanted = {id(finding.subject) for finding in outcome.findings if finding.subject is not None}
    for seen in observed:
        if id(seen.link) in wanted:
            outcome.ways[id(seen.link)] = list(way_of(seen))


def _sentences(error: BaseException) -> Iterator[str]:
    """What broke, of a group each by itself."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _sentences(each)
    elif isinstance(error, trio.TooSlowError):
        yield "it does not end: nothing more happens, and something is still waited for"
    else:
        yield f"{type(error).__name__}: {error}"


def _empty_folder() -> None:
    folder = Path(os.environ.get(TEST_DIR, ""))
    if not folder.name.startswith(_PREFIX):  # somebody else's variable of that name: not ours to empty
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def _captured(lines: list[str]) -> Iterator[None]:
    """Logs go nowhere; exceptions go to `lines`."""
    capture = LogCapture()
    processors: list[Any] = structlog.get_config()["processors"]  # in place: loggers hold on to the list
    before = processors[:]
    processors[:] = [structlog.processors.format_exc_info, capture]
    try:
        yield
    finally:
        processors[:] = before
    lines += [_line(entry) for entry in capture.entries if "exception" in entry][:MAX_LOGGED]


def _line(entry: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in entry.items() if key not in ("event", "log_level", "exception", "exc_info")}
    said = " ".join([str(entry.get("event", "")), *(f"{key}={value}" for key, value in rest.items())])
    return f"{said}\n{entry['exception']}"
