"""
Puts the figures of `bench/results/` into docs/performance.md, between its marks; its sentences are written by hand.

    python bench/account.py

A region begins with `<!-- figures: NAME -->` and ends with `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
from aims import Verdict, judged, markdown
from claimed import CLAIMS, told

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"
RESULTS = HERE / "results"
_REGION = re.compile(r"(<!-- figures: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_CONNECTIONS = (1, 16, 64)
_OTHER_CASES = (
    ("legacy, 10 KB", "16 connections"),
    ("legacy, 1 MB result", "16 connections"),
    ("modern, 1 MB both ways", "4 connections"),
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
    """What is wanted, and what the runs show."""
    return markdown([*judged(_load("peers")["rows"]), *_by_others()])


def _by_others() -> Iterator[Verdict]:
    """Aims that other benches than that of peers can show."""
    kept = {name: value for each in ("large", "idle") for name, value in _load(each)["figures"].items()}
    for aim, wanted, name in (
        *(
            (
                f"result of {size} of records, CPU by a full decoding ({decoder})",
                0.1,
                f"result, {size} of records: share of {decoder}",
            )
            for size in ("1 MB", "10 MB")
            for decoder in ("msgspec", "json")
        ),
        (
            "request of 1 MB of records, CPU above the gate, by a full decoding (msgspec)",
            0.1,
            "request, 1 MB of records: above the gate, share of msgspec",
        ),
        ("memory while 10 MB pass, KiB", 1792, "result, 10 MB of records: KiB of memory at most"),
        ("memory of an idle connection, KiB", 10, "idle connections: KiB each"),
        ("memory of an idle modern stream, KiB", 25, "modern streams: KiB each"),
        ("memory of an idle legacy stream, KiB", 25, "legacy GET streams: KiB each"),
    ):
        yield Verdict(aim, wanted, kept.get(name), most=True)
    rows = _load("workers")["rows"]
    for load in (16, 64):
        one, two = ([rows[label]["rate"] for label in rows if label == f"modern c={load}, {workers}"]
                    for workers in ("1 worker", "2 workers"))  # fmt: skip
        yield Verdict(f"two workers by one, {load} connections", 1.5, two[0] / one[0] if one and two else None)


def cpu() -> str:
    """CPU per call of every gateway."""
    gateways, rows = _peers()
    head = [
        "CPU us per call",
        "legacy, 1 / 16 / 64",
        "modern, 1 / 16 / 64",
        "10 KB",
        "1 MB",
        "1 MB, too",
        "10 MB",
        "list",
    ]
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
        if not any((gateway, f"{era}, 200 bytes", "1 connections") in rows for era in ("legacy", "modern")):
            continue
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


def _told(kept: Mapping[str, float], name: str, digits: int = 1) -> str:
    return f"{kept[name]:,.{digits}f}" if name in kept else "?"


def large() -> str:
    """Long bodies, by kind and size."""
    kept = _load("large")["figures"]
    lines = []
    for kind in ("records", "text"):
        for size in ("1 MB", "10 MB"):
            name = f"result, {size} of {kind}"
            shares = [
                f"{_told(kept, f'{name}: share of {decoder}', 2)} of {_told(kept, f'{name}: {decoder} ms')}"
                for decoder in ("msgspec", "json")
            ]
            memory = _told(kept, f"{name}: KiB of memory at most", 0)
            lines.append([f"result, {size} of {kind}", _told(kept, f"{name}: ms"), *shares, memory])
        name = f"request, 1 MB of {kind}"
        gate = _told(kept, f"{name}: the gate alone, ms")
        lines.append([name, f"{_told(kept, f'{name}: ms')}, of which the gate {gate}", "", "", ""])
    return _table(["", "CPU ms", "by a decoding by msgspec", "by one by json", "memory at most, KiB"], lines)


def layers() -> str:
    """What each layer costs."""
    kept = _load("layers")["figures"]
    micros = {name.removesuffix(", us"): value for name, value in kept.items() if name.endswith(", us")}
    counted = {name.removesuffix(", instructions"): value for name, value in kept.items() if name.endswith("ctions")}
    lines = [
        [name, f"{value:.1f}", f"{counted[name]:,.0f}" if name in counted else ""] for name, value in micros.items()
    ]
    return _table(["layer", "us of CPU", "instructions"], lines)


def counts() -> str:
    """Bytecodes and instructions of whole calls."""
    bytecodes, instructions = (_load(name)["figures"] for name in ("bytecodes", "instructions"))
    lines = []
    for case in ("full-modern", "full-legacy", "bare-modern", "bare-legacy", "stdio-modern", "stdio-legacy"):
        cells = [_told(bytecodes, f"{case}, {each}: bytecodes", 0) for each in (1, 16)]
        cells += [_told(bytecodes, f"{case}, 16: entries", 0), _told(instructions, f"{case}, 16: instructions", 0)]
        lines.append([case.replace("-", ", "), *cells])
    parts = [
        [name.removeprefix("full-modern, 16: "), f"{value:,.0f}"]
        for name, value in bytecodes.items()
        if name.startswith("full-modern, 16: ") and not name.endswith(("bytecodes", "entries"))
    ]
    head = ["a call", "bytecodes, alone", "one of 16", "function entries", "machine instructions"]
    shares = ", ".join(f"{name} {value}" for name, value in parts)
    return f"{_table(head, lines)}\n\nOf the full chain, modern, one of 16: {shares}."


def pythons() -> str:
    """The same gateway on two builds of the interpreter."""
    head = ["", "CPU us a call, full chain", "bare", "machine instructions, full chain", "bare"]
    rows = _load("pythons")["rows"]
    names = ("full us", "bare us", "full instructions", "bare instructions")
    return _table(head, [[row["python"], *(f"{row[name]:,}" if name in row else "" for name in names)] for row in rows])


def soaks() -> str:
    """What ran for long, and what was left of it."""
    return _table(["", "of", "found"], [[row["what"], row["of"], row["found"]] for row in _load("soaks")["rows"]])


def claims() -> str:
    """Headline claims, with what was measured."""
    _, rows = _peers()
    figures = {
        name: value for kept in ("core", "large", "http2", "claims") for name, value in _load(kept)["figures"].items()
    }
    special = {
        "added": _added(rows),
        "bare": _series(rows, "sluiceway, bare", "modern, 200 bytes", "rate"),
        "full": _series(rows, "sluiceway, full chain", "modern, 200 bytes", "rate"),
    }
    return _table(
        ["", "claim", "measured", "by"], [[*line[:2], told(line[2], figures, special), line[3]] for line in CLAIMS]
    )


def _added(rows: Rows) -> str:
    cells = []
    for figure in ("p50", "p95", "p99"):
        ours, direct = (
            rows.get((gateway, "modern, 200 bytes", "1 connections"), {}).get(figure)
            for gateway in ("sluiceway, full chain", "direct, no gateway")
        )
        cells.append("?" if ours is None or direct is None else f"{(ours - direct) / 1000:.2f}")
    return " / ".join(cells)


REGIONS: Mapping[str, Callable[[], str]] = {
    "machine": machine,
    "aims": aims,
    "cpu": cpu,
    "speed": speed,
    "bursts": bursts,
    "large": large,
    "layers": layers,
    "counts": counts,
    "pythons": pythons,
    "soaks": soaks,
    "claims": claims,
}


def written(page: str) -> str:
    """The page with the figures of today."""
    return _REGION.sub(lambda found: f"{found[1]}{REGIONS[found[2]]()}\n{found[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
