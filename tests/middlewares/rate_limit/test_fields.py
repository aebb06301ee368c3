"""What responses say of a limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluiceway.middlewares.rate_limit.fields import Fields
from sluiceway.pipeline.model.gcra import NS_PER_S, Limit, Window
from sluiceway.pipeline.model.options import Rate


@given(
    window=st.builds(
        Window, st.builds(Rate, st.integers(1, 1000), st.sampled_from([0.1, 1.0, 60.0, 3600.0])), st.integers(1, 2000)
    ),
    used=st.integers(-10, 4000),
    now_ns=st.integers(0, 10**15),
    offset=st.integers(-5, 5),
)
def test_headers_of_one_rate_say_what_the_law_says(window: Window, used: int, now_ns: int, offset: int) -> None:
    """The short way to a header comes to the same as `Limit.room`, whatever the state."""
    limit, headers = Limit(window), dict[str, str]()
    state = max(0, now_ns * window.ticks + used * window.interval + offset)
    _, remaining, reset_ns = limit.room(state, now_ns)

    Fields("ratelimit", "id", limit).write(headers, state, now_ns)

    assert headers["ratelimit"] == f'"id";r={remaining};t={-(-reset_ns // NS_PER_S)}'
