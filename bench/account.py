"""
Puts the figures of `bench/results/` into docs/performance.md, between its marks; its sentences are written by hand.

    python bench/account.py [--check]

A region begins with `<!-- figures: NAME -->` and ends with `<!-- end -->`. `--check` writes nothing, and exits 1 if the
page does not say what the results say.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
from aims import judged, markdown

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"
RESULTS = HERE / "results"
_REGION = re.compile(r"(<!-- figures: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_CONNECTIONS = (1, 16, 64)
_OTHER_CASES = (
    ("legacy, 10 KB", "16 connections"),
    ("legacy, 1 MB result", "16 connections"),
    ("modern, 10 MB result", "1 connections"),
    ("modern, tools/list", "16 connections"),
)
_RATES = ("160 a second", "1600 a second", "4800 a second")

Rows = Mapping[tuple[str, str, str], Mapping[str, Any]]


def _load(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {"machine": {}, "rows": [], "figures": {}, "bounds": {}}


def _peers() -> tuple[list[str], Rows]:
    rows = _load("peers")["rows"]
    return list(dict.fromkeys(row["gateway"] for row in rows)), {
        (row["gateway"], row["case"], row["load"]): row for row in rows
    }


def _cell(rows: Rows, key: tuple[str, str, str], figure: str, digits: int = 0, by: float = 1) -> str:
    value = rows.get(key, {}).get(figure)
    return "" if value is None else f"{value / by:,.{digits}f}"


def _series(rows: Rows, gateway: str, case: str, figure: str, digits: int = 0, by: float = 1) -> str:
    cells = [_cell(rows, (gateway, case, f"{each} connections"), figure, digits, by) for each in _CONNECTIONS]
    return " / ".join(cell for cell in cells if cell)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    shown = [head, ["---"] * len(head), *(line for line in lines if any(line[1:]))]
    return "\n".join("| " + " | ".join(line) + " |" for line in shown)


def machine() -> str:
    """What the run of peers was made on."""
    told = _load("peers")["machine"]
    if not told:
        return "Not measured."
    names = ("processor", "cores", "system", "python", "commit", "load average", "date", "rounds", "seconds each")
    versions = ", ".join(f"{name} {value}" for name, value in told.items() if name not in names)
    own = ", ".join(f"{name} {told[name]}" for name in names if name in told)
    return f"{own}.\n\nCompared with {versions}."


def aims() -> str:
    """What is wanted, and what the run of peers shows."""
    return markdown(judged(_load("peers")["rows"]))


def cpu() -> str:
    """CPU per call of every gateway."""
    gateways, rows = _peers()
    head = ["CPU us per call", "legacy, 1 / 16 / 64", "modern, 1 / 16 / 64", "10 KB", "1 MB", "10 MB", "list"]
    lines = []
    for gateway in gateways:
        series = [_series(rows, gateway, f"{era}, 200 bytes", "cpu") for era in ("legacy", "modern")]
        lines.append([gateway, *series, *(_cell(rows, (gateway, *case), "cpu") for case in _OTHER_CASES)])
    return _table(head, lines)


def speed() -> str:
    """Calls a second, latency and memory of every gateway."""
    gateways, rows = _peers()
    head = ["", "calls/s, 1 / 16 / 64", "p50 ms", "p99 ms", "MiB idle", "MiB after"]
    lines = []
    for gateway in gateways:
        era = "modern" if (gateway, "modern, 200 bytes", "1 connections") in rows else "legacy"
        case = f"{era}, 200 bytes"
        latency = [_series(rows, gateway, case, figure, 2, 1000) for figure in ("p50", "p99")]
        memory = [_cell(rows, (gateway, "private memory", when), "memory", 1) for when in ("idle", "after the load")]
        lines.append([gateway, _series(rows, gateway, case, "rate"), *latency, *memory])
    return _table(head, lines)


def bursts() -> str:
    """Open loops."""
    gateways, rows = _peers()
    lines = []
    for gateway in gateways:
        cells = []
        for rate in _RATES:
            key = (gateway, "bursts of 16", rate)
            figures = [_cell(rows, key, figure, 2, 1000) for figure in ("p50", "p99")]
            cells.append(" / ".join(figures) if all(figures) else "")
        lines.append([gateway, *cells])
    return _table(["bursts of 16, p50 / p99 ms", *(f"{rate.split()[0]} a second" for rate in _RATES)], lines)


def _figures(name: str, titles: str) -> str:
    kept = _load(name)
    lines = [
        [figure, f"{value:,.3g}" if value < 1000 else f"{value:,.0f}", f"{kept['bounds'][figure]:g}"
         if figure in kept.get("bounds", {}) else ""]
        for figure, value in kept["figures"].items()
    ]  # fmt: skip
    return _table([titles, "", "bound"], lines)


REGIONS: Mapping[str, Callable[[], str]] = {
    "machine": machine,
    "aims": aims,
    "cpu": cpu,
    "speed": speed,
    "bursts": bursts,
    "large": lambda: _figures("large", "long bodies, bare, http to http"),
    "layers": lambda: _figures("layers", "one layer by itself, CPU us"),
    "claims": lambda: _figures("claims", "claim"),
}


def written(page: str) -> str:
    """The page with the figures of today."""
    return _REGION.sub(lambda found: f"{found[1]}{REGIONS[found[2]]()}\n{found[3]}", page)


def main() -> int:
    """Write the page, or look whether it is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if figures have changed")
    options = parser.parse_args()
    before = PAGE.read_text()
    after = written(before)
    if options.check:
        return 1 if after != before else 0
    PAGE.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
