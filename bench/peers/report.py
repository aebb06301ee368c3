"""Figures as a table for the terminal, and as a page with plots."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from aims import Verdict, judged

Row = Mapping[str, float | str]
"""One gateway in one case: `gateway`, `case`, `load`, and figures."""

_COLUMNS = (
    ("rate", "calls/s", 0),
    ("p50", "p50 ms", 2),
    ("p95", "p95 ms", 2),
    ("p99", "p99 ms", 2),
    ("cpu", "CPU us", 0),
    ("memory", "MiB", 1),
    ("processes", "processes", 0),
    ("failed", "failed", 0),
)
_MILLISECONDS = ("p50", "p95", "p99")
_WIDTH, _NAMES, _BAR = 900, 230, 22
_OURS, _OTHERS = "#1f5fbf", "#9a9a9a"
_STYLE = (
    "<style>body{font:14px/1.4 sans-serif;margin:2em;max-width:72em}td,th{text-align:right;padding:0 .8em}"
    "td:first-child,th:first-child{text-align:left}h2{margin-top:2em;border-top:1px solid #ccc}svg{display:block;"
    "margin:.6em 0}text{font:12px sans-serif}.met{color:#176b2c}.not-met{color:#a11}</style>"
)
_METHOD = """All gateways are up at once in front of one upstream and are visited in turn, round by round, the order
turned round every time; figures are medians of rounds. A gateway has CPU 0, load and upstream have CPU 1. Closed loops:
wrk, each connection asks again once it was answered. Bursts: 16 connections ask at the same instant, and latency counts
from when a request was due. Every answer is looked at; one with an error's status, without a result or shorter than it
should be has failed, and is no call. CPU per call is what the gateway's processes were on a processor for, children
included, an upstream over stdio left out: it is the figure to compare, for calls a second end where CPU 1 does, and
neighbours take time but no CPU. Private memory is what belongs to a gateway's processes alone."""


def _shown(row: Row, key: str, digits: int) -> str:
    value = row.get(key)
    return "" if value is None else f"{_unit(key, float(value)):,.{digits}f}"


def _unit(key: str, value: float) -> float:
    return value / 1000 if key in _MILLISECONDS else value


def _columns(rows: Sequence[Row]) -> list[tuple[str, str, int]]:
    return [column for column in _COLUMNS if any(column[0] in row for row in rows)]


def table(rows: Sequence[Row]) -> str:
    """For the terminal."""
    lines = []
    for case, load in dict.fromkeys((row["case"], row["load"]) for row in rows):
        mine = [row for row in rows if (row["case"], row["load"]) == (case, load)]
        columns = _columns(mine)
        lines.append(f"\n{case}, {load}\n{'':32}" + "".join(f"{title:>12}" for _, title, _ in columns))
        for row in mine:
            figures = "".join(f"{_shown(row, key, digits):>12}" for key, _, digits in columns)
            lines.append(f"{row['gateway']:32}{figures}")
    return "\n".join(lines)


def page(rows: Sequence[Row], machine: Mapping[str, object], path: Path) -> None:
    """Write the HTML report: what was aimed at, then plots and figures of each case."""
    about = "".join(f"<tr><td>{html.escape(str(name))}</td><td>{html.escape(str(value))}</td></tr>"
                    for name, value in machine.items())  # fmt: skip
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Gateways compared</title>", _STYLE,
        f"<h1>Gateways compared</h1><p>{_METHOD}</p>",
        f"<h2>What is aimed at</h2>{_aims(judged(rows))}<h2>Machine and versions</h2><table>{about}</table>",
    ]  # fmt: skip
    for case, load in dict.fromkeys((row["case"], row["load"]) for row in rows):
        mine = [row for row in rows if (row["case"], row["load"]) == (case, load)]
        parts.append(f"<h2>{html.escape(f'{case}, {load}')}</h2>")
        for key, title in (
            ("cpu", "CPU per call, microseconds, logarithmic"),
            ("rate", "calls a second, logarithmic"),
            ("memory", "private memory, MiB"),
        ):
            if any(row.get(key) for row in mine) and not (key == "rate" and case == "bursts of 16"):
                parts.append(_bars(mine, key, title))
        if any("p50" in row for row in mine):
            parts.append(_ranges(mine))
        parts.append(_html_table(mine))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts) + "\n")


class _Axis:
    """Where values stand between the names and the right edge, and lines that tell."""

    def __init__(self, values: Sequence[float], *, logarithmic: bool) -> None:
        self._log = logarithmic
        low, high = min(values), max(values)
        if logarithmic:
            self._low, self._high = math.floor(math.log10(low)), max(math.ceil(math.log10(high)), 1)
            self._high = max(self._high, self._low + 1)
            self.ticks = [10.0**power for power in range(self._low, self._high + 1)]
        else:
            step = 10 ** math.floor(math.log10(high))
            step = next(step * factor for factor in (0.2, 0.5, 1, 2) if high / (step * factor) <= 8)
            self._low, self._high = 0, math.ceil(high / step) * step
            self.ticks = [step * number for number in range(round(self._high / step) + 1)]

    def at(self, value: float) -> float:
        """Its horizontal place."""
        place = math.log10(max(value, 10.0**self._low)) if self._log else value
        return _NAMES + (_WIDTH - _NAMES - 90) * (place - self._low) / (self._high - self._low)

    def drawn(self, height: int) -> str:
        """Its lines and numbers, above and below a plot of this height."""
        return "".join(
            f'<line x1="{self.at(tick):.0f}" x2="{self.at(tick):.0f}" y1="18" y2="{height + 18}" stroke="#ddd"/>'
            f'<text x="{self.at(tick):.0f}" y="12" text-anchor="middle" fill="#666">{tick:,.6g}</text>'
            for tick in self.ticks
        )


def _name(row: Row, y: int) -> str:
    return f'<text x="0" y="{y + 15}">{html.escape(str(row["gateway"]))}</text>'


def _color(row: Row) -> str:
    return _OURS if "sluiceway" in str(row["gateway"]) else _OTHERS


def _plot(title: str, height: int, inner: str) -> str:
    return (
        f"<b>{html.escape(title)}</b>"
        f'<svg width="{_WIDTH}" height="{height + 24}" role="img" aria-label="{html.escape(title)}">{inner}</svg>'
    )


def _bars(rows: Sequence[Row], key: str, title: str) -> str:
    rows = [row for row in rows if float(row.get(key, 0)) > 0]
    axis = _Axis([float(row[key]) for row in rows], logarithmic=key != "memory")
    height, drawn = _BAR * len(rows), []
    for index, row in enumerate(rows):
        value, y = float(row[key]), 20 + index * _BAR
        width = max(1.0, axis.at(value) - _NAMES)
        drawn.append(
            f'{_name(row, y)}<rect x="{_NAMES}" y="{y + 3}" width="{width:.0f}" height="15" fill="{_color(row)}"/>'
            f'<text x="{_NAMES + width + 5:.0f}" y="{y + 15}">{value:,.{1 if key == "memory" else 0}f}</text>'
        )
    return _plot(title, height, axis.drawn(height) + "".join(drawn))


def _ranges(rows: Sequence[Row]) -> str:
    rows = [row for row in rows if float(row.get("p50", 0)) > 0]
    if not rows:
        return ""
    axis = _Axis([float(row[key]) / 1000 for row in rows for key in _MILLISECONDS], logarithmic=True)
    height, drawn = _BAR * len(rows), []
    for index, row in enumerate(rows):
        y, (p50, p95, p99) = 20 + index * _BAR, (float(row[key]) / 1000 for key in _MILLISECONDS)
        drawn.append(
            f'{_name(row, y)}<line x1="{axis.at(p50):.0f}" x2="{axis.at(p99):.0f}" y1="{y + 11}" y2="{y + 11}" '
            f'stroke="{_color(row)}" stroke-width="3"/><circle cx="{axis.at(p50):.0f}" cy="{y + 11}" r="5" '
            f'fill="{_color(row)}"/><circle cx="{axis.at(p95):.0f}" cy="{y + 11}" r="3" fill="{_color(row)}"/>'
            f'<text x="{axis.at(p99) + 6:.0f}" y="{y + 15}">{p50:,.2f} to {p99:,.2f}</text>'
        )
    title = "latency from p50 (large dot) over p95 to p99, milliseconds, logarithmic"
    return _plot(title, height, axis.drawn(height) + "".join(drawn))


def _aims(verdicts: Sequence[Verdict]) -> str:
    body = "".join(
        f"<tr><td>{html.escape(each.aim)}</td><td>{'at most' if each.most else 'at least'} {each.wanted:,g}</td>"
        f"<td>{'' if each.shown is None else f'{each.shown:,.3g}'}</td>"
        f"<td>{'' if each.by_cpu is None else f'{each.by_cpu:,.3g}'}</td>"
        f'<td class="{each.word.replace(" ", "-")}">{each.word}</td></tr>'
        for each in verdicts
    )
    head = "<tr><th>16 connections, by calls a second</th><th>wanted</th><th>shown</th><th>by CPU</th><th></th></tr>"
    return f"<table>{head}{body}</table>"


def _html_table(rows: Sequence[Row]) -> str:
    columns = _columns(rows)
    head = "".join(f"<th>{title}</th>" for _, title, _ in columns)
    body = "".join(
        f"<tr><td>{html.escape(str(row['gateway']))}</td>"
        + "".join(f"<td>{_shown(row, key, digits)}</td>" for key, _, digits in columns)
        + "</tr>"
        for row in rows
    )
    return f"<table><tr><th></th>{head}</tr>{body}</table>"
