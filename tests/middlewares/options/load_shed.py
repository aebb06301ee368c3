"""How each option of `load_shed` shows; see `../test_no_inert_option.py`."""

from __future__ import annotations

TESTS = "middlewares/load_shed/test_stage.py::"
ADAPTIVE = f"{TESTS}test_slow_answers_lower_the_limit_and_fast_ones_raise_it"
WEIGHTS = f"{TESTS}test_a_turn_serves_as_many_as_its_weight_says"
PRIORITY = f"{TESTS}test_what_matters_more_is_served_first_and_shed_last"

ROWS = {
    "load_shed.max_in_flight": {"one": 1, "other": 2},
    "load_shed.max_waiting": {"one": 0, "other": 5, "given": {"max_in_flight": 1}},
    "load_shed.shed_above": {"one": 0.2, "other": 1.0, "given": {"max_in_flight": 1, "max_waiting": 5}},
    "load_shed.wait_at_most": {"one": 1.0, "other": 2.0, "given": {"max_in_flight": 1}},
    "load_shed.per": {"by": f"{TESTS}test_a_flood_of_one_delays_another_by_one"},
    "load_shed.weights": {"by": WEIGHTS},
    "load_shed.weights.when": {"by": WEIGHTS},
    "load_shed.weights.weight": {"by": WEIGHTS},
    "load_shed.priorities": {"by": PRIORITY, "word": "vital"},
    "load_shed.priorities.when": {"by": PRIORITY, "word": "vital"},
    "load_shed.priorities.priority": {"by": PRIORITY, "word": "vital"},
    "load_shed.adaptive": {"by": ADAPTIVE},
    "load_shed.adaptive.target": {"by": ADAPTIVE},
    "load_shed.adaptive.min_in_flight": {"by": ADAPTIVE},
    "load_shed.adaptive.backoff": {"by": ADAPTIVE},
    "load_shed.max_memory": {"by": f"{TESTS}test_short_memory_refuses_low_priority_first_and_then_all"},
    "load_shed.retry_after": {"one": 1.0, "other": 2.0, "given": {"max_in_flight": 1, "max_waiting": 0}},
}
