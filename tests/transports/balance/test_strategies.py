"""Who gets a request: distribution, weights, slow start, stickiness."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.transports.balance.member import Member, Vitals
from sluiceway.transports.balance.ring import Ring
from sluiceway.transports.balance.strategies import PLAIN, ConsistentHash, fewest_listeners


async def _nowhere(_exchange):
    raise AssertionError("strategies send nothing")


def members(*weights: int, slow_start_s: float = 0.0) -> tuple[Member, ...]:
    """Upstreams of some weights."""
    return tuple(
        Member(f"u{index}", index, _nowhere, weight, Vitals(), slow_start_s) for index, weight in enumerate(weights)
    )


def picks(strategy, upstreams, times: int, now: float = 0.0) -> Counter[str]:
    """How often each is chosen."""
    return Counter(strategy.choose(upstreams, None, now).id for _ in range(times))


@pytest.mark.parametrize("name", sorted(PLAIN))
@given(count=st.integers(1, 12), loads=st.lists(st.integers(0, 5), min_size=12, max_size=12), seed=st.integers())
def test_whoever_is_chosen_was_offered(name, count, loads, seed):
    """Whatever the load, and although every one is still starting slowly."""
    upstreams = members(*[1 + index % 3 for index in range(count)], slow_start_s=30.0)
    for member, load in zip(upstreams, loads, strict=False):
        member.vitals.in_flight = load
        member.vitals.warm_since = 0.0

    assert PLAIN[name](random.Random(seed)).choose(upstreams, None, 1.0) in upstreams


def test_round_robin_takes_turns():
    """Everybody once before anybody twice."""
    assert picks(PLAIN["round_robin"](random.Random(1)), members(1, 1, 1), 9) == {"u0": 3, "u1": 3, "u2": 3}


def test_random_is_even():
    """Within 5 % of the mean over 10,000."""
    counts = picks(PLAIN["random"](random.Random(1)), members(1, 1, 1, 1), 10_000)

    assert all(abs(count - 2500) < 125 for count in counts.values())


def test_weights_are_kept():
    """3 to 1 is 75 % within 3 over 10,000; a weight of 0 is never offered, and would not be drawn."""
    counts = picks(PLAIN["weighted"](random.Random(1)), members(3, 1, 0), 10_000)

    assert 7200 < counts["u0"] < 7800
    assert counts["u2"] == 0


def test_the_least_loaded_for_its_weight_is_chosen():
    """Three requests for a weight of 4 are less than one for a weight of 1."""
    upstreams = members(4, 1)
    upstreams[0].vitals.in_flight, upstreams[1].vitals.in_flight = 3, 1

    assert PLAIN["least_loaded"](random.Random(1)).choose(upstreams, None, 0.0) is upstreams[0]


def test_equals_are_chosen_alike_by_load():
    """Nobody gets all only because it stands first."""
    assert set(picks(PLAIN["least_loaded"](random.Random(1)), members(1, 1, 1), 100)) == {"u0", "u1", "u2"}


def maximum_load(name: str, upstreams: int, requests: int) -> int:
    """Requests at the busiest one when none of them ends."""
    group = members(*[1] * upstreams)
    for member in group:
        member.vitals.latency.observe(0.01, 0.0)
    strategy = PLAIN[name](random.Random(5))
    for _ in range(requests):
        strategy.choose(group, None, 0.0).vitals.in_flight += 1
    return max(member.load for member in group)


def test_two_choices_are_far_better_than_one():
    """100 upstreams with 100 requests each: random goes 20 over or more, two choices at most 4."""
    assert maximum_load("random", 100, 10_000) >= 120
    assert maximum_load("p2c", 100, 10_000) <= 104


def test_two_choices_draw_two_different_ones():
    """Of two, the cheaper is always found."""
    upstreams = members(1, 1)
    upstreams[0].vitals.in_flight = 1

    assert picks(PLAIN["p2c"](random.Random(1)), upstreams, 200) == {"u1": 200}


def test_a_slow_upstream_gets_less():
    """Ten times the latency, so as long as loads are equal it is never the cheaper one."""
    upstreams = members(1, 1, 1)
    for member, seconds in zip(upstreams, (0.01, 0.01, 0.1), strict=True):
        member.vitals.latency.observe(seconds, 0.0)

    assert picks(PLAIN["p2c"](random.Random(1)), upstreams, 300)["u2"] == 0


def test_an_unproven_upstream_gets_one_request_at_a_time():
    """The first at once, before all that are known; a second one only when the first is answered."""
    upstreams = members(1, 1)
    upstreams[0].vitals.latency.observe(0.01, 0.0)
    strategy = PLAIN["p2c"](random.Random(1))

    first = strategy.choose(upstreams, None, 0.0)
    first.vitals.in_flight += 1
    assert first is upstreams[1]
    assert picks(strategy, upstreams, 50) == {"u0": 50}


@pytest.mark.parametrize("name", ["round_robin", "random", "weighted", "p2c", "least_loaded"])
def test_a_slow_start_ramps(name):
    """The part of one that is back rises with time, and is fair at the end."""
    parts = []
    for now in (3.0, 15.0, 30.0):
        upstreams = members(1, 1, slow_start_s=30.0)
        upstreams[0].vitals.warm_since = 0.0
        for member in upstreams:
            member.vitals.latency.observe(0.01, now)
        strategy = PLAIN[name](random.Random(3))
        counts: Counter[str] = Counter()
        for _ in range(1000):
            chosen = strategy.choose(upstreams, None, now)
            counts[chosen.id] += 1
            chosen.vitals.in_flight += 1  # nothing ends: loads settle as the shares say
        parts.append(counts["u0"])

    assert parts[0] < 200 < parts[1] < 450 < parts[2] < 550


def test_streams_go_to_whom_has_the_fewest():
    """For its weight; requests do not count."""
    upstreams = members(1, 2)
    upstreams[0].vitals.listeners, upstreams[1].vitals.listeners = 2, 3
    upstreams[1].vitals.in_flight = 99

    assert fewest_listeners(upstreams, 0.0) is upstreams[1]


def hashed(upstreams, *, bounded_load: float | None = None, total=lambda: 0) -> ConsistentHash:
    """The strategy over a ring of all of them."""
    ring = Ring({member.id: member.weight for member in upstreams}, 150)
    return ConsistentHash(random.Random(1), ring, bounded_load, total)


def test_only_the_keys_of_a_removed_upstream_move():
    """1 of 10: about 10 % of the keys, and no other one."""
    upstreams = members(*[1] * 10)
    strategy = hashed(upstreams)
    keys = [f"key {number}".encode() for number in range(10_000)]
    before = {key: strategy.choose(upstreams, key, 0.0) for key in keys}
    left = upstreams[:4] + upstreams[5:]
    moved = [key for key in keys if strategy.choose(left, key, 0.0) is not before[key]]

    assert 850 <= len(moved) <= 1150
    assert {before[key] for key in moved} == {upstreams[4]}
    assert all(strategy.choose(upstreams, key, 0.0) is before[key] for key in keys)


def test_a_request_without_a_key_goes_elsewhere_by_cost():
    """As with two choices."""
    upstreams = members(1, 1)
    upstreams[0].vitals.in_flight = 1

    assert hashed(upstreams).choose(upstreams, None, 0.0) is upstreams[1]


@given(factor=st.sampled_from([1.1, 1.25, 2.0]), keys=st.lists(st.binary(max_size=2), min_size=1, max_size=300))
def test_the_bound_of_the_load_holds(factor, keys):
    """However many requests have the same key, nobody has more than the factor times its share, rounded up."""
    upstreams = members(1, 2, 1)
    strategy = hashed(upstreams, bounded_load=factor, total=lambda: sum(each.load for each in upstreams))
    for done, key in enumerate(keys):
        chosen = strategy.choose(upstreams, key, 0.0)
        chosen.vitals.in_flight += 1
        assert chosen.load < factor * (done + 1) * chosen.weight / 4 + 1


def test_without_a_bound_one_key_has_one_upstream():
    """However many."""
    upstreams = members(1, 1, 1)
    strategy = hashed(upstreams)

    assert len({strategy.choose(upstreams, b"same", 0.0).id for _ in range(100)}) == 1
