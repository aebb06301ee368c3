"""How each option of `retry` shows; see `../test_no_inert_option.py`."""


def _by(test: str, word: str = "") -> dict[str, str]:
    return {"by": f"middlewares/test_retry.py::test_{test}", "word": word}


ROWS = {
    "retry.preset": _by("the_presets_are_the_series_they_are_named_after"),
    "retry.max_attempts": _by("each_option_of_the_series_changes_what_it_says"),
    "retry.base_delay": _by("each_option_of_the_series_changes_what_it_says"),
    "retry.multiplier": _by("each_option_of_the_series_changes_what_it_says"),
    "retry.max_delay": _by("a_wish_to_be_asked_later_is_honoured"),
    "retry.jitter": _by("each_option_of_the_series_changes_what_it_says"),
    "retry.on": _by("only_failures_in_on_and_codes_are_repeated"),
    "retry.codes": _by("only_failures_in_on_and_codes_are_repeated"),
    "retry.classifier": _by("a_classifier_says_what_is_worth_another_try"),
    "retry.repeat": _by("tools_that_are_listed_are_repeated"),
    "retry.trust_hints": _by("hints_are_believed_only_of_a_trusted_upstream"),
    "retry.budget": _by("failover_after_an_unsent_failure_costs_no_budget"),
    "retry.reserve": _by("failover_after_an_unsent_failure_costs_no_budget"),
    "retry.least_time": _by("an_attempt_that_could_not_end_in_time_is_not_begun"),
    "retry.failover": _by("failover_goes_to_the_next_sink_at_once"),
}

VARIANTS = (
    {"config": {"preset": "seed-2025", "repeat": ["*"], "trust_hints": True, "reserve": "1000/s"}},
    {"config": {"max_attempts": 1, "on": []}},
)
