"""How each option of `audit` shows; see `../test_no_inert_option.py`."""

TESTS = "middlewares/audit/test_stage.py"
TO_LOG = {"to": "log"}

ROWS = {
    "audit.params": {"one": "redacted", "other": "digest", "given": TO_LOG},
    "audit.redact": {"one": (), "other": ("note",), "given": TO_LOG},
    "audit.paths": {"one": (), "other": ("arguments.note",), "given": TO_LOG},
    "audit.max_params": {"one": 4096, "other": 8, "given": TO_LOG},
    "audit.result": {"one": "none", "other": "digest", "given": TO_LOG},
    "audit.to": {"by": f"{TESTS}::test_a_trail_is_where_the_options_say"},
    "audit.path": {"by": f"{TESTS}::test_a_trail_is_where_the_options_say"},
    "audit.checkpoints": {"by": f"{TESTS}::test_checkpoints_are_signed_and_where_the_options_say"},
    "audit.checkpoint_key": {"by": f"{TESTS}::test_checkpoints_are_signed_and_where_the_options_say"},
    "audit.sync": {"by": f"{TESTS}::test_a_reply_waits_for_what_sync_says"},
    "audit.on_failure": {"by": f"{TESTS}::test_calls_are_refused_or_served_while_nothing_can_be_recorded"},
    "audit.max_waiting": {"by": f"{TESTS}::test_requests_wait_when_too_many_entries_do"},
    "audit.max_file_size": {"by": f"{TESTS}::test_files_are_put_aside_and_removed_as_the_options_say"},
    "audit.max_file_age": {"by": f"{TESTS}::test_files_are_put_aside_and_removed_as_the_options_say"},
    "audit.keep_files": {"by": f"{TESTS}::test_files_are_put_aside_and_removed_as_the_options_say"},
    "audit.keep_for": {"by": f"{TESTS}::test_files_are_put_aside_and_removed_as_the_options_say"},
}

REQUIRED = {"to": "log"}

VARIANTS = [
    {"config": {"to": "log", "params": "digest", "result": "digest"}},
    {"config": {"to": "log", "params": "none", "paths": ["arguments.*.x"], "redact": ["text"], "max_params": "10B"}},
]
