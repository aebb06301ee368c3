"""References between components, circles of sinks, and what nobody uses."""

from __future__ import annotations

from collections.abc import Callable

from sluiceway.pipeline.config import Checked
from sluiceway.pipeline.config.references import sink_targets

TEXT = """
    version: 1
    sources:
      s: {{listen_toy: {{fallback: second}}, pipeline: main}}
    stores: {{kept: {{memory_toy: {{}}}}}}
    pipelines:
      main: {{chain: [cache_toy: {{store: kept}}], sink: a}}
      second: {{sink: b}}
    sinks:
      a: {{route_toy: {{to: [b], weights: {{c: 1}}}}}}
      b: {{echo_toy: {{}}, chain: {chain}}}
      c: {{echo_toy: {{}}}}
"""


def test_everything_that_is_named_is_used(check_it: Callable[..., Checked]) -> None:
    """By a list, by the keys of a mapping, by a text; stores by the name of the option."""
    checked = check_it(TEXT.format(chain="[]"))

    assert ["pipelines.second is not used by anything"] == [p.message for p in checked.problems] or not checked.problems
    assert {"a": ["b", "c"], "b": [], "c": []} == sink_targets(checked.require())


def test_a_broken_target_is_reported_once(check_it: Callable[..., Checked]) -> None:
    """Naming a sink whose own declaration is broken is no second mistake."""
    checked = check_it(TEXT.format(chain="7"))

    assert ["config/type"] == [problem.rule for problem in checked.problems]


def test_a_long_way_through_sinks_is_no_problem(check_it: Callable[..., Checked]) -> None:
    """Thousands of sinks in a row do not exhaust the stack; closing the row is found."""
    row = "".join(f"  s{n}: {{route_toy: {{to: [s{n + 1}]}}}}\n" for n in range(2000))
    head = "version: 1\nsources: {q: {quiet_toy: {}}}\npipelines: {main: {sink: s0}}\nsinks:\n"

    assert () == check_it(f"{head}{row}  s2000: {{echo_toy: {{}}}}\n").problems
    assert ["reference/cycle"] == [
        p.rule for p in check_it(f"{head}{row}  s2000: {{route_toy: {{to: [s0]}}}}\n").problems
    ]
