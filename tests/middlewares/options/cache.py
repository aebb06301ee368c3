"""How each option of `cache` shows; see `../test_no_inert_option.py`."""

_TEST = "middlewares/cache/test_stage.py::"
_TIERS = "middlewares/cache/test_tiers.py::"

ROWS = {
    "cache.max_bytes": {"by": _TIERS + "test_bytes_are_bounded"},
    "cache.max_entries": {"by": _TEST + "test_the_least_recently_used_answer_makes_room"},
    "cache.max_entry": {"by": _TEST + "test_what_is_too_large_is_not_kept"},
    "cache.max_idle": {"by": _TEST + "test_answers_that_nobody_asks_for_go"},
    "cache.max_refreshing": {"by": _TEST + "test_only_so_many_refreshes_at_once"},
    "cache.max_ttl": {"by": _TEST + "test_configuration_only_lowers_what_an_upstream_says"},
    "cache.max_waiting": {"by": _TEST + "test_too_many_who_wait_make_the_call_themselves"},
    "cache.memory": {"by": _TIERS + "test_stores_can_stand_alone"},
    "cache.negative_tool_errors": {"by": _TEST + "test_failures_of_tools_are_kept_only_on_demand"},
    "cache.negative_ttl": {"by": _TEST + "test_stable_errors_are_kept_for_a_short_time"},
    "cache.rules": {"by": _TEST + "test_listed_tools_are_kept"},
    "cache.rules.method": {"by": _TEST + "test_rules_have_their_own_windows", "word": "rule"},
    "cache.rules.name": {"by": _TEST + "test_listed_tools_are_kept"},
    "cache.rules.scope": {"by": _TEST + "test_a_rule_says_who_may_share"},
    "cache.rules.stale_if_error": {"by": _TEST + "test_rules_have_their_own_windows"},
    "cache.rules.stale_while_revalidate": {"by": _TEST + "test_rules_have_their_own_windows"},
    "cache.rules.ttl": {"by": _TEST + "test_configuration_only_lowers_what_an_upstream_says"},
    "cache.stale_if_error": {"by": _TEST + "test_a_stale_answer_is_given_out_when_the_upstream_fails"},
    "cache.stale_while_revalidate": {"by": _TEST + "test_a_stale_answer_is_given_out_while_it_is_refreshed"},
    "cache.store_timeout": {"by": _TIERS + "test_a_store_that_dawdles_is_not_waited_for"},
    "cache.stores": {"by": _TIERS + "test_stores_can_stand_alone"},
    "cache.trust_hints": {"by": _TEST + "test_a_rule_without_names_is_about_tools_that_only_read"},
    "cache.trust_public": {"by": _TEST + "test_public_answers_are_shared_if_that_is_trusted"},
    "cache.warm": {"by": _TEST + "test_the_first_request_after_the_start_is_a_hit"},
    "cache.warm.method": {"by": _TEST + "test_the_first_request_after_the_start_is_a_hit"},
    "cache.warm.params": {"by": _TEST + "test_the_first_request_after_the_start_is_a_hit"},
    "cache.warm.tenant": {"by": _TEST + "test_the_first_request_after_the_start_is_a_hit"},
    "cache.warm_required": {"by": _TEST + "test_a_start_can_depend_on_warming"},
    "cache.warm_wait": {"by": _TEST + "test_the_first_request_after_the_start_is_a_hit"},
}
