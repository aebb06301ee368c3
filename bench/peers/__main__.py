"""
Gateways compared: ours, its peers, the usual design and nginx, in front of the same upstream, in one run.

    python bench/peers --json bench/results/peers.json --html peers.html [--quick] [--compare EARLIER.json]

Each gateway has CPU 0; load and upstream have CPU 1. All are up at once and are visited in turn, round by round, so
that a busy neighbour spoils rounds and not figures; figures are medians. Every answer is looked at: one without a
result, or with fewer bytes than there should be, is a failure and not a call. CPU is what the gateway's processes used
per call, children included, an upstream over stdio left out. Compare ratios of one run, not numbers of two machines.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from aims import judged, shown
from compared import compare
from gateways import GATEWAYS, Gateway
from load import HERE, Case
from report import Row, page, table
from running import LOAD_CPU, Running, await_port, bring_up, free_port, start
from setup import install, python_of, versions

sys.path.insert(0, str(HERE.parent))
from figures import about_machine

CASES = (
    Case("legacy, 200 bytes", "legacy", (1, 16, 64), text=96),
    Case("modern, 200 bytes", "modern", (1, 16, 64), text=96),
    Case("legacy, 10 KB", "legacy", text=10_000),
    Case("modern, 10 KB", "modern", text=10_000),
    Case("legacy, 1 MB result", "legacy", blob=1_000_000, patience=3),
    Case("modern, 1 MB both ways", "modern", (4,), text=1_000_000, patience=3),
    Case("modern, 10 MB result", "modern", (1,), blob=10_000_000, patience=3),
    Case("modern, tools/list", "modern", method="tools/list"),
)
RATES = (160, 1600, 4800)
SLOWNESS = 4
"""The patience that slow gateways take."""


def _concerns(case: Case, gateway: Gateway, connections: int = 16) -> bool:
    if case.era not in gateway.eras or (gateway.static and case.method != "tools/list"):
        return False
    return not gateway.slow or (case.text == 96 and connections <= 16)


def _plain(gateway: Gateway) -> Case:
    """A small call in the latest era that a gateway speaks."""
    return next(case for case in CASES if case.text == 96 and case.era == gateway.eras[0])


def _bring_up_all(stack: ExitStack, options: argparse.Namespace) -> list[Running]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
    port = free_port()
    command = [str(python_of("naive")), str(HERE / "upstream.py"), str(port)]
    await_port(port, start(stack, command, cpu=LOAD_CPU, log=folder / "upstream.log"))
    up = []
    for gateway in GATEWAYS:
        wanted = not options.only or any(word in gateway.name for word in options.only)
        if not gateway.installed or not wanted or (options.quick and gateway.slow):
            continue
        first = CASES[-1] if gateway.static else _plain(gateway)
        try:
            up.append(bring_up(stack, gateway, f"http://127.0.0.1:{port}/mcp", folder, first))
        except (RuntimeError, OSError, http.client.HTTPException, subprocess.CalledProcessError) as error:
            print(f"left out: {gateway.name}: {error}", file=sys.stderr)
    return up


def _prepare_all(up: Sequence[Running], cases: Sequence[Case]) -> None:
    """Every request once, and a second of load in each era, so that nothing is measured cold."""
    for running in up:
        running.look("idle")
        warm = set()
        for case in cases:
            if _concerns(case, running.gateway, case.connections[0]):
                running.prepare(case)
                if case.era not in warm:
                    warm.add(case.era)
                    running.measure(case, 16, 1)
        running.samples = {key: kept for key, kept in running.samples.items() if key[1] == "idle"}


def _round(up: Sequence[Running], cases: Sequence[Case], seconds: int, *, first: bool) -> None:
    for case in cases:
        for connections in case.connections:
            for running in up:
                patience = max(case.patience, SLOWNESS if running.gateway.slow else 1)
                if _concerns(case, running.gateway, connections) and (first or patience == 1):
                    running.measure(case, connections, seconds * patience)
    for rate in RATES:
        for running in up:
            plain = _plain(running.gateway)
            if plain in cases and not running.gateway.slow and running.keeps_up(plain, rate):
                running.burst(plain, rate, seconds)


def _rows(up: Sequence[Running]) -> Iterator[Row]:
    for case, load in dict.fromkeys(key for running in up for key in running.samples):
        for running in up:
            samples = running.samples.get((case, load))
            if samples:
                names = dict.fromkeys(name for each in samples for name in each)
                figures = {
                    name: round(statistics.median(each[name] for each in samples if name in each), 2) for name in names
                }
                if "failed" in figures:
                    figures["failed"] = sum(each["failed"] for each in samples)
                yield {"gateway": running.gateway.name, "case": case, "load": load, **figures}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--html", type=Path, help="write the report with plots here")
    parser.add_argument(
        "--compare", type=Path, metavar="BASE", help="fail if ours cost more, against nginx, than there"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement")
    parser.add_argument("--quick", action="store_true", help="one round, small calls, without the slowest peers")
    parser.add_argument("--only", action="append", metavar="WORD", help="gateways with this in their name")
    parser.add_argument("--case", action="append", metavar="WORD", help="cases with this in their name")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.case = 1, options.case or ["200 bytes", "tools/list"]
    return options


def main() -> int:
    """Set up, measure, print, and write what was asked for."""
    options = _options()
    for missing in install():
        print(f"left out: {missing}", file=sys.stderr)
    about = {**about_machine(), "rounds": options.rounds, "seconds each": options.seconds, **versions()}
    with ExitStack() as stack:
        up = _bring_up_all(stack, options)
        cases = [case for case in CASES if not options.case or any(word in case.name for word in options.case)]
        _prepare_all(up, cases)
        for number in range(options.rounds):
            _round(up if number % 2 == 0 else up[::-1], cases, options.seconds, first=number == 0)
        for running in up:
            running.look("after the load")
        rows = list(_rows(up))
    print(table(rows))
    print("\n" + shown(judged(rows)))
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
    if options.html is not None:
        page(rows, about, options.html)
    grown = compare(rows, json.loads(options.compare.read_text())["rows"]) if options.compare is not None else []
    print("\n".join(grown))
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
