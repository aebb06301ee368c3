"""
What a second worker brings: calls a second with one and with several, interleaved, on the cores of load and upstream.

    python bench/workers.py [--workers 2] [--rounds 4] [--seconds 3] [--connections 16 64] [--json FILE]

The chain is the full one of `bench/peers`. Rows: modern calls; a legacy session on all connections, of which those that
meet another worker are passed on. Calls a second say what a machine of these cores gives, and nothing of it if others
use it, too: so the processor time per call of all processes of the gateway stands beside them, and how connections were
spread. Needs what `bench/peers` has installed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import psutil
from figures import about_machine

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))

from gateways import FULL, HTTP, KEY, SLUICEWAY  # noqa: E402  # its folder is a program of its own
from load import Case, Sample, Target, fire, prepare  # noqa: E402
from running import WRK, cpu_seconds  # noqa: E402
from setup import ROOT, python_of  # noqa: E402

ALL = ",".join(map(str, sorted(psutil.Process().cpu_affinity())))
UPSTREAM, FIRST = 7960, 7961


class Gateway:
    """One that is up, of so many workers."""

    def __init__(self, workers: int, port: int, folder: Path) -> None:
        self.workers = workers
        self.target = Target(f"http://127.0.0.1:{port}/mcp", {"x-api-key": KEY})
        self.admin = folder / f"{port}.sock"
        config = folder / f"{port}.yaml"
        head = f'version: 1\nsources: {{web: {{http: {{bind: "127.0.0.1:{port}"}}}}}}\npipelines:\n  main:\n'
        text = (FULL + HTTP).format(auth=ROOT / "configs" / "auth", upstream=f"http://127.0.0.1:{UPSTREAM}/mcp")
        run = f"run: {{log_level: error, workers: {workers}, admin: {{bind: 'unix:{self.admin}'}}}}\n"
        config.write_text(head + text + run)
        self.process = subprocess.Popen([SLUICEWAY, "run", str(config)])
        self.folder = folder
        self.samples: dict[str, list[tuple[Sample, float]]] = {}
        while not self._is_ready():
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            address = self.target.url.replace("/mcp", "/readyz")
            with urllib.request.urlopen(address, timeout=5) as answer:  # only ever our own
                return bool(answer.status == 200)
        except OSError:
            return False

    def measure(self, case: Case, connections: int, seconds: int) -> None:
        """One sample of one row."""
        request = self.folder / f"{self.workers}-{case.file}"
        prepare(self.target, case, request)
        family = [self.process.pid, *(each.pid for each in psutil.Process(self.process.pid).children(recursive=True))]
        before = sum(map(cpu_seconds, family))
        sample = fire(WRK, self.target, request, connections=connections, seconds=seconds, cpu=ALL)
        spent = (sum(map(cpu_seconds, family)) - before) / sample.count * 1e6
        self.samples.setdefault(f"{case.name} c={connections}", []).append((sample, spent))

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()


@contextmanager
def upstream() -> Iterator[None]:
    """The server behind all of them."""
    command = [str(python_of("naive")), str(HERE / "peers" / "upstream.py"), str(UPSTREAM)]
    process = subprocess.Popen(command)
    try:
        time.sleep(1)
        yield
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cases = [Case("modern", "modern", text=96), Case("one legacy session", "legacy", text=96)]
    with tempfile.TemporaryDirectory() as name, upstream(), ExitStack() as stack:
        gateways = []
        for index, workers in enumerate((1, options.workers)):
            gateways.append(Gateway(workers, FIRST + index, Path(name)))
            stack.callback(gateways[-1].close)
        for _ in range(options.rounds):
            for case in cases:
                for connections in options.connections:
                    for gateway in gateways:
                        gateway.measure(case, connections, options.seconds)
    rows = {}
    print(f"{'':28}{'calls/s':>10}{'us CPU':>9}{'p50 ms':>9}{'p99 ms':>9}{'failed':>8}   ratio")
    for row in gateways[0].samples:
        one = 0.0
        for gateway in gateways:
            samples = gateway.samples[row]
            rate, spent = (median(values) for values in zip(*((s.rate, cpu) for s, cpu in samples), strict=True))
            p50, p99 = median(s.p50 for s, _ in samples) / 1000, median(s.p99 for s, _ in samples) / 1000
            failed, one = sum(s.failed for s, _ in samples), one or rate
            label = f"{row}, {gateway.workers} worker{'s' if gateway.workers > 1 else ''}"
            print(f"{label:40}{rate:8.0f}{spent:9.0f}{p50:9.2f}{p99:9.2f}{failed:8}   {rate / one:.2f}")
            rows[label] = {"rate": rate, "cpu_us": spent, "p50_ms": p50, "p99_ms": p99, "failed": failed}
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": about_machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
