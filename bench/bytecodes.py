"""
Bytecodes and function entries of one call through a gateway: what it costs, on a machine that is never quiet.

    python bench/bytecodes.py --json bench/results/bytecodes.json
    python bench/bytecodes.py full-modern --functions 40 --files 40

They repeat within a per cent where microseconds do not within ten; but a bytecode that calls into C can cost as much as
twenty others, so times (`make bench-peers`) have the last word. `sys.settrace` counts, in a gateway of its own process
(bytecode_counter.py), under the load of steady.py. Cases are bare, full and stdio, each modern and legacy.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from attrs import frozen
from figures import report
from steady import configuration, gateway, upstream

COMMAND = [sys.executable, str(Path(__file__).resolve().parent / "bytecode_counter.py"), "run"]
WARM = 200
"""Calls before it is counted: heads, tasks and connections are known then."""
CALLS = 320
CONNECTIONS = (1, 16)
ROOMS = (
    ("protocol", r"^pipeline/protocol/"),
    ("stages", r"^middlewares/"),
    ("pipeline", r"^pipeline/"),
    ("http in", r"^transports/(http_source|eras)/|^transports/(acceptor|listening)"),
    ("http out", r"^transports/(http_client|http_upstream|translation)/|^transports/(http_sink|mirrors)"),
    ("sockets and pipes", r"^transports/"),
    ("attrs", r"^<attrs"),
    ("Trio and outcome", r"^(trio|outcome)/"),
    ("the standard library and the rest", r"."),
)
PYTHON = (3, 11)
"""Of which the bounds are: each version compiles to bytecodes of its own."""
BOUNDS = {
    "full-modern": (6220, 4330),
    "full-legacy": (6390, 4480),
    "bare-modern": (5040, 3160),
    "bare-legacy": (5200, 3330),
    "stdio-modern": (5150, 3410),
    "stdio-legacy": (5270, 3520),
}
"""Bytecodes of a call that is alone, and of one of sixteen: five per cent above what was counted last."""


@frozen
class Function:
    """One function's part of a call."""

    file: str
    """Within the project, or within its library."""
    line: int
    name: str
    bytecodes: float
    entries: float
    """How often it is called or resumed."""

    @property
    def room(self) -> str:
        """Which part of the gateway it belongs to."""
        return next(room for room, pattern in ROOMS if re.search(pattern, self.file))


@frozen
class Count:
    """What one call comes to."""

    functions: Sequence[Function]

    @property
    def bytecodes(self) -> float:
        """Executed."""
        return sum(each.bytecodes for each in self.functions)

    @property
    def entries(self) -> float:
        """Functions entered or resumed."""
        return sum(each.entries for each in self.functions)

    def by_room(self) -> Mapping[str, float]:
        """Bytecodes of each part, most first."""
        found = Counter[str]()
        for each in self.functions:
            found[each.room] += each.bytecodes
        return dict(found.most_common())

    def by_file(self) -> Sequence[tuple[str, float, float]]:
        """Files with their bytecodes and entries, most first."""
        bytecodes, entries = Counter[str](), Counter[str]()
        for each in self.functions:
            bytecodes[each.file] += each.bytecodes
            entries[each.file] += each.entries
        return [(file, count, entries[file]) for file, count in bytecodes.most_common()]


@contextmanager
def counting(case: str) -> Iterator[Callable[[int, int], Count]]:
    """Start the gateway of a case; what it gives counts so many calls over so many connections, after a warm-up."""
    chain, _, era = case.rpartition("-")
    with (
        tempfile.TemporaryDirectory() as name,
        upstream() as port,
        gateway(COMMAND, configuration(chain, port), Path(name)) as found,
    ):
        request, told = found.request(chain, era), found.process.stdout
        assert told is not None

        def count(connections: int, calls: int = CALLS) -> Count:
            with closing(found.load(request, connections)) as load:
                load.call(WARM)
                found.process.send_signal(signal.SIGUSR1)
                told.readline()
                load.call(calls)
                found.process.send_signal(signal.SIGUSR1)
                lines = json.loads(told.readline())
            each = [
                Function(_short(file), line, name, bytecodes / calls, entries / calls)
                for file, line, name, bytecodes, entries in lines
            ]
            return Count(each)

        yield count


def _short(file: str) -> str:
    """Without the place where it is installed."""
    within = re.sub(r"^.*/(site-packages/|python3\.\d+/|(?=(pipeline|middlewares|transports)/))", "", file)
    return re.sub(r"^<attrs generated \w+ (?:sluiceway\.)?(.*)>$", r"<attrs of \1>", within)


def table(title: str, found: Count, *, files: int, functions: int) -> str:
    """Rooms, and so many files and functions, most first."""
    lines = [f"== {title}: {found.bytecodes:,.0f} bytecodes and {found.entries:.0f} function entries a call"]
    lines += [f"{count:8.0f}  {room}" for room, count in found.by_room().items()]
    if files:
        lines += ["by file: bytecodes, entries"]
        lines += [f"{count:8.1f} {entries:7.2f}  {file}" for file, count, entries in found.by_file()[:files]]
    if functions:
        lines += ["by function: bytecodes, entries"]
        most = sorted(found.functions, key=lambda each: -each.bytecodes)[:functions]
        lines += [f"{each.bytecodes:8.1f} {each.entries:7.2f}  {each.file}:{each.line} {each.name}" for each in most]
    return "\n".join(lines)


def main() -> int:
    """Count, print, and write it as JSON if asked; 1 if a call costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--connections", type=int, action="append", help="how many at the same time (1 and 16)")
    parser.add_argument("--files", type=int, default=0, help="show so many files")
    parser.add_argument("--functions", type=int, default=0, help="show so many functions")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of {', '.join(BOUNDS)}; all without")
    options = parser.parse_args()
    figures, bounds = {}, {}
    for case in options.cases or BOUNDS:
        with counting(case) as count:
            for connections in options.connections or CONNECTIONS:
                title, found = f"{case}, {connections}", count(connections, options.calls)
                print(table(title, found, files=options.files, functions=options.functions), flush=True)
                figures[f"{title}: bytecodes"], figures[f"{title}: entries"] = found.bytecodes, found.entries
                figures |= {f"{title}: {room}": part for room, part in found.by_room().items()}
                if connections in CONNECTIONS and sys.version_info[:2] == PYTHON:
                    bounds[f"{title}: bytecodes"] = float(BOUNDS[case][CONNECTIONS.index(connections)])
    print()
    return report(figures, bounds, options.json)


if __name__ == "__main__":
    sys.exit(main())
