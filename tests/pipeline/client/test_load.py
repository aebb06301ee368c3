"""Tests for loads with bounds."""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from sluiceway.pipeline.client.load import MAX_AT_ONCE, MAX_COUNT, Pace, parse_pace, run_load


@pytest.mark.parametrize(("text", "pace"), [("100/1ms", Pace(100, 0.001)), ("1/2s", Pace(1, 2.0))])
def test_a_pace_is_calls_and_a_time(text, pace):
    """In the units of all durations."""
    assert pace == parse_pace(text)


@pytest.mark.parametrize("text", ["100", "/1ms", "0/1ms", "x/1ms", "-1/1s", "5/0s", "5/soon"])
def test_what_is_no_pace_is_named(text):
    """With how one is written, or what is wrong with the time."""
    with pytest.raises(ValueError, match=r"pace|above 0|duration|soon"):
        parse_pace(text)


async def test_calls_begin_at_their_pace_whether_others_have_ended_or_not(autojump_clock):
    """Two each second, though one takes three seconds: an open loop."""
    begun = []

    async def call():
        begun.append(trio.current_time())
        await trio.sleep(3)
        return "ok"

    report = await run_load(call, 6, 100, Pace(2, 1.0))

    assert [0, 0, 1, 1, 2, 2] == begun
    assert 5.0 == report.seconds
    assert Counter(ok=6) == report.outcomes
    assert 6 / 5 == report.per_second


async def test_never_more_are_under_way_than_may_be(autojump_clock):
    """What finds no place waits for one; the report knows how long each took, and how it ended."""
    under_way, most, left = 0, 0, iter(["ok", "error 42900"] * 10)

    async def call():
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await trio.sleep(1)
        under_way -= 1
        return next(left)

    report = await run_load(call, 20, 3)

    assert 3 == most
    assert 7.0 == report.seconds
    assert {"ok": 10, "error 42900": 10} == dict(report.outcomes)
    assert [1.0] * 20 == report.took_s
    assert 1.0 == report.percentile(0.99) == report.percentile(1.0)


@pytest.mark.parametrize(("count", "at_once"), [(0, 1), (MAX_COUNT + 1, 1), (1, 0), (1, MAX_AT_ONCE + 1)])
async def test_a_load_has_bounds(count, at_once):
    """Both ways."""

    async def call():
        return "ok"

    with pytest.raises(ValueError, match="not"):
        await run_load(call, count, at_once)
