"""The machine of the circuit breaker: its table, its times, and a naive model that it must agree with."""

from __future__ import annotations

import random

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway.middlewares.breaker import BUCKETS, SOON_S, Breaker, Circuit, Pass, Rules

RULES = Rules(
    failures=5,
    failure_rate=0.0,
    min_calls=20,
    window_s=10.0,
    open_for_s=30.0,
    open_for_max_s=300.0,
    jitter=0.0,
    probes=3,
    successes=2,
    probe_timeout_s=30.0,
)


def _breaker(seen: list[tuple[str, str, float]] | None = None, **changes: float) -> Breaker:
    def watch(state: Circuit, why: str, seconds: float) -> None:
        if seen is not None:
            seen.append((state.value, why, seconds))

    return Breaker(evolve(RULES, **changes), random.Random(0), watch)


def _pass(breaker: Breaker, now: float) -> Pass:
    leave = breaker.enter(now)
    assert leave is not None
    return leave


def _fail(breaker: Breaker, now: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.failed(_pass(breaker, now), now)


def _succeed(breaker: Breaker, now: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.succeeded(_pass(breaker, now), now)


def test_the_fifth_failure_in_a_row_opens_it() -> None:
    """The fourth does not, and a success in between starts the count anew."""
    seen: list[tuple[str, str, float]] = []
    breaker = _breaker(seen)

    _fail(breaker, 0.0, 4)
    _succeed(breaker, 0.0)
    _fail(breaker, 1.0, 4)
    assert breaker.look(1.0) is Circuit.CLOSED
    _fail(breaker, 1.0)

    assert (breaker.look(1.0), breaker.enter(1.0)) == (Circuit.OPEN, None)
    assert seen == [("open", "5 failures in a row", 30.0)]


def test_it_is_half_open_exactly_when_its_time_is_over() -> None:
    """Refused at 29 s, probed at 30 s; nobody has to ask in between."""
    breaker = _breaker()
    _fail(breaker, 100.0, 5)

    assert (breaker.enter(129.0), breaker.retry_after_s(129.0)) == (None, 1.0)
    assert breaker.look(129.999) is Circuit.OPEN
    assert breaker.look(130.0) is Circuit.HALF_OPEN


def test_only_so_many_probes_are_inside_at_once() -> None:
    """The fourth is refused with a hint; a place that is given back is free again."""
    breaker = _breaker()
    _fail(breaker, 0.0, 5)

    probes = [breaker.enter(30.0) for _ in range(4)]

    assert [probe is not None for probe in probes] == [True, True, True, False]
    assert breaker.retry_after_s(30.0) == SOON_S
    assert probes[0] is not None
    breaker.dropped(probes[0])
    assert breaker.enter(30.0) is not None
    assert breaker.enter(30.0) is None


def test_the_second_successful_probe_closes_it() -> None:
    """The first does not; then the next failure counts from one."""
    seen: list[tuple[str, str, float]] = []
    breaker = _breaker(seen)
    _fail(breaker, 0.0, 5)

    _succeed(breaker, 30.0)
    assert breaker.look(30.0) is Circuit.HALF_OPEN
    _succeed(breaker, 31.0)
    assert breaker.look(31.0) is Circuit.CLOSED
    _fail(breaker, 31.0)

    assert breaker.consecutive == 1
    assert [state for state, _, _ in seen] == ["open", "half_open", "closed"]
    assert seen[-1][1] == "recovered"


def test_one_failed_probe_opens_it_again_and_for_longer_each_time() -> None:
    """30 s, 60 s, 90 s ... up to the longest time; after it has closed, 30 s again."""
    seen: list[tuple[str, str, float]] = []
    breaker, now = _breaker(seen), 0.0
    _fail(breaker, now, 5)
    for _ in range(11):
        now = breaker.until
        _fail(breaker, now)

    lengths = [seconds for state, _, seconds in seen if state == "open"]
    assert lengths == [30.0 * n for n in range(1, 11)] + [300.0, 300.0]
    _succeed(breaker, breaker.until, 2)
    _fail(breaker, 10_000.0, 5)
    assert seen[-1] == ("open", "5 failures in a row", 30.0)


def test_a_share_of_failures_opens_it_too() -> None:
    """Half of at least twenty calls in ten seconds, never five in a row."""
    seen: list[tuple[str, str, float]] = []
    breaker = _breaker(seen, failure_rate=0.5)
    for n in range(9):
        _succeed(breaker, n / 10)
        _fail(breaker, n / 10)
    _succeed(breaker, 1.0)
    assert breaker.look(1.0) is Circuit.CLOSED
    _fail(breaker, 1.0)

    assert seen == [("open", "10 of 20 calls failed", 30.0)]


def test_calls_outside_the_window_do_not_count() -> None:
    """Old failures are forgotten bucket by bucket."""
    breaker = _breaker(failure_rate=0.5, failures=100)
    _fail(breaker, 0.0, 15)

    _fail(breaker, 10.5, 5)
    assert breaker.look(10.5) is Circuit.CLOSED
    _fail(breaker, 11.0, 14)
    assert breaker.look(11.0) is Circuit.CLOSED
    _fail(breaker, 11.0)
    assert breaker.look(11.0) is Circuit.OPEN


def test_what_comes_back_late_changes_nothing() -> None:
    """A call from before it opened, and a probe from before it opened again, are ignored."""
    breaker = _breaker()
    early = _pass(breaker, 0.0)
    _fail(breaker, 0.0, 5)
    breaker.succeeded(early, 1.0)
    breaker.failed(early, 1.0)
    assert (breaker.look(1.0), breaker.until) == (Circuit.OPEN, 30.0)

    one, other = _pass(breaker, 30.0), _pass(breaker, 30.0)
    breaker.failed(one, 30.0)
    breaker.succeeded(other, 31.0)
    breaker.dropped(other)

    assert (breaker.look(31.0), breaker.until) == (Circuit.OPEN, 90.0)


def test_a_probe_that_hangs_gives_its_place_away() -> None:
    """Its answer no longer counts; otherwise one hanging call would keep an upstream out for ever."""
    breaker = _breaker(probes=1, successes=1, probe_timeout_s=5.0)
    _fail(breaker, 0.0, 5)
    hanging = _pass(breaker, 30.0)

    assert breaker.enter(34.9) is None
    second = _pass(breaker, 35.0)
    breaker.failed(hanging, 36.0)
    assert breaker.look(36.0) is Circuit.HALF_OPEN
    breaker.succeeded(second, 36.0)
    assert breaker.look(36.0) is Circuit.CLOSED


def test_jitter_makes_it_longer_never_shorter() -> None:
    """Up to the given share."""
    lengths = []
    for seed in range(200):
        breaker = Breaker(evolve(RULES, jitter=0.1), random.Random(seed))
        _fail(breaker, 0.0, 5)
        lengths.append(breaker.until)

    assert 30.0 <= min(lengths) < 30.3
    assert 32.7 < max(lengths) <= 33.0


def test_what_an_operator_says_holds() -> None:
    """Forced open it stays open, whatever the time; closed by hand it has forgotten everything."""
    breaker = _breaker()
    _fail(breaker, 0.0, 4)
    breaker.force(Circuit.OPEN, 0.0)

    assert (breaker.enter(1e6), breaker.retry_after_s(1e6), breaker.forced) == (None, None, True)
    breaker.force(Circuit.CLOSED, 1e6)
    assert (breaker.look(1e6), breaker.consecutive, breaker.forced) == (Circuit.CLOSED, 0, False)


class Model:
    """The same machine, written as naively as possible: every event kept, everything recomputed."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.state = "closed"
        self.term = 0
        self.until = 0.0
        self.opened = 0
        self.events: list[tuple[float, bool]] = []
        self.row = 0
        self.probes: dict[int, float] = {}
        self.good = 0

    def _go(self, state: str) -> None:
        self.state, self.term, self.probes, self.good = state, self.term + 1, {}, 0
        if state == "closed":
            self.events, self.row, self.opened = [], 0, 0

    def _trip(self, now: float) -> None:
        self.opened += 1
        self.until = now + min(self.rules.open_for_s * self.opened, self.rules.open_for_max_s)
        self._go("open")

    def enter(self, now: float, number: int) -> bool:
        if self.state == "open" and now >= self.until:
            self._go("half_open")
        if self.state == "closed":
            return True
        if self.state == "open":
            return False
        if len(self.probes) >= self.rules.probes:
            oldest = min(self.probes, key=lambda n: (self.probes[n], n))
            if now - self.probes[oldest] < self.rules.probe_timeout_s:
                return False
            del self.probes[oldest]
        self.probes[number] = now
        return True

    def leave(self, term: int, number: int, outcome: str, now: float) -> None:
        if term != self.term:
            return
        if self.state == "half_open":
            if self.probes.pop(number, None) is None:
                return
            if outcome == "bad":
                self._trip(now)
            elif outcome == "good":
                self.good += 1
                if self.good >= self.rules.successes:
                    self._go("closed")
        elif outcome != "dropped":
            self.events.append((now, outcome == "bad"))
            self.row = self.row + 1 if outcome == "bad" else 0
            step = self.rules.window_s / BUCKETS
            recent = [bad for at, bad in self.events if int(at / step) > int(now / step) - BUCKETS]
            share = self.rules.failure_rate
            crowded = share and len(recent) >= self.rules.min_calls and sum(recent) >= share * len(recent)
            if outcome == "bad" and (self.row >= self.rules.failures or crowded):
                self._trip(now)


@settings(max_examples=300, deadline=None)
@given(
    rules=st.builds(
        lambda failures, rate, calls, probes, successes: evolve(
            RULES,
            failures=failures,
            failure_rate=rate,
            min_calls=calls,
            probes=probes,
            successes=min(successes, probes),
            window_s=8.0,
            open_for_s=4.0,
            open_for_max_s=10.0,
            probe_timeout_s=3.0,
        ),
        st.integers(1, 6),
        st.sampled_from([0.0, 0.25, 0.5, 1.0]),
        st.integers(1, 10),
        st.integers(1, 3),
        st.integers(1, 3),
    ),
    steps=st.lists(
        st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0, 5.0]), st.sampled_from(["enter", "good", "bad", "dropped"])),
        max_size=120,
    ),
    choice=st.randoms(use_true_random=False),
)
def test_it_agrees_with_a_naive_model(rules: Rules, steps: list[tuple[float, str]], choice: random.Random) -> None:
    """The same events, in any order, with calls that overlap and come back late, lead to the same states."""
    breaker, model, now = Breaker(rules, random.Random(0)), Model(rules), 0.0
    inside: list[tuple[Pass, int, int]] = []
    number = 0
    for pause, step in steps:
        now += pause
        if step == "enter" or not inside:
            number += 1
            leave = breaker.enter(now)
            assert (leave is not None) == model.enter(now, number)
            if leave is not None:
                inside.append((leave, model.term, number))
        else:
            leave, term, its = inside.pop(choice.randrange(len(inside)))
            if step == "dropped":
                breaker.dropped(leave)
            else:
                (breaker.succeeded if step == "good" else breaker.failed)(leave, now)
            model.leave(term, its, step, now)
        assert (breaker.state.value, breaker.term) == (model.state, model.term)


@given(
    now=st.floats(0, 1e6),
    failed=st.integers(1, 40),
    jitter=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_an_open_breaker_recovers(now: float, failed: int, jitter: float) -> None:
    """Law: however often it opened, after the longest time it lets a probe in, and good probes close it."""
    breaker = _breaker(jitter=jitter)
    _fail(breaker, now, 5)
    for _ in range(failed):
        now += 2 * RULES.open_for_max_s + 1
        _fail(breaker, now)
    now += 2 * RULES.open_for_max_s + 1

    _succeed(breaker, now, 2)

    assert breaker.look(now) is Circuit.CLOSED


@pytest.mark.parametrize("state", [Circuit.OPEN, Circuit.CLOSED])
def test_a_term_ends_what_was_inside(state: Circuit) -> None:
    """What an operator says makes earlier passes void."""
    breaker = _breaker(failures=1)
    leave = _pass(breaker, 0.0)
    breaker.force(state, 0.0)

    breaker.failed(leave, 0.0)

    assert breaker.look(0.0) is state


def test_what_was_counted_before_it_opened_is_forgotten_when_it_closes() -> None:
    """Neither the failures in the window, nor the probe that succeeded before another one failed."""
    breaker = _breaker(failure_rate=0.5, min_calls=4, window_s=1000.0, open_for_s=1.0)
    _fail(breaker, 0.0, 4)
    _succeed(breaker, 1.0)
    _fail(breaker, 1.0)
    _succeed(breaker, 3.0)
    assert breaker.look(3.0) is Circuit.HALF_OPEN
    _succeed(breaker, 3.0)
    _fail(breaker, 3.0, 3)

    assert breaker.look(3.0) is Circuit.CLOSED
