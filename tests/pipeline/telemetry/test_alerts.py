"""Rules over figures: when an alert fires, and when it clears."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.config.problems import ConfigError
from sluiceway.pipeline.model.alerts import RECOMMENDED, AlertRule, Alerts
from sluiceway.pipeline.model.figures import Distribution, Figure
from sluiceway.pipeline.model.options import Duration
from sluiceway.pipeline.telemetry.alerts import MAX_GROUPS, AlertBook, step


def rule(**given: Any) -> AlertRule:
    """A rule about a queue."""
    return AlertRule(**{"figure": "queue", "above": 5, **given})


def gauge(name: str, value: float, **labels: str) -> Figure:
    """A sample."""
    return Figure(name, value, "gauge", "A figure.", labels)


def book(**rules: AlertRule) -> AlertBook:
    """Rules, by name."""
    made = AlertBook()
    made.configure(rules)
    return made


def changes(alerts: AlertBook, now: float, *samples: Figure | Distribution) -> list[tuple[str, bool, Any]]:
    """What changed: rule, whether it fired, value."""
    return [(each.name, each.fired, each.value) for each in alerts.judge(samples, now)]


STEPS = [
    # rule, phase, since, value, now -> phase, since
    (rule(), "ok", 0, 5, 9, "ok", 0),
    (rule(), "ok", 0, 6, 9, "firing", 9),
    (rule(), "ok", 0, None, 9, "ok", 0),
    (rule(after=Duration(10)), "ok", 0, 6, 9, "pending", 9),
    (rule(after=Duration(10)), "pending", 9, 6, 18, "pending", 9),
    (rule(after=Duration(10)), "pending", 9, 6, 19, "firing", 19),
    (rule(after=Duration(10)), "pending", 9, 5, 18, "ok", 18),
    (rule(after=Duration(10)), "pending", 9, None, 18, "ok", 18),
    (rule(), "firing", 9, 6, 20, "firing", 9),
    (rule(), "firing", 9, 5, 20, "ok", 20),
    (rule(), "firing", 9, None, 20, "ok", 20),
    (rule(clear=2), "firing", 9, 5, 20, "firing", 9),
    (rule(clear=2), "firing", 9, 2, 20, "ok", 20),
    (rule(above=None, below=5), "ok", 0, 5, 9, "ok", 0),
    (rule(above=None, below=5), "ok", 0, 4.9, 9, "firing", 9),
    (rule(above=None, below=5), "firing", 9, 5, 20, "ok", 20),
    (rule(above=None, below=5, clear=8), "firing", 9, 7, 20, "firing", 9),
    (rule(above=None, below=5, clear=8), "firing", 9, 8, 20, "ok", 20),
]


@pytest.mark.parametrize(("of", "phase", "since", "value", "now", "then", "then_since"), STEPS)
def test_an_alert_goes_from_phase_to_phase(of, phase, since, value, now, then, then_since):
    """The whole machine."""
    assert step(of, phase, since, value, now) == (then, then_since)


SEEDS = [
    # name of the rule, figures at which nothing is wrong, figures at which it fires
    ("pending", {"pipeline_in_flight": 500, "pipeline_max_in_flight": 1000}, {"pipeline_in_flight": 501}),
    ("pending_critical", {"pipeline_in_flight": 900, "pipeline_max_in_flight": 1000}, {"pipeline_in_flight": 901}),
]


@pytest.mark.parametrize(("name", "right", "wrong"), SEEDS)
def test_the_recommended_thresholds_for_what_is_pending_fire_and_clear_at_their_figures(name, right, wrong):
    """Half and nine tenths of what may be in flight: of 1000, an alert fires at 501 and clears at 500."""
    alerts = book(**{name: RECOMMENDED[name]})
    at = [gauge(figure, value, pipeline="main") for figure, value in right.items()]
    over = [gauge(figure, value, pipeline="main") for figure, value in {**right, **wrong}.items()]

    seen = [[fired for _, fired, _ in changes(alerts, now, *samples)] for now, samples in enumerate((at, over, at))]

    assert seen == [[], [True], [False]]


ENDED = "pipeline_exchanges_total"


@pytest.mark.parametrize(
    ("name", "good", "bad", "threshold"),
    [
        ("success_rate", (ENDED, {"end": "served"}), (ENDED, {"end": "refused"}), 950),
        ("pool_reuse", ("pool_reused_total", {}), ("pool_opened_total", {}), 800),
    ],
)  # fmt: skip
def test_the_recommended_rates_fire_below_their_figure_and_not_at_it(name, good, bad, threshold):
    """A success rate of 0.949 fires and 0.95 does not; of a pool, 0.799 and 0.8. Both of the last five minutes."""

    def samples(right: int, wrong: int) -> list[Figure]:
        return [
            Figure(figure, count, "counter", "A count.", {"pipeline": "main", "component": "up", **labels})
            for (figure, labels), count in ((good, right), (bad, wrong))
        ]

    seen = []
    for right in (threshold, threshold - 1):
        alerts = book(**{name: RECOMMENDED[name]})
        changes(alerts, 0, *samples(0, 0))
        seen.append(changes(alerts, 60, *samples(right, 1000 - right)))
        later = changes(alerts, 400, *samples(right + 1000, 1000 - right))

    assert seen == [[], [(name, True, (threshold - 1) / 1000)]]
    assert later == [(name, False, 1.0)]


def test_a_failing_operation_is_one_alert_however_often_it_fails():
    """Each operation is one of its own; it clears when none failed for a minute."""
    alerts = book(failed=RECOMMENDED["operation_failed"])

    def errors(calls: int, lists: int) -> list[Figure]:
        return [
            Figure("mcp_errors_total", calls, "counter", "", {"method": "tools/call", "error": "tool_error"}),
            Figure("mcp_errors_total", lists, "counter", "", {"method": "tools/list", "error": "timeout"}),
        ]

    changes(alerts, 0)
    seen = [changes(alerts, 5 * n, *errors(n, 0)) for n in range(1, 7)]
    seen.append(changes(alerts, 35, *errors(6, 1)))
    labels = [row["labels"] for row in alerts.rows(35)]
    calm = [changes(alerts, now, *errors(6, 1)) for now in (89, 91, 97)]

    assert seen == [[("failed", True, 1.0)], [], [], [], [], [], [("failed", True, 1.0)]]
    assert labels == [{"method": "tools/call"}, {"method": "tools/list"}]
    assert calm == [[], [("failed", False, 0.0)], [("failed", False, 0.0)]]


def test_figures_are_named_as_metrics_show_them_or_without_what_all_have_in_common():
    """`sluiceway_` may be left out; a star is anything; what has other labels does not count."""
    given = [gauge("queue", 6, pipeline="main"), gauge("queue", 9, pipeline="side")]

    named = {text: changes(book(a=rule(figure=text)), 0, *given) for text in ("queue", "sluiceway_queue", "qu*", "que")}
    labelled = changes(book(a=rule(labels={"pipeline": "ma*"})), 0, *given, gauge("queue", 7))

    both = [("a", True, 6), ("a", True, 9)]
    assert named == {"queue": both, "sluiceway_queue": both, "qu*": both, "que": []}
    assert labelled == [("a", True, 6)]


def test_samples_of_a_group_are_added_up():
    """`by` names what tells groups apart."""
    given = [gauge("queue", 3, component="a", colour="red"), gauge("queue", 3, component="a", colour="blue")]

    assert changes(book(a=rule()), 0, *given) == [("a", True, 6)]
    assert changes(book(a=rule(by=("colour",), above=2)), 0, *given) == [("a", True, 3), ("a", True, 3)]
    assert changes(book(a=rule(by=())), 0, *given) == [("a", True, 6)]


def test_a_share_of_too_little_says_nothing():
    """One refusal of one is no success rate; and a filter keeps other groups out of the whole as well."""
    share = rule(
        figure="good",
        share_of=("good", "bad"),
        at_least=10,
        above=None,
        below=0.5,
        labels={"pipeline": "main", "a": "b"},
    )

    few = changes(book(a=share), 0, gauge("bad", 9, pipeline="main"))
    enough = changes(book(a=share), 0, gauge("bad", 10, pipeline="main"), gauge("bad", 10, pipeline="side"))

    assert few == []
    assert enough == [("a", True, 0.0)]


def test_what_counters_had_reached_before_anybody_looked_is_not_added():
    """But one that is new began at zero, and one that fell was renewed by a reload."""
    counting = rule(within=Duration(60), above=2)
    alerts = book(a=counting)

    assert changes(alerts, 0, gauge("queue", 100, component="old")) == []
    assert changes(alerts, 1, gauge("queue", 102, component="old"), gauge("queue", 3, component="new")) == [
        ("a", True, 3)
    ]
    assert changes(alerts, 2, gauge("queue", 1, component="old"), gauge("queue", 3, component="new")) == [
        ("a", True, 3)
    ]


def test_a_firing_alert_stays_until_clear():
    """A value that trembles around the threshold does not fire again and again."""
    alerts = book(a=rule(clear=2))

    seen = [changes(alerts, now, gauge("queue", value)) for now, value in enumerate((6, 5, 6, 3, 2, 5))]

    assert seen == [[("a", True, 6)], [], [], [], [("a", False, 2)], []]


def test_an_alert_whose_figures_are_gone_clears():
    """A reload took the component out."""
    alerts = book(a=rule())
    changes(alerts, 0, gauge("queue", 6))

    assert changes(alerts, 1) == [("a", False, None)]
    assert changes(alerts, 2) == []
    assert [each["groups"] for each in alerts.about()] == [0]


def test_histograms_are_no_figures():
    """They are passed over."""
    histogram = Distribution("queue", (1.0,), (9, 9), 9.0, "A histogram.")

    assert changes(book(a=rule()), 0, histogram) == []


def test_groups_are_bounded():
    """Whatever labels components make up."""
    alerts = book(a=rule())
    fired = changes(alerts, 0, *[gauge("queue", 6, component=str(n)) for n in range(MAX_GROUPS + 50)])

    assert len(fired) == MAX_GROUPS


def test_rows_figures_and_rules_tell_what_fires():
    """Firing alerts first; what is fine has no row."""
    alerts = book(slow=rule(after=Duration(60)), now=rule(severity="critical", summary="a queue is long"))
    alerts.judge((gauge("queue", 6, component="a"), gauge("queue", 1, component="b")), 10)

    assert alerts.rows(12.5) == [
        {
            "rule": "now", "state": "firing", "severity": "critical", "labels": {"component": "a"}, "value": 6,
            "condition": "above 5", "for_s": 2.5, "summary": "a queue is long",
        },
        {
            "rule": "slow", "state": "pending", "severity": "warning", "labels": {"component": "a"}, "value": 6,
            "condition": "above 5", "for_s": 2.5, "summary": "",
        },
    ]  # fmt: skip
    assert {(each.name, each.labels["rule"]): each.value for each in alerts.figures()} == {
        ("alerts", "slow"): 0, ("alerts_fired_total", "slow"): 0,
        ("alerts", "now"): 1, ("alerts_fired_total", "now"): 1,
    }  # fmt: skip
    assert [(each["rule"], each["groups"], each["firing"]) for each in alerts.about()] == [
        ("slow", 2, 0),
        ("now", 2, 1),
    ]


def test_what_is_known_of_a_rule_that_stays_stays():
    """A reload neither fires nor clears it; a rule that changed begins anew."""
    alerts = book(same=rule(), other=rule())
    alerts.judge((gauge("queue", 6),), 0)
    alerts.configure({"same": rule(), "other": rule(above=4)})

    assert changes(alerts, 1, gauge("queue", 6)) == [("other", True, 6)]


def _loaded(**alerts: Any) -> Alerts:
    data = {
        "version": 1,
        "pipelines": {"main": {"sink": "up"}},
        "sinks": {"up": {"embedded": {}}},
        "run": {"alerts": alerts},
    }
    found = from_data(data).run.alerts
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"figure": "a"}, "above, below: a rule has one of them"),
        ({"figure": "a", "above": 1, "below": 2}, "above, below: a rule has one of them"),
        ({"figure": "a", "above": 1, "clear": 2}, "clear: at 2 the alert fires"),
        ({"figure": "a", "below": "50%", "clear": "20%"}, "clear: at 0.2 the alert fires"),
        ({"figure": "sluiceway_", "above": 1}, "figure: must not be empty"),
        ({"figure": "a", "above": 1, "within": "25h"}, "must be at most"),
    ],
)
def test_a_rule_that_makes_no_sense_is_found_at_load(given, text):
    """With what is wrong about it."""
    with pytest.raises(ConfigError, match=re.escape(text)):
        _loaded(rules={"one": given})


def test_thresholds_are_numbers_or_shares():
    """`90%` is 0.9; rules of one's own take the place of those of the preset."""
    alerts = _loaded(rules={"pending": {"figure": "a", "above": "90%"}, "own": {"figure": "b", "below": 3}})

    assert (alerts.all()["pending"].above, alerts.all()["own"].below) == (0.9, 3)
    assert set(alerts.all()) == {*RECOMMENDED, "own"}
    assert set(Alerts(preset="none", rules={"own": rule()}).all()) == {"own"}
