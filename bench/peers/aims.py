"""
What the project wants of a run of peers (issue 7), and what the run shows.

A ratio is of calls a second, closed loop, 16 connections, unless its name says otherwise; the same ratio by CPU per
call stands beside it, for calls a second end where the load generator's processor does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

Row = Mapping[str, float | str]
_BARE, _FULL = "sluiceway, bare", "sluiceway, full chain"
_MODERN, _LEGACY, _LIST = "modern, 200 bytes", "legacy, 200 bytes", "modern, tools/list"


@frozen
class Verdict:
    """One aim, and how far we are."""

    aim: str
    wanted: float
    shown: float | None
    """None if this run did not measure it."""
    by_cpu: float | None = None
    """The same by CPU per call, where that can be said."""
    most: bool = False
    """Whether `wanted` is a ceiling."""

    @property
    def word(self) -> str:
        """Met, not met, or not measured."""
        if self.shown is None:
            return "not measured"
        return "met" if (self.shown <= self.wanted if self.most else self.shown >= self.wanted) else "not met"


class _Run:
    """Rows, to be asked."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = {(row["gateway"], row["case"], row["load"]): row for row in rows}

    def get(self, gateway: str, case: str, load: int | str, figure: str) -> float | None:
        load = f"{load} connections" if isinstance(load, int) else load
        value = self._rows.get((gateway, case, load), {}).get(figure)
        return None if value is None else float(value)

    def ratio(self, aim: str, wanted: float, ours: str, theirs: Sequence[str], case: str, load: int = 16,
              their_case: str = "") -> Verdict:  # fmt: skip
        """Ours by the best of theirs."""
        rates = [self.get(each, their_case or case, load, "rate") for each in theirs]
        costs = [self.get(each, their_case or case, load, "cpu") for each in theirs]
        rate, cost = self.get(ours, case, load, "rate"), self.get(ours, case, load, "cpu")
        best, least = max(filter(None, rates), default=None), min(filter(None, costs), default=None)
        return Verdict(
            aim, wanted,
            None if rate is None or best is None else rate / best,
            None if cost is None or least is None else least / cost,
        )  # fmt: skip

    def added(self) -> float | None:
        """What we add to the median of one connection, by what nginx adds."""
        direct, limit, ours = (
            self.get(gateway, _MODERN, 1, "p50") for gateway in ("direct, no gateway", "nginx", _FULL)
        )
        if direct is None or limit is None or ours is None or limit <= direct:
            return None
        return (ours - direct) / (limit - direct)


def judged(rows: Iterable[Row]) -> list[Verdict]:
    """Every aim that a run of peers can show."""
    run = _Run(rows)
    stdio = ("supergateway, to stdio", "mcp-proxy, to stdio")
    found = []
    for load in (16, 64):
        cost = run.get(_FULL, _MODERN, load, "cpu")
        rate = run.get(_FULL, _MODERN, load, "rate")
        by_cpu = 1e6 / cost if cost else None
        found.append(Verdict(f"full chain, calls a second, {load} connections", 10_000, rate, by_cpu))
    found += [
        run.ratio(
            "full chain, by the same app under stock hypercorn", 4, _FULL, ["full chain, stock hypercorn"], _MODERN
        ),
        run.ratio("full chain, by nginx", 0.25, _FULL, ["nginx"], _MODERN),
        run.ratio("bare, by nginx", 0.4, _BARE, ["nginx"], _MODERN),
        run.ratio("cached list, by nginx serving a file", 0.3, _FULL, ["nginx, static file"], _LIST),
        run.ratio("full chain, by the better of mcp-proxy and supergateway", 8, _FULL, stdio, _LEGACY),
        run.ratio("to stdio, by the better of mcp-proxy and supergateway", 10, f"{_BARE}, to stdio", stdio, _LEGACY),
        run.ratio("full chain, by FastMCP with one client", 30, _FULL, ["fastmcp proxy, one client"], _LEGACY),
        run.ratio("full chain, by FastMCP's default", 300, _FULL, ["fastmcp proxy"], _LEGACY),
        run.ratio("full chain, by ContextForge", 300, _FULL, ["ContextForge"], _LEGACY),
        Verdict("full chain, p50 added with 1 connection, by nginx's", 1.5, run.added(), most=True),
    ]
    for rate, figure, most in ((1600, "p50", 1.0), (1600, "p99", 5.0), (4800, "p99", 5.0)):
        micros = run.get(_FULL, "bursts of 16", f"{rate} a second", figure)
        aim = f"full chain, bursts of 16 at {rate:,} a second, {figure}, ms"
        found.append(Verdict(aim, most, None if micros is None else micros / 1000, most=True))
    idle = run.get(_BARE, "private memory", "idle", "memory")
    found.append(Verdict("private memory of an idle process, MiB", 45, idle, most=True))
    return found


def shown(verdicts: Iterable[Verdict]) -> str:
    """For the terminal."""
    lines = [f"{'what is aimed at':62}{'wanted':>10}{'shown':>10}{'by CPU':>10}"]
    for each in verdicts:
        figures = [_figure(each.shown), _figure(each.by_cpu)]
        wanted = ("<= " if each.most else ">= ") + _figure(each.wanted)
        lines.append(f"{each.aim:62}{wanted:>10}{figures[0]:>10}{figures[1]:>10}  {each.word}")
    return "\n".join(lines)


def markdown(verdicts: Iterable[Verdict]) -> str:
    """For docs/performance.md."""
    lines = ["| aim | wanted | shown | by CPU | |", "| --- | --- | --- | --- | --- |"]
    for each in verdicts:
        wanted = ("at most " if each.most else "at least ") + _figure(each.wanted)
        lines.append(f"| {each.aim} | {wanted} | {_figure(each.shown)} | {_figure(each.by_cpu)} | {each.word} |")
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
