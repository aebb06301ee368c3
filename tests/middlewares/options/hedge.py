"""How each option of `hedge` shows; see `../test_no_inert_option.py`."""


def _by(test: str, word: str = "") -> dict[str, str]:
    return {"by": f"middlewares/test_hedge.py::test_{test}", "word": word}


ROWS = {
    "hedge.after": _by("the_second_attempt_wins_and_the_first_is_cancelled"),
    "hedge.percentile": _by("the_delay_is_measured"),
    "hedge.min_samples": _by("the_delay_is_measured"),
    "hedge.window": _by("the_delay_is_measured"),
    "hedge.least": _by("the_delay_is_measured"),
    "hedge.max_attempts": _by("there_are_never_more_attempts_than_allowed"),
    "hedge.repeat": _by("only_what_may_be_sent_twice_is"),
    "hedge.trust_hints": _by("trusted_hints_allow_it_for_tools"),
    "hedge.budget": _by("second_attempts_cost_a_budget"),
    "hedge.reserve": _by("second_attempts_cost_a_budget"),
    "hedge.max_keys": _by("methods_and_targets_are_measured_apart_and_bounded"),
}

SENT = {"config": {"window": 8, "min_samples": 4}}
"""A window that a batch of the checker fills."""
VARIANTS = (
    {"config": {"after": "50ms", "window": 8, "min_samples": 4, "trust_hints": True, "max_keys": 2}},
    {"config": {"percentile": "50%", "min_samples": 2, "window": 4, "least": "1ms"}},
)
