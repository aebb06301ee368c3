"""Tests for what is said of a run of peers: what grew since another run, what was aimed at, and the page of it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
MODULES = ("aims", "compared", "account", "claimed")


@pytest.fixture
def bench_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Gives a module of the bench by its name; none stays loaded."""
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.syspath_prepend(str(BENCH / "peers"))
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


def row(gateway: str, cpu: float, rate: float = 1000.0, **more: Any) -> dict[str, Any]:
    """One gateway in the small case."""
    return {
        "gateway": gateway, "case": "modern, 200 bytes", "load": "16 connections", "cpu": cpu, "rate": rate,
        "failed": 0, **more,
    }  # fmt: skip


def test_a_slower_machine_is_no_growth(bench_modules: Any) -> None:
    """All costs twice as high: the ratio to nginx is what it was."""
    compare = bench_modules("compared").compare
    base = [row("nginx", 10), row("sluiceway, bare", 100)]

    assert compare([row("nginx", 20), row("sluiceway, bare", 200)], base) == []


def test_growth_is_told_by_nginxs_cost(bench_modules: Any) -> None:
    """Ours twice as dear as before, nginx the same: said, with both ratios; a peer's growth is its own affair."""
    compare = bench_modules("compared").compare
    base = [row("nginx", 10), row("sluiceway, bare", 100), row("mcp-proxy", 500)]

    found = compare([row("nginx", 10), row("sluiceway, bare", 200), row("mcp-proxy", 5000)], base)

    assert found == [
        "sluiceway, bare, modern, 200 bytes, 16 connections: CPU per call grew from 10.0 to 20.0 times nginx's"
    ]


def test_failed_calls_are_told(bench_modules: Any) -> None:
    """A gateway of ours that got quicker by failing has not got better."""
    compare = bench_modules("compared").compare

    assert compare([row("sluiceway, bare", 50, failed=3)], []) == [
        "sluiceway, bare, modern, 200 bytes, 16 connections: 3 calls failed"
    ]


def test_open_loops_are_not_compared(bench_modules: Any) -> None:
    """A few hundred calls a second are too little CPU to be told from noise."""
    compare = bench_modules("compared").compare
    loads: dict[str, Any] = {"case": "bursts of 16", "load": "160 a second"}

    assert compare([row("nginx", 10, **loads), row("sluiceway, bare", 900, **loads)],
                   [row("nginx", 10, **loads), row("sluiceway, bare", 100, **loads)]) == []  # fmt: skip


def test_what_was_not_measured_is_neither_met_nor_missed(bench_modules: Any) -> None:
    """A run without peers judges what it has."""
    judged = bench_modules("aims").judged

    words = {each.aim: each.word for each in judged([row("nginx", 10, 50_000), row("sluiceway, bare", 20, 25_000)])}

    assert words["bare, by nginx"] == "met"
    assert words["full chain, by ContextForge"] == "not measured"


def test_the_best_of_theirs_counts(bench_modules: Any) -> None:
    """Two peers: the quicker one, and by CPU the cheaper one."""
    judged = bench_modules("aims").judged
    legacy: dict[str, Any] = {"case": "legacy, 200 bytes"}
    rows = [
        row("sluiceway, full chain", 100, 9000, **legacy),
        row("mcp-proxy, to stdio", 1000, 1000, **legacy),
        row("supergateway, to stdio", 800, 500, **legacy),
    ]

    found = next(each for each in judged(rows) if "better of mcp-proxy" in each.aim and "full" in each.aim)

    assert (found.shown, found.by_cpu, found.word) == (9.0, 8.0, "met")


def test_the_page_is_written_between_its_marks_only(bench_modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody wrote stays; a region has the figures of today, however often it is written."""
    account = bench_modules("account")
    monkeypatch.setitem(account.REGIONS, "cpu", lambda: "| 7 |")
    page = "before\n<!-- figures: cpu -->\nold\n<!-- end -->\nbehind\n"

    once = account.written(page)

    assert once == "before\n<!-- figures: cpu -->\n| 7 |\n<!-- end -->\nbehind\n"
    assert account.written(once) == once


def test_a_claims_figures_stand_in_its_words(bench_modules: Any) -> None:
    """Names in brackets are figures; one that was not measured is a question mark."""
    told = bench_modules("claimed").told

    assert told("{x}: [a, us|1] and [b|0]", {"a, us": 1.26}, {"x": "1 / 2"}) == "1 / 2: 1.3 and ?"


def test_every_claim_of_the_page_names_figures_that_are_kept(bench_modules: Any) -> None:
    """No figure of the kept results has been renamed under the page."""
    account = bench_modules("account")

    assert "?" not in account.claims()
