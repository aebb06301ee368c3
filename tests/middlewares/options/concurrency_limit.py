"""How each option of `concurrency_limit` shows; see `../test_no_inert_option.py`."""

ROWS = {
    "concurrency_limit.max_in_flight": {"one": 1, "other": 2},
    "concurrency_limit.max_keys": {"one": 1, "other": 2, "given": {"per": "caller"}},
    "concurrency_limit.max_listeners": {"one": None, "other": 1},
    "concurrency_limit.max_waiting": {"one": 0, "other": 1, "given": {"max_in_flight": 1}},
    "concurrency_limit.per": {"one": "all", "other": "caller", "given": {"max_in_flight": 1}},
    "concurrency_limit.retry_after": {"one": 1.0, "other": 2.0, "given": {"max_in_flight": 1}},
    "concurrency_limit.wait_at_most": {"one": 1.0, "other": 2.0, "given": {"max_in_flight": 1, "max_waiting": 9}},
}

VARIANTS = [
    {"config": {"max_in_flight": 1, "max_waiting": 8, "max_listeners": 4, "per": "caller"}},
    {"config": {"max_in_flight": 2, "max_waiting": 0, "per": "target", "max_keys": 3}},
]
