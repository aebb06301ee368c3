"""Case 39 of the reliability table: a gateway is killed under load, and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h11
import psutil
import pytest
import trio

COMMAND = [sys.executable, "-c", "from sluiceway.pipeline.cli import main; import sys; sys.exit(main())", "run"]


@contextmanager
def running(config: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`sluiceway run`; yields the process and its port once it is ready."""
    process = subprocess.Popen([*COMMAND, str(config)], stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        events = (json.loads(line) for line in process.stderr if line.startswith(b"{"))
        ready = next(event for event in events if event["event"] == "gateway ready")
        yield process, int(ready["web"][0].rpartition(":")[2].removesuffix("/mcp"))
    finally:
        process.terminate()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


async def gone(processes: list[psutil.Process]) -> None:
    """Wait until they are, or are zombies that somebody else has to reap."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110  # nobody tells
                await trio.sleep(0.01)


@pytest.mark.real
@pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
async def test_a_gateway_that_is_killed_under_load_can_be_started_again(
    world: Any, peer: Any, modern: bool, tmp_path: Path
) -> None:
    """No child is left, the port can be bound at once, and clients are served as soon as they come back."""
    config = tmp_path / "gateway.yaml"
    with trio.fail_after(50):
        async with world("route-stdio", modern=modern) as around:
            config.write_text(json.dumps(around.data(run={"log_level": "info"})))
            answered = 0

            async def load(port: int) -> None:
                nonlocal answered
                client = peer(port, modern=modern, prefix=around.prefix)
                with suppress(OSError, trio.BrokenResourceError, h11.RemoteProtocolError, TypeError):  # all ways to end
                    await client.start()
                    while True:
                        await client.ask("echo", text="x")
                        answered += 1

            with running(config) as (process, port):
                async with trio.open_nursery() as nursery:
                    for _ in range(4):
                        nursery.start_soon(load, port)
                    await around.book.wait_for(40, what="request", name="echo")
                    family = psutil.Process(process.pid).children(recursive=True)
                    process.send_signal(signal.SIGKILL)
                process.wait()
            await gone(family)

            assert len(family) >= (2 if modern else 8)  # a shim and a server for each
            assert answered > 0
            data = around.data(run={"log_level": "info"})
            data["sources"]["web"]["http"]["bind"] = f"127.0.0.1:{port}"
            config.write_text(json.dumps(data))
            with running(config) as (_, again):
                client = peer(again, modern=modern, prefix=around.prefix)
                await client.start()
                assert await client.ask("echo", text="next") == "next"
                await client.leave()

    assert again == port
