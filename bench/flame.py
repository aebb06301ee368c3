"""
Where the time of a gateway under load goes: a flame graph, and shares of layers.

    python bench/flame.py [--chain bare|full] [--to http|stdio] [--seconds 10] [--connections 16]

The sampling profiler is py-spy, got from PyPI by its name into `.bench/`; it looks at the gateway's process from
outside, which needs root or `kernel.yama.ptrace_scope=0`. The gateway has CPU 0, wrk and the upstream have CPU 1. A
sample belongs to the layer of its innermost frame of ours or of a library; one whose line calls the system (a read, a
write, a wait for events) is counted as that. Into `.bench/profile/` go `flame.svg`, `stacks.txt` (folded) and
`summary.txt`.
"""

from __future__ import annotations

import argparse
import linecache
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
from gateways import BARE, FULL, HTTP, KEY, STDIO_SINK, Gateway, sluiceway
from load import HERE, Case
from running import LOAD_CPU, WRK, Running, await_port, bring_up, free_port, start
from setup import FOLDER, ROOT, install, python_of

PLACE = FOLDER / "profile"
RATE = 250
"""Samples a second."""
_CASES = {era: Case(f"{era}, 200 bytes", era, text=96) for era in ("modern", "legacy")}
_CALL = re.compile(
    r"\bos\.(read|write|writev)\(|\.(send|sendmsg|recv|recv_into|poll|epoll_ctl|register|modify)\(|_(send|recv|read|write)\("
)
_FRAME = re.compile(r"^(?P<function>.*) \((?P<file>.+):(?P<line>\d+)\)$")
LAYERS = (
    ("http in", r"transports/(http_source|eras)/|transports/(acceptor|listening|kept_tasks)"),
    ("sockets: wires and the reactor", r"transports/(wire|reactor|tcp)"),
    ("http out", r"transports/(http_client|http_upstream|translation)/|transports/http_sink"),
    ("stdio and other multiplexed sinks", r"transports/(multiplex|lines|stdio|process|outbox|websocket)"),
    ("gate and codec", r"pipeline/protocol/"),
    ("exchange: admission, deadline, chain", r"pipeline/(runtime|model)/"),
    ("stages", r"middlewares/"),
    ("telemetry and stores", r"pipeline/(telemetry|stores)/"),
    ("Trio", r"(^|/)(trio|outcome)/"),
    ("the rest of ours", r"(^|/)(pipeline|middlewares|transports)/"),
    ("attrs, msgspec and other libraries", r"."),
)
SYSTEM = "system calls"


def profiler() -> Path:
    """py-spy, in an environment of its own."""
    folder = FOLDER / "py-spy"
    if not (folder / "bin" / "py-spy").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "py-spy"], check=True)
    return folder / "bin" / "py-spy"


def layer_of(frame: str) -> str:
    """To which layer a sample belongs that ends in this frame."""
    found = _FRAME.match(frame)
    if found is None:
        return LAYERS[-1][0]
    line = linecache.getline(str(_source(found["file"])), int(found["line"]))
    if _CALL.search(line):
        return SYSTEM
    return next(name for name, pattern in LAYERS if re.search(pattern, found["file"]))


def _source(name: str) -> Path:
    """py-spy shortens names to what stands behind an entry of the path."""
    places = [ROOT, *(Path(each) for each in sys.path if each)]
    return next((place / name for place in places if (place / name).exists()), Path(name))


def stacks(path: Path) -> Iterator[tuple[list[str], int]]:
    """Folded stacks, outermost frame first, and how often each was seen."""
    for line in path.read_text().splitlines():
        frames, _, count = line.rpartition(" ")
        yield frames.split(";"), int(count)


def summary(path: Path, most: int = 25) -> str:
    """Shares of layers, and the functions with most time: by themselves, and with all that they call."""
    total, layers = 0, Counter[str]()
    own, inclusive = Counter[str](), Counter[str]()
    for frames, count in stacks(path):
        total += count
        layers[layer_of(frames[-1])] += count
        names = [re.sub(r":\d+\)$", ")", frame) for frame in frames]
        own[names[-1]] += count
        for name in set(names):
            inclusive[name] += count
    lines = [f"{total} samples at {RATE} a second", "", "by layer"]
    for title, counted in (("", layers), ("by function, itself", own), ("by function, with what it calls", inclusive)):
        lines += ["", title] if title else []
        lines += [f"{count / total:7.1%}  {name}" for name, count in counted.most_common(most)]
    return "\n".join(lines)


def record(running: Running, case: Case, options: argparse.Namespace) -> Sequence[Path]:
    """Load, and samples of it: once as a picture, once as stacks."""
    assert running.process is not None
    PLACE.mkdir(parents=True, exist_ok=True)
    made = {"flamegraph": PLACE / "flame.svg", "raw": PLACE / "stacks.txt"}
    for form, path in made.items():
        load = subprocess.Popen(
            ["taskset", "-c", LOAD_CPU, *WRK, "-t1", f"-c{options.connections}", f"-d{options.seconds + 3}s", "-s",
             str(HERE / "call.lua"), running.target.url],
            env={"BENCH_REQUEST": str(running.request(case))}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(1)
        told = ["-d", str(options.seconds), "-r", str(RATE), "-f", form, "-o", str(path)]
        subprocess.run(
            [str(profiler()), "record", *told, "-p", str(running.process.pid)], check=True, stdout=subprocess.DEVNULL
        )
        load.wait()
    return list(made.values())


def main() -> int:
    """Start, load, look, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--chain", choices=["bare", "full"], default="full")
    parser.add_argument("--to", choices=["http", "stdio"], default="http")
    parser.add_argument("--era", choices=["modern", "legacy"], default="modern")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    for missing in install(("debian", "naive")):
        print(f"left out: {missing}", file=sys.stderr)
    chain, sink = {"bare": BARE, "full": FULL}[options.chain], {"http": HTTP, "stdio": STDIO_SINK}[options.to]
    gateway = Gateway("sluiceway", sluiceway(chain, sink), eras=(options.era,), headers={"x-api-key": KEY})
    case = _CASES[options.era]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        command = [str(python_of("naive")), str(HERE / "upstream.py"), str(port)]
        await_port(port, start(stack, command, cpu=LOAD_CPU, log=folder / "upstream.log"))
        running = bring_up(stack, gateway, f"http://127.0.0.1:{port}/mcp", folder, case)
        picture, folded = record(running, case, options)
    text = (
        f"{options.chain} chain, {options.era}, to {options.to}, {options.connections} connections: {summary(folded)}"
    )
    (PLACE / "summary.txt").write_text(text + "\n")
    print(f"{text}\n\n{picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
