"""
Headline claims, and how our answer to each is told: figures of `bench/results/` stand in it as `[NAME|DIGITS]`.

HC-02, that another framework is faster than nginx, is nobody's to repeat; so it is not claimed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_FIGURE = re.compile(r"\[([^|\]]+)\|(\d)\]")

CLAIMS = (
    (
        "HC-01",
        "60 to 80 % fewer allocations by a pool of read buffers",
        "[bytes asked for without a pool (HC-01)|0] bytes a read without one, [bytes asked for with one "
        "(HC-01)|0] with; CPU [read without a pool of buffers, us (HC-01)|2] and [read with one, us "
        "(HC-01)|2] us: it saves memory that lives for microseconds and no time, so there is none",
        "`claims.py`",
    ),
    (
        "HC-02",
        "faster than nginx",
        "not claimed; ratios are above",
        "`peers`",
    ),
    (
        "HC-03",
        "under 5 ms added",
        "p50 / p95 / p99, full chain less direct, 1 connection: {added} ms",
        "`peers`",
    ),
    (
        "HC-04",
        "10,000 requests a second",
        "one process, 1 / 16 / 64 connections: bare {bare}, full chain {full}; HTTP/2 over TLS: "
        "[HTTP/2 over TLS, one stream: CPU us per call|0] us of CPU one after the other, "
        "[HTTP/2 over TLS, 16 streams: CPU us per call|0] with 16 streams; in process, 8 stages: "
        "[Pipeline.handle with 8 stages, us|1] us",
        "`peers`, `http2.py`, `core.py`",
    ),
    (
        "HC-05",
        "30 % faster JSON",
        "[decoding 300 bytes: json by msgspec (HC-05)|1] times as fast as the standard library at 300 bytes, "
        "[decoding 1 MiB of records: json by msgspec (HC-05)|1] times at 1 MiB",
        "`claims.py`",
    ),
    (
        "HC-06",
        "two choices: O(1), nearly even",
        "busiest of 100 with 100 each: [p2c: busiest of 100 upstreams that have 100 requests each (HC-06)|0] "
        "(one choice [the same with one random choice (HC-06)|0], all [the same when all are looked at "
        "(HC-06)|0]); [p2c: a choice among 3, us (HC-06)|1] us among 3, [p2c: a choice among 100, us "
        "(HC-06)|1] among 100",
        "`claims.py`",
    ),
    (
        "HC-07",
        "updates without downtime",
        "20 reloads under load: [reloads under load: requests that failed (HC-07)|0] of [reloads under load: "
        "requests answered (HC-07)|0] failed",
        "`claims.py`",
    ),
    (
        "HC-08",
        "large bodies without memory",
        "10 MB pass with [result, 10 MB of records: KiB of memory at most|0] KiB at most",
        "`large.py`",
    ),
    (
        "HC-09",
        "a burst of 5,000 with back-pressure",
        "[burst of 5,000: not answered exactly once (HC-09)|0] lost or answered twice, [burst of 5,000: "
        "waiting at once above the 4,900 allowed (HC-09)|0] above the bound, [burst of 5,000: seconds until "
        "all are answered, 1 ms each, 100 at once (HC-09)|1] s",
        "`claims.py`",
    ),
)
"""Each claim: its number, what is said, what was measured, and by what."""


def told(template: str, figures: Mapping[str, float], special: Mapping[str, str]) -> str:
    """A measured answer; a figure that was not measured is a question mark."""

    def figure(found: re.Match[str]) -> str:
        value = figures.get(found[1])
        return "?" if value is None else f"{value:,.{int(found[2])}f}"

    return _FIGURE.sub(figure, template.format(**special))
