"""
How long it takes from a client that gives up to an upstream that knows: goal R5, at most 100 ms for 99 of 100.

    python bench/cancel.py --json bench/results/cancel.json

A gateway in a process of its own, between this process, which is clients and HTTP upstreams, and scripted children:
the upstreams and clients of the lifecycle tests. Time runs from just before the client closes its stream (modern), or
connects to send its cancel notice (legacy), until what the upstream saw is known here, which for a child is another
hop over a socket. `busy` is the same while eight other clients call fifty times a second each. `via` something is two
gateways in front of a child, one after the other, with that between them: what it takes is the sum of both.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import trio
from figures import report

ROOT = Path(__file__).resolve().parent.parent
SINKS = ("stdio", "http", "route-stdio", "route-http")
VIA = ("http2", "sse", "websocket")
GOAL_MS = 100.0
BUSY = 8
PAUSE_S = 0.02
COMMAND = [sys.executable, "-c", "from sluiceway.pipeline.cli import main; main()", "run"]


def kit():
    """The clients and upstreams of the lifecycle tests."""
    path = ROOT / "tests" / "integration" / "lifecycle" / "conftest.py"
    spec = importlib.util.spec_from_file_location("lifecycle_kit", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def gateway(data, folder: Path):
    """`sluiceway run` in a process of its own; yields its port."""
    config = folder / "gateway.yaml"
    config.write_text(json.dumps({**data, "run": {"log_level": "info", "drain_timeout": "100ms"}}))
    with subprocess.Popen([*COMMAND, str(config)], stderr=subprocess.PIPE) as process:
        ready = next(line for line in process.stderr if b"gateway ready" in line)
        sink = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)  # nobody else reads the log
        try:
            yield int(json.loads(ready)["web"][0].rpartition(":")[2].removesuffix("/mcp"))
        finally:
            process.terminate()
            process.wait()
            sink.wait()


async def one(world, client, number: int) -> float:
    """Cancel one call; returns the milliseconds until the upstream knew."""
    book = world.book
    book.seen.clear()
    call = await client.call("hang", token=number)
    request = await book.wait_for(what="request", name="hang")
    await call.started()
    start = time.perf_counter()
    if world.modern:
        await call.leave()
    else:
        await client.notify("notifications/cancelled", requestId=call.id)
    await world.told_to_stop(request)
    took = (book.at - start) * 1e3
    if not world.modern:
        await call.leave()
    return took


def certificate(folder: Path):
    """A certificate for this machine, which is its own authority; as options of a source."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return {"cert": str(cert), "key": str(key)}


def two(data, via: str, folder: Path, stack: ExitStack) -> int:
    """A gateway of this configuration, and another in front of it; returns the port of the latter."""
    if via == "http2":
        data["sources"]["web"]["http"]["tls"] = certificate(folder)
    elif via == "sse":
        data["sources"]["web"]["http"]["sse"] = {}
    else:
        data["sources"]["web"]["http"]["websocket"] = {"path": "/ws"}
    (folder / "behind").mkdir()
    port = stack.enter_context(gateway(data, folder / "behind"))
    sink = {
        "http2": {
            "http": {"url": f"https://127.0.0.1:{port}/mcp", "http2": "always", "tls": {"ca": f"{folder}/cert.pem"}}
        },
        "sse": {"sse": {"url": f"http://127.0.0.1:{port}/sse"}},
        "websocket": {"websocket": {"url": f"ws://127.0.0.1:{port}/ws"}},
    }[via]
    front = {
        "version": 1,
        "sources": {"web": {"http": {"bind": "127.0.0.1:0"}}},
        "pipelines": {"main": {"chain": ["request_id"], "sink": "up"}},
        "sinks": {"up": sink},
    }
    return stack.enter_context(gateway(front, folder))


async def measure(tools, sink: str, *, modern: bool, busy: bool, calls: int) -> list[float]:
    """The milliseconds of so many calls, sorted."""
    _, _, via = sink.partition("via ")

    class TimedBook(tools.Book):
        at = 0.0

        def add(self, entry):
            if entry["what"] in ("closed", "notice"):
                self.at = time.perf_counter()
            super().add(entry)

    tools.Book = TimedBook
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        world_of = tools.open_world("stdio" if via else sink, modern=modern, folder=where)
        async with world_of as world, trio.open_nursery() as nursery:
            with ExitStack() as stack:
                data = world.data()
                port = two(data, via, where, stack) if via else stack.enter_context(gateway(data, where))

                async def keep_calling(client) -> None:
                    while True:
                        await client.ask("echo")
                        await trio.sleep(PAUSE_S)

                clients = [tools.Peer(port, modern=modern, prefix=world.prefix) for _ in range(1 + BUSY * busy)]
                for client in clients:
                    await client.start()
                    await client.ask("echo")
                for client in clients[1:]:
                    nursery.start_soon(keep_calling, client)
                took = [await one(world, clients[0], number) for number in range(calls)]
                nursery.cancel_scope.cancel()
    return sorted(took)


def main() -> int:
    """Measure every sink in both eras; 1 if the goal is missed anywhere."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--calls", type=int, default=300)
    options = parser.parse_args()
    tools, figures = kit(), {}
    plain = tools.Book
    for busy in (False, True):
        for sink in (*SINKS, *(f"via {each}" for each in VIA)):
            for modern in (False, True):
                if (sink, modern) == ("via sse", True):
                    continue  # that transport has no revision without handshakes
                tools.Book = plain
                took = trio.run(partial(measure, tools, sink, modern=modern, busy=busy, calls=options.calls))
                name = f"{sink}, {'modern' if modern else 'legacy'}{', busy' if busy else ''}"
                figures[f"{name}: p50, ms"] = took[len(took) // 2]
                figures[f"{name}: p99, ms"] = took[int(len(took) * 0.99)]
    bounds = {name: GOAL_MS for name in figures if "p99" in name}
    return report(figures, bounds, options.json)


if __name__ == "__main__":
    sys.exit(main())
