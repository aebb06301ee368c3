"""How each option of `dedup` shows; see `../test_no_inert_option.py`."""

_TEST = "middlewares/test_dedup.py::"

ROWS = {
    "dedup.max_flights": {"by": _TEST + "test_a_full_table_shares_no_more"},
    "dedup.max_keys": {"by": _TEST + "test_of_too_many_keys_the_oldest_is_forgotten"},
    "dedup.max_outcome": {"by": _TEST + "test_an_outcome_that_is_too_large_is_not_made_again"},
    "dedup.max_waiting": {"by": _TEST + "test_a_full_table_shares_no_more"},
    "dedup.outcome_ttl": {"by": _TEST + "test_the_outcome_of_a_key_is_given_again"},
    "dedup.repeat": {"one": (), "other": ("echo",)},
    "dedup.store": {"by": _TEST + "test_a_crash_leaves_an_outcome_that_nobody_knows"},
    "dedup.trust_hints": {"by": _TEST + "test_trusted_hints_let_tools_share", "word": "trust"},
}
