"""How each option of `trace` shows; see `../test_no_inert_option.py`."""

_HERE = "middlewares/test_trace.py"
_EXPORT = "middlewares/test_trace_export.py"

ROWS = {
    "trace.incoming": {"by": f"{_HERE}::test_a_client_that_is_not_trusted_begins_no_trace_of_ours"},
    "trace.keep": {"by": f"{_HERE}::test_few_spans_are_kept"},
    "trace.otlp": {"by": f"{_EXPORT}::test_spans_arrive_at_the_collector"},
    "trace.otlp.endpoint": {"by": f"{_EXPORT}::test_spans_arrive_at_the_collector"},
    "trace.otlp.every": {"by": f"{_EXPORT}::test_spans_wait_for_as_long_as_every_says"},
    "trace.otlp.headers": {"by": f"{_EXPORT}::test_spans_arrive_at_the_collector"},
    "trace.otlp.max_waiting": {"by": f"{_EXPORT}::test_when_too_many_wait_the_oldest_go"},
    "trace.otlp.service": {"by": f"{_EXPORT}::test_spans_arrive_at_the_collector"},
    "trace.otlp.timeout": {"by": f"{_EXPORT}::test_a_collector_that_hangs_holds_up_the_end_for_timeout"},
    "trace.propagate": {"by": f"{_HERE}::test_upstreams_get_what_propagate_names"},
    "trace.sample": {"by": f"{_HERE}::test_a_share_of_the_traces_is_sampled"},
    "trace.stages": {"by": f"{_HERE}::test_stages_have_spans_if_wanted"},
}
VARIANTS = [
    {"config": {"sample": "50%", "stages": True, "keep": 4, "incoming": "restart", "propagate": ["baggage"]}},
    {"config": {"sample": "0%", "propagate": []}},
]
