"""Options whose effect is on sockets, child processes and the process itself."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
import trio

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.protocol.errors import UpstreamClosed
from sluiceway.pipeline.runtime.serve import serve
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.http_source.config import HttpConfig
from sluiceway.transports.http_source.endpoint import Endpoint
from sluiceway.transports.http_source.source import HttpSource
from sluiceway.transports.stdio_sink import StdioSink, StdioSinkConfig

MAIN = "import sys; from sluiceway.pipeline.cli import main; sys.exit(main())"


async def _listening(**options):
    """Where a source with these options listens, and what its socket was told about unread bytes."""
    source = HttpSource(HttpConfig(**options), Context(id="public"))
    async with source.open():
        assert source.server is not None
        [listener] = source.server._listening._sockets
        stall_ms = 0
        if listener.family != socket.AF_UNIX:
            stall_ms = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        return source.addresses, stall_ms


async def test_bind_says_where_the_http_source_listens(tmp_path):
    """A TCP address, or a Unix socket."""
    (tcp,), _ = await _listening(bind="127.0.0.1:0")
    unix, _ = await _listening(bind=f"unix:{tmp_path}/gateway.sock")

    assert tcp.startswith("127.0.0.1:")
    assert unix == (f"unix:{tmp_path}/gateway.sock",)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the option works on Linux only")
async def test_stall_timeout_is_the_kernels_to_keep():
    """The listening socket hands it on to every connection (tcp(7), TCP_USER_TIMEOUT)."""
    _, stall_ms = await _listening(bind="127.0.0.1:0", stall_timeout=2.5)

    assert stall_ms == 2500


@pytest.mark.parametrize("aliases", [False, True])
def test_aliases_are_paths_of_their_own(aliases):
    """Off by default; on, methods have paths."""
    endpoint = Endpoint(HttpConfig(aliases=aliases), lambda: True)

    assert [endpoint.serves(path) for path in ("/mcp", "/tools/call", "/mcp/stream")] == [True, aliases, aliases]


@pytest.mark.parametrize(("stderr_lines", "quoted"), [(1, ["three"]), (2, ["two", "three"])])
async def test_stderr_lines_of_a_child_are_its_last_words(stderr_lines, quoted):
    """The error of a call whose child died quotes so many lines of what it wrote."""
    script = "import sys; sys.stderr.write('one\\ntwo\\nthree\\n'); sys.stdin.readline(); sys.exit(3)"
    config = StdioSinkConfig(command=(sys.executable, "-c", script), stderr_lines=stderr_lines)
    sink = StdioSink(config, Context(id="child"))
    async with sink.open():
        with trio.fail_after(20), pytest.raises(UpstreamClosed) as caught:
            await sink(memory_exchange("tools/list"))

    told = str(caught.value) + json.dumps(dict(caught.value.data))
    assert [line for line in ("one", "two", "three") if line in told] == quoted


def _gateway(**run):
    return {
        "version": 1,
        "sources": {"public": {"http": {"bind": "127.0.0.1:0"}}},
        "pipelines": {"main": {}},
        "sinks": {"demo": {"embedded": {}}},
        "run": run,
    }


async def test_admin_serves_status_where_bind_says_and_for_its_token(tmp_path, monkeypatch):
    """`run.admin` opens a listener at `bind`, and status is told to those who have the token."""
    monkeypatch.setenv("ADMIN_TOKEN", "s3cret")
    admin = {"bind": f"unix:{tmp_path}/admin.sock", "token": {"from_env": "ADMIN_TOKEN"}}
    ready = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve(lambda: from_data(_gateway(admin=admin)), ready=lambda _: ready.set()))
        with trio.fail_after(20):
            await ready.wait()
            transport = httpx2.AsyncHTTPTransport(uds=f"{tmp_path}/admin.sock")
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
                without = await client.get("/-/status")
                with_token = await client.get("/-/status", headers={"authorization": "Bearer s3cret"})
        nursery.cancel_scope.cancel()

    assert (without.status_code, with_token.status_code) == (401, 200)
    assert with_token.json()["ready"] is True


def _dry_run(folder: Path, log_level: str, log_format: str) -> list[str]:
    """The log lines of a gateway that starts and stops."""
    path = folder / "gateway.yaml"
    path.write_text(json.dumps(_gateway(log_level=log_level, log_format=log_format)), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "run", str(path), "--dry-run"],
        capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    return [line for line in done.stderr.splitlines() if "gateway ready" in line]


@pytest.mark.real
def test_log_level_and_log_format_shape_what_is_written(tmp_path):
    """JSON for machines, text for people, and nothing below the level."""
    [as_json] = _dry_run(tmp_path, log_level="info", log_format="json")
    [as_text] = _dry_run(tmp_path, log_level="info", log_format="text")

    assert json.loads(as_json)["event"] == "gateway ready"
    assert not as_text.startswith("{")
    assert _dry_run(tmp_path, log_level="error", log_format="json") == []
