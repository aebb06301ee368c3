"""A simulation as a page of HTML that needs nothing else: tables, and plots in SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Final

from .simulating import Side, Simulated
from .tally import COUNTS, Tallies, Tally

MAX_BARS: Final = 25
"""Targets that have a bar; the busiest."""

_COLORS: Final = {
    "answered": "#4c9f70", "tool_error": "#b7b35c", "error": "#c98b4e", "refused": "#c0504d", "shed": "#8e4585",
    "failed": "#7f3f3f", "timed_out": "#5b6f9c", "cancelled": "#9a9a9a",
}  # fmt: skip
_SIDES: Final = ("#5b6f9c", "#c0504d")
_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;margin:1rem 0;font-size:13px}td,th{padding:.2rem .6rem;text-align:right}
td:first-child,th:first-child{text-align:left;max-width:28rem;overflow-wrap:anywhere}tr:nth-child(even){background:#f4f4f4}
th{border-bottom:1px solid #999}.more{color:#a33}.less{color:#373}svg{display:block;margin:1rem 0}
svg text{font:11px system-ui,sans-serif;fill:#444}.scroll{overflow-x:auto}
"""


def render_html(found: Simulated, title: str) -> str:
    """
    The report.

    Args:
        found: What was simulated.
        title: Of the page: which tape, which configurations.
    """
    before, after = found.before, found.after
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f"<p>{before.tallies.all.requests} requests in {found.span_s:.1f} s of traffic. Two figures stand for "
        f"<b>{escape(before.name)}</b> and <b>{escape(after.name)}</b>.</p>",
        *(_note(side) for side in (before, after) if side.supposed or side.unanswered),
        "<h2>How requests ended</h2>",
        _ends(before.tallies.all, after.tallies.all, (before.name, after.name)),
        _table("all", {"all": before.tallies.all}, {"all": after.tallies.all}),
        "<h2>How long answers took</h2>",
        _curves((before, after)),
        "<h2>Refused or shed, over time</h2>",
        _over_time((before, after)),
        "<h2>By target</h2>",
        _bars(after.tallies),
        _table("target", before.tallies.by_target, after.tallies.by_target),
        "<h2>By caller</h2>",
        _table("caller", before.tallies.by_caller, after.tallies.by_caller),
        "<h2>By tenant</h2>",
        _table("tenant", before.tallies.by_tenant, after.tallies.by_tenant),
        "<h2>Circuit breakers</h2>",
        _moves((before, after)),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _note(side: Side) -> str:
    return (
        f"<p>{escape(side.name)}: {side.supposed} answers of upstreams are supposed, from similar ones on the tape; "
        f"{side.unanswered} calls are like nothing on it, and failed.</p>"
    )


def _table(name: str, before: dict[str, Tally], after: dict[str, Tally]) -> str:
    keys = sorted({*before, *after}, key=lambda key: -max(_of(before, key).requests, _of(after, key).requests))
    used = [each for each in COUNTS if any(_of(side, key).counts[each] for side in (before, after) for key in keys)]
    head = "".join(f"<th>{escape(each)}</th>" for each in (name, "requests", *used, "p50", "p95", "p99"))
    rows = []
    for key in keys:
        pair = _of(before, key), _of(after, key)
        cells = [_cell(pair[0].requests, pair[1].requests)]
        cells += [_cell(pair[0].counts[each], pair[1].counts[each]) for each in used]
        cells += [_times(pair[0], pair[1], share) for share in (0.5, 0.95, 0.99)]
        rows.append(f"<tr><td>{escape(key)}</td>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _of(side: dict[str, Tally], key: str) -> Tally:
    return side.get(key) or Tally()


def _cell(before: int, after: int) -> str:
    if before == after:
        return f"<td>{after}</td>"
    return f'<td class="{"more" if after > before else "less"}">{before} &rarr; {after}</td>'


def _times(before: Tally, after: Tally, share: float) -> str:
    texts = [duration(side.latencies.quantile(share)) for side in (before, after)]
    return f"<td>{texts[1]}</td>" if texts[0] == texts[1] else f"<td>{texts[0]} &rarr; {texts[1]}</td>"


def duration(seconds: float | None) -> str:
    """A time to two digits; a dash if there is none."""
    if seconds is None:
        return "-"
    return (
        f"{seconds * 1000:.2g} ms" if seconds < 0.0995 else f"{seconds:.2g} s" if seconds < 99.5 else f"{seconds:.0f} s"
    )


def _svg(width: int, height: int, label: str, body: Iterable[str]) -> str:
    return (
        f'<svg role="img" aria-label="{escape(label)}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{"".join(body)}</svg>'
    )


def _stack(tally: Tally, left: float, top: float, width: float, height: float) -> Iterator[str]:
    """How the requests of a tally ended, as one bar."""
    for each, color in _COLORS.items():
        share = tally.counts[each] / max(tally.requests, 1) * width
        if share:
            text = f"<title>{each}: {tally.counts[each]}</title>"
            yield f'<rect x="{left:.1f}" y="{top}" width="{share:.1f}" height="{height}" fill="{color}">{text}</rect>'
        left += share


def _ends(before: Tally, after: Tally, names: Sequence[str]) -> str:
    body: list[str] = []
    for row, (name, tally) in enumerate(zip(names, (before, after), strict=True)):
        body.append(f'<text x="0" y="{16 + row * 26}">{escape(name)}</text>')
        body += _stack(tally, 130, 2 + row * 26, 700, 20)
    left = 130.0
    for each, color in _COLORS.items():
        body.append(f'<rect x="{left}" y="62" width="10" height="10" fill="{color}"/>')
        body.append(f'<text x="{left + 14}" y="71">{each}</text>')
        left += 88
    return _svg(860, 80, "How requests ended", body)


def _bars(tallies: Tallies) -> str:
    busiest = sorted(tallies.by_target.items(), key=lambda item: -item[1].requests)[:MAX_BARS]
    most = max((tally.requests for _, tally in busiest), default=1)
    body: list[str] = []
    for row, (name, tally) in enumerate(busiest):
        body.append(f'<text x="0" y="{14 + row * 20}">{escape(name[:44])}</text>')
        body += _stack(tally, 290, 3 + row * 20, max(540 * tally.requests / most, 1), 14)
    return _svg(860, 20 * len(busiest) + 6, "How requests to each target ended", body)


def _curves(sides: Sequence[Side]) -> str:
    """The share of answers within a time; times on a logarithmic axis."""
    curves = [side.tallies.all.latencies.curve() for side in sides]
    times = [t for curve in curves for t, _ in curve]
    if not times:
        return "<p>Nothing was answered.</p>"
    low = math.floor(math.log10(min(times)))
    high = max(math.ceil(math.log10(max(times))), low + 1)

    def x(t: float) -> float:
        return 40 + 760 * (math.log10(t) - low) / (high - low)

    body = [
        f'<line x1="{x(10**power):.1f}" x2="{x(10**power):.1f}" y1="10" y2="210" stroke="#ddd"/>'
        f'<text x="{x(10**power):.1f}" y="225" text-anchor="middle">{duration(10**power)}</text>'
        for power in range(low, high + 1)
    ]
    body += [
        f'<text x="34" y="{214 - 2 * share}" text-anchor="end">{share}%</text>'
        f'<line x1="40" x2="800" y1="{210 - 2 * share}" y2="{210 - 2 * share}" stroke="#eee"/>'
        for share in (0, 50, 100)
    ]
    for row, (side, curve, color) in enumerate(zip(sides, curves, _SIDES, strict=True)):
        points = " ".join(f"{x(t):.1f},{210 - 200 * share:.1f}" for t, share in [(10.0**low, 0.0), *curve])
        body.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        body.append(f'<text x="56" y="{26 + 16 * row}" style="fill:{color}">{escape(side.name)}</text>')
    return _svg(820, 232, "Share of answers within a time", body)


def _over_time(sides: Sequence[Side]) -> str:
    rows = [[each["refused"] + each["shed"] for each in side.tallies.over_time] for side in sides]
    most = max(max(row) for row in rows)
    if not most:
        return "<p>Nothing was refused.</p>"
    step = 780 / len(rows[0])
    body = [f'<text x="0" y="12">{most}</text><line x1="40" x2="820" y1="120" y2="120" stroke="#999"/>']
    for number, (row, color) in enumerate(zip(rows, _SIDES, strict=True)):
        for place, count in enumerate(row):
            height = 110 * count / most
            left = 40 + place * step + number * step * 0.45
            body.append(
                f'<rect x="{left:.1f}" y="{120 - height:.1f}" width="{step * 0.4:.1f}" height="{height:.1f}" '
                f'fill="{color}"><title>{count}</title></rect>'
            )
    return _svg(820, 124, "Refusals over time", body)


def _moves(sides: Sequence[Side]) -> str:
    rows = [
        f"<tr><td>{escape(side.name)}</td><td>{float(move['t']):.3f} s</td><td>{escape(str(move['stage']))}</td>"
        f"<td>{escape(str(move['to']))}</td><td>{escape(str(move['cause']))}</td></tr>"
        for side in sides
        for move in side.tallies.moves
    ]
    return f"<table>{''.join(rows)}</table>" if rows else "<p>None moved.</p>"
