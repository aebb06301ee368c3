"""Histograms, and one snapshot of several workers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.model.figures import Distribution, Exemplar, Figure
from sluiceway.pipeline.telemetry.metrics import Histogram, derived, labelled, merge


def test_an_observation_falls_into_the_first_bucket_that_holds_it():
    """Bounds are included; what is above all has a bucket of its own."""
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 1.5):
        histogram.observe(value)

    assert histogram.counts == [2, 1, 1]
    assert histogram.total == 2.15


def test_the_latest_traced_observation_of_a_bucket_is_its_exemplar():
    """With the time it was made at, on the wall clock."""
    histogram = Histogram((1.0,))
    histogram.observe(0.1, "a", 10.0)
    histogram.observe(0.2, "b", 20.0)
    histogram.observe(0.3)
    histogram.observe(5.0, "c", 30.0)

    assert histogram.sample("x", "t", {}, 1000.0).exemplars == {
        0: Exemplar("b", 0.2, 1020.0),
        1: Exemplar("c", 5.0, 1030.0),
    }


def _figure(value: float, name: str = "x_total", **rest: object) -> Figure:
    options: dict = {"kind": "counter", "help": "h", **rest}
    return Figure(name, value, **options)


def _distribution(*counts: int, total: float = 0.0, **rest: object) -> Distribution:
    options: dict = {"help": "h", **rest}
    return Distribution("d", (1.0, 2.0), counts, total, **options)


def test_workers_are_added_up():
    """Counters and histograms by labels; gauges as they say."""
    one = (
        _figure(1, labels={"a": "1"}),
        _figure(5, "g", kind="gauge"),
        _figure(5, "low", kind="gauge", across="min"),
        _figure(5, "high", kind="gauge", across="max"),
        _distribution(1, 0, 2, total=3.0, exemplars={0: Exemplar("old", 1, 1.0), 2: Exemplar("new", 3, 9.0)}),
    )
    other = (
        _figure(2, labels={"a": "1"}),
        _figure(4, labels={"a": "2"}),
        _figure(7, "g", kind="gauge"),
        _figure(7, "low", kind="gauge", across="min"),
        _figure(7, "high", kind="gauge", across="max"),
        _distribution(0, 1, 1, total=2.5, exemplars={0: Exemplar("newer", 1, 2.0), 2: Exemplar("older", 3, 8.0)}),
    )

    merged = {(s.name, *s.labels.values()): s for s in merge([one, other])}

    assert {key: s.value for key, s in merged.items() if isinstance(s, Figure)} == {
        ("x_total", "1"): 3, ("x_total", "2"): 4, ("g",): 12, ("low",): 5, ("high",): 7,
    }  # fmt: skip
    histogram = merged[("d",)]
    assert isinstance(histogram, Distribution)
    assert (histogram.counts, histogram.total) == ((1, 1, 3), 5.5)
    assert [each.trace_id for each in histogram.exemplars.values()] == ["newer", "new"]


def test_what_does_not_fit_is_not_mixed():
    """Two versions of a configuration can run at the same time."""
    kinds = merge([(_figure(1, "n"),), (_figure(2, "n", kind="gauge"),)])
    buckets = merge([(_distribution(1, 1, 1),), (Distribution("d", (9.0,), (1, 1), 1, "h"),)])

    assert kinds == (_figure(1, "n"),)
    assert buckets == (_distribution(1, 1, 1),)


_snapshots = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 100), max_size=3).map(
        lambda counts: tuple(_figure(value, labels={"l": label}) for label, value in counts.items())
    ),
    max_size=4,
)


@given(_snapshots, _snapshots)
def test_it_does_not_matter_how_workers_are_grouped(some, others):
    """Merging merged snapshots is merging all of them."""
    at_once = {frozenset(s.labels.items()): s for s in merge([*some, *others])}
    in_steps = {frozenset(s.labels.items()): s for s in merge([merge(some), merge(others)])}

    assert at_once == in_steps
    assert merge([]) == ()


def test_the_ratio_of_a_cache_is_that_of_all_its_workers():
    """It cannot be added up, so it is computed from what can; not before anything was looked up."""
    cache = {"component": "c"}
    workers = [
        (_figure(9, "cache_hits_total", labels=cache), _figure(1, "cache_misses_total", labels=cache)),
        (_figure(0, "cache_hits_total", labels=cache), _figure(10, "cache_misses_total", labels=cache)),
    ]
    idle = (_figure(0, "cache_hits_total", labels=cache), _figure(0, "cache_misses_total", labels=cache))
    other = (_figure(1, "cache_misses_total", labels={"component": "d"}),)

    values = {sample.name: sample for sample in derived(merge([*workers, other]))}

    assert isinstance(values["mcp_cache_hit_ratio"], Figure)
    assert values["mcp_cache_hit_ratio"].value == 0.45
    assert values["mcp_cache_hit_ratio"].labels == cache
    assert values["mcp_cache_hits_total"].labels == cache
    assert [sample.name for sample in derived(idle)][2:] == ["mcp_cache_hits_total", "mcp_cache_misses_total"]


def test_the_component_becomes_a_label():
    """Two caches are two series."""
    assert [dict(each.labels) for each in labelled("c", [_figure(1, labels={"a": "1"})])] == [
        {"component": "c", "a": "1"}
    ]
