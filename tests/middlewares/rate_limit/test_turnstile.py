"""The short way through a limit comes to the same as the long one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway.middlewares.rate_limit.fields import Fields, Style
from sluiceway.middlewares.rate_limit.keys import bounded, key_of
from sluiceway.middlewares.rate_limit.turnstile import turnstile
from sluiceway.pipeline.model.gcra import Ledger, LedgerFull, Limit, Window, nanoseconds
from sluiceway.pipeline.model.options import Rate
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.testing import memory_exchange

WINDOWS = st.builds(
    Window, st.builds(Rate, st.integers(1, 1000), st.sampled_from([0.1, 1.0, 7.0, 60.0, 3600.0])), st.integers(1, 20)
)
STEPS = st.lists(
    st.tuples(st.sampled_from(["ana", "bob", "c" * 200]), st.sampled_from([0.0, 0.0, 1e-9, 0.003, 0.5, 1.0, 61.0])),
    max_size=40,
)


@given(
    window=WINDOWS, steps=STEPS, style=st.sampled_from(["ratelimit", "x-ratelimit", "none"]), max_keys=st.integers(1, 3)
)
@settings(max_examples=300)
def test_every_answer_and_every_header_is_that_of_the_long_way(
    window: Window, steps: list[tuple[str, float]], style: Style, max_keys: int
) -> None:
    """Whatever comes when: the same is charged, refused, forgotten and said."""
    limit, now_s = Limit(window), 1000.0
    ledgers = short, long = Ledger(limit, max_keys), Ledger(limit, max_keys)
    fields, key = Fields(style, "id", limit), key_of(["caller"])
    charge = turnstile(window, short, fields, key, lambda: now_s)
    for subject, pause_s in steps:
        now_s += pause_s
        exchange = memory_exchange("tools/call", {"name": "x"}, caller=Caller(subject, how="bearer"))
        said: dict[str, str] = {}
        expected: object
        outcome: object
        try:
            expected, state = long.charge(bounded(key(exchange)), nanoseconds(now_s))
            fields.write(said, state, nanoseconds(now_s))
        except LedgerFull as full:
            expected = str(full)
        try:
            outcome = charge(exchange)
        except LedgerFull as full:
            outcome = str(full)

        assert outcome == expected
        assert exchange.reply_headers == said
        assert ledgers[0].states == ledgers[1].states


def test_what_a_limit_further_out_has_said_stays() -> None:
    """Two limits in one chain have two entries in one header."""
    window = Window(Rate(60, 60.0), 60)
    limit = Limit(window)
    exchange = memory_exchange("tools/call", {"name": "x"})
    for name in ("outer", "inner"):
        turnstile(window, Ledger(limit, 1), Fields("ratelimit", name, limit), key_of(["all"]), lambda: 1.0)(exchange)

    assert exchange.reply_headers == {
        "ratelimit": '"outer";r=59;t=1, "inner";r=59;t=1',
        "ratelimit-policy": '"outer";q=60;w=60, "inner";q=60;w=60',
    }


def test_a_full_ledger_says_nothing() -> None:
    """Who finds no place has no headers of it, and is not charged."""
    limit = Limit(window := Window(Rate(1, 60.0), 1))
    ledger = Ledger(limit, 1)
    charge = turnstile(window, ledger, Fields("ratelimit", "id", limit), key_of(["caller"]), lambda: 1.0)
    charge(memory_exchange("tools/call", {"name": "x"}, caller=Caller("ana", how="bearer")))
    late = memory_exchange("tools/call", {"name": "x"}, caller=Caller("bob", how="bearer"))

    with pytest.raises(LedgerFull):
        charge(late)

    assert late.reply_headers == {}
    assert len(ledger) == 1
