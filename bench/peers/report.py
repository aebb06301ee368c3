"""Figures as a table, as JSON, and as a page with plots; and what changed since another run."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Row = Mapping[str, float | str]
"""One gateway in one case: `gateway`, `case`, `load`, and figures."""

_COLUMNS = (
    ("rate", "calls/s", 0),
    ("p50", "p50 ms", 2),
    ("p95", "p95 ms", 2),
    ("p99", "p99 ms", 2),
    ("cpu", "CPU us", 0),
    ("memory", "MiB", 1),
)


def _shown(row: Row, key: str, digits: int) -> str:
    value = row.get(key)
    if value is None:
        return ""
    return f"{float(value) / (1000 if key in ('p50', 'p95', 'p99') else 1):,.{digits}f}"


def table(rows: Sequence[Row]) -> str:
    """For the terminal."""
    lines = []
    for case in dict.fromkeys((row["case"], row["load"]) for row in rows):
        lines.append(f"\n{case[0]}, {case[1]}")
        lines.append(f"{'':28}" + "".join(f"{title:>12}" for _, title, _ in _COLUMNS) + f"{'failed':>9}")
        for row in rows:
            if (row["case"], row["load"]) == case:
                figures = "".join(f"{_shown(row, key, digits):>12}" for key, _, digits in _COLUMNS)
                lines.append(f"{row['gateway']:28}{figures}{row.get('failed', ''):>9}")
    return "\n".join(lines)


def page(rows: Sequence[Row], machine: Mapping[str, object], path: Path) -> None:
    """Write the HTML report: a bar for each gateway and case, drawn in SVG."""
    parts = [
        "<!doctype html><meta charset=utf-8><title>Gateways compared</title>",
        _STYLE,
        "<h1>Gateways compared</h1>",
    ]
    parts.append(f"<p>{html.escape(', '.join(f'{name}: {value}' for name, value in machine.items()))}</p>")
    for case in dict.fromkeys((row["case"], row["load"]) for row in rows):
        mine = [row for row in rows if (row["case"], row["load"]) == case]
        parts.append(f"<h2>{html.escape(f'{case[0]}, {case[1]}')}</h2>{_bars(mine)}{_html_table(mine)}")
    path.write_text("\n".join(parts) + "\n")


_STYLE = (
    "<style>body{font:14px sans-serif;margin:2em}td,th{text-align:right;padding:0 1em}"
    "td:first-child{text-align:left}</style>"
)


def _bars(rows: Sequence[Row]) -> str:
    widths = [(row, float(row.get("rate", 0))) for row in rows]
    top = max((rate for _, rate in widths), default=1.0) or 1.0
    height = 22
    drawn = []
    for index, (row, rate) in enumerate(widths):
        y = index * height
        color = "#26c" if str(row["gateway"]).startswith("sluiceway") else "#999"
        drawn.append(
            f'<text x="0" y="{y + 15}">{html.escape(str(row["gateway"]))}</text>'
            f'<rect x="210" y="{y + 3}" width="{max(1.0, 480 * rate / top):.0f}" height="16" fill="{color}"/>'
            f'<text x="{215 + 480 * rate / top:.0f}" y="{y + 15}">{rate:,.0f}/s</text>'
        )
    return (
        f'<svg width="800" height="{height * len(rows)}" font-size="13" font-family="sans-serif">{"".join(drawn)}</svg>'
    )


def _html_table(rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{title}</th>" for _, title, _ in _COLUMNS)
    body = "".join(
        f"<tr><td>{html.escape(str(row['gateway']))}</td>"
        + "".join(f"<td>{_shown(row, key, digits)}</td>" for key, _, digits in _COLUMNS)
        + f"<td>{row.get('failed', '')}</td></tr>"
        for row in rows
    )
    return f"<table><tr><th></th>{head}<th>failed</th></tr>{body}</table>"
