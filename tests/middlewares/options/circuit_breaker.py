"""How each option of `circuit_breaker` shows; see `../test_no_inert_option.py`."""


def _by(test: str, word: str = "", file: str = "test_circuit_breaker") -> dict[str, str]:
    return {"by": f"middlewares/{file}.py::test_{test}", "word": word}


ROWS = {
    "circuit_breaker.failures": _by("decisions_say_who_opened_it"),
    "circuit_breaker.failure_rate": _by("a_share_of_failures_opens_it_as_configured"),
    "circuit_breaker.min_calls": _by("a_share_of_failures_opens_it_as_configured"),
    "circuit_breaker.window": _by("a_share_of_failures_opens_it_as_configured"),
    "circuit_breaker.open_for": _by("times_are_those_of_the_configuration"),
    "circuit_breaker.open_for_max": _by("times_are_those_of_the_configuration"),
    "circuit_breaker.jitter": _by("times_are_those_of_the_configuration"),
    "circuit_breaker.probes": _by("probes_are_those_of_the_configuration"),
    "circuit_breaker.successes": _by("probes_are_those_of_the_configuration"),
    "circuit_breaker.probe_timeout": _by("probes_are_those_of_the_configuration"),
    "circuit_breaker.per": _by("each_tool_can_have_a_breaker_of_its_own"),
    "circuit_breaker.max_keys": _by("breakers_of_targets_are_bounded"),
}

VARIANTS = (
    {"config": {"per": "target", "max_keys": 2, "failures": 9}},
    {"config": {"failure_rate": "0%", "failures": 1, "probes": 1, "successes": 1}},
)
