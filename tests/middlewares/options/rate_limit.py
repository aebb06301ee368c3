"""How each option of `rate_limit` shows; see `../test_no_inert_option.py`."""

from __future__ import annotations

from sluiceway.middlewares.rate_limit.options import Override, Weight
from sluiceway.pipeline.model.options import Rate
from sluiceway.pipeline.model.when import When

SLOW = Rate(1, 600.0)
TESTS = "middlewares/rate_limit/test_stage.py::"

ROWS = {
    "rate_limit.rate": {"one": Rate(1, 600.0), "other": Rate(2, 600.0)},
    "rate_limit.burst": {"one": 1, "other": 2, "given": {"rate": SLOW}},
    "rate_limit.per": {"one": "caller", "other": "all", "given": {"rate": SLOW}},
    "rate_limit.weights": {
        "one": (), "other": (Weight(when=When(name=("work",)), weight=2),), "given": {"rate": SLOW, "burst": 2},
    },
    "rate_limit.weights.when": {"by": f"{TESTS}test_some_requests_weigh_more_and_some_nothing"},
    "rate_limit.weights.weight": {"by": f"{TESTS}test_some_requests_weigh_more_and_some_nothing"},
    "rate_limit.overrides": {
        "one": (), "other": (Override(when=When(name=("work",)), rate=Rate(9, 1.0)),), "given": {"rate": SLOW},
    },
    "rate_limit.overrides.when": {"by": f"{TESTS}test_an_override_is_another_rate_counted_apart"},
    "rate_limit.overrides.rate": {"by": f"{TESTS}test_an_override_is_another_rate_counted_apart"},
    "rate_limit.overrides.burst": {"by": f"{TESTS}test_an_override_is_another_rate_counted_apart"},
    "rate_limit.wait_at_most": {"one": None, "other": 2.0, "given": {"rate": Rate(1, 1.0)}},
    "rate_limit.headers": {"one": "ratelimit", "other": "x-ratelimit"},
    "rate_limit.trusted_proxies": {
        "by": "middlewares/rate_limit/test_keys.py::test_an_address_behind_a_trusted_proxy_is_the_clients",
    },
    "rate_limit.ipv6_prefix": {
        "by": "middlewares/rate_limit/test_keys.py::test_an_address_behind_a_trusted_proxy_is_the_clients",
    },
    "rate_limit.max_keys": {"one": 1, "other": 2, "given": {"rate": SLOW}},
    "rate_limit.store": {"by": f"{TESTS}test_counts_in_a_store_outlive_the_stage"},
    "rate_limit.on_failure": {"by": f"{TESTS}test_a_failing_store_can_close_the_door"},
}  # fmt: skip
