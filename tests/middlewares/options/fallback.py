"""How each option of `fallback` shows; see `../test_no_inert_option.py`."""


def _by(test: str, word: str = "") -> dict[str, str]:
    return {"by": f"middlewares/test_fallback.py::test_{test}", "word": word}


ROWS = {
    "fallback.on": _by("on_says_what_counts"),
    "fallback.sink": _by("another_sink_answers"),
    "fallback.reads": _by("what_may_have_run_is_not_run_elsewhere"),
    "fallback.trust_hints": _by("trusted_hints_count_and_are_forgotten_when_they_change"),
    "fallback.keep": _by("the_last_good_answer_is_given_while_it_is_not_too_old"),
    "fallback.store": _by("a_store_that_fails_is_as_good_as_an_empty_one"),
    "fallback.max_bytes": _by("only_complete_answers_of_reads_are_kept"),
    "fallback.answers": _by("fixed_answers_go_by_what_matches_first"),
    "fallback.answers.when": _by("fixed_answers_go_by_what_matches_first"),
    "fallback.answers.result": _by("fixed_answers_go_by_what_matches_first"),
    "fallback.empty_lists": _by("empty_lists_say_that_they_are_makeshift"),
}

VARIANTS = (
    {"config": {"keep": "1h", "store": "kept", "reads": ["*"], "trust_hints": True}},
    {"config": {"answers": [{"when": {"method": ["tools/*"]}, "result": {"content": []}}], "empty_lists": True}},
)
