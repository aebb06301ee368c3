"""The ring against a naive model, and its figures."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from sluiceway.transports.balance.ring import Ring

IDS = st.sets(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=6)


@given(ids=IDS, away=IDS, key=st.binary(max_size=8))
def test_the_owner_is_the_first_point_that_may_be_used(ids, away, key):
    """As if all points were looked at, one by one."""
    ring = Ring(dict.fromkeys(ids, 1), 5)
    left = ids - away
    place = xxh3_64_intdigest(key)
    points = sorted((xxh3_64_intdigest(f"{node}:{n}".encode()), node) for node in ids for n in range(5))
    ahead = [node for point, node in points if point >= place] + [node for point, node in points if point < place]
    expected = next((node for node in ahead if node in left), None)

    assert next((node for node in ring.walk(key) if node in left), None) == expected
    assert len(list(ring.walk(key))) == len(ring)


@given(ids=IDS, more=st.text("xyz", min_size=1, max_size=3), key=st.binary(max_size=8))
def test_one_more_takes_keys_only_for_itself(ids, more, key):
    """Nobody else's keys move when one is added."""
    before = next(Ring(dict.fromkeys(ids, 1), 20).walk(key))

    assert next(Ring(dict.fromkeys([*ids, more], 1), 20).walk(key)) in (before, more)


def test_the_points_are_known():
    """xxh3 of `id:number`, in every process and every version."""
    assert xxh3_64_intdigest(b"a:0") == 11910262147921215742
    assert next(Ring({"a": 1, "b": 1}, 2).walk(b"a:0")) == "a"


def test_ten_upstreams_have_about_the_same():
    """Within 15 % of the mean."""
    ring = Ring({f"search_{number}": 1 for number in range(10)}, 500)
    counts = Counter(next(ring.walk(f"caller {number}".encode())) for number in range(20_000))

    assert all(abs(count - 2000) <= 300 for count in counts.values())


def test_twice_the_weight_is_twice_the_points():
    """And a weight of 0 none."""
    ring = Ring({"a": 2, "b": 1, "c": 0}, 10)

    assert Counter(ring.walk(b"")) == {"a": 20, "b": 10}
