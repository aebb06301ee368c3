"""How each option of `metrics` shows; see `../test_no_inert_option.py`."""

ROWS = {
    "metrics.buckets": {"by": "middlewares/test_metrics.py::test_latencies_fall_into_the_buckets_that_are_wanted"},
    "metrics.max_tools": {"by": "middlewares/test_metrics.py::test_invented_tools_do_not_take_all_labels"},
}
VARIANTS = [{"config": {"buckets": ["1ms", "1s"], "max_tools": 2}}]
