"""
What changed since another run, whatever machine that was made on: CPU per call as a multiple of nginx's in its own run.

Only closed loops count, and only ours: what a peer costs is its own affair, and 160 calls a second are too few ticks of
nginx's clock to compare with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Row = Mapping[str, float | str]

WORSE = 1.2
"""From this factor on, CPU per call has grown. Two runs of the same code differ by up to 12 % on a quiet machine."""
_SMALLEST = 1
"""Microseconds; less is no figure."""


def multiples(rows: Iterable[Row]) -> dict[tuple[str, str, str], float]:
    """By gateway, case and load: how many times nginx's CPU per call."""
    rows = [row for row in rows if float(row.get("cpu", 0)) >= _SMALLEST and "connections" in str(row["load"])]
    limits = {(row["case"], row["load"]): float(row["cpu"]) for row in rows if row["gateway"] == "nginx"}
    return {
        (str(row["gateway"]), str(row["case"]), str(row["load"])): float(row["cpu"]) / limits[row["case"], row["load"]]
        for row in rows
        if (row["case"], row["load"]) in limits
    }


def compare(rows: Iterable[Row], base: Iterable[Row]) -> list[str]:
    """What of ours costs more than in `base`, in sentences; and what failed."""
    rows = list(rows)
    before, found = multiples(base), []
    for (gateway, case, load), now in multiples(rows).items():
        then = before.get((gateway, case, load))
        if gateway.startswith("sluiceway") and then is not None and now > WORSE * then:
            found.append(f"{gateway}, {case}, {load}: CPU per call grew from {then:.1f} to {now:.1f} times nginx's")
    return found + [
        f"{row['gateway']}, {row['case']}, {row['load']}: {row['failed']:.0f} calls failed"
        for row in rows
        if str(row["gateway"]).startswith("sluiceway") and float(row.get("failed", 0)) > 0
    ]
