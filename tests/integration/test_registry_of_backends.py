"""Upstreams come and go while a gateway serves: its clients are told, and ask again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from sluiceway.pipeline.client.handlers import Handlers
from sluiceway.pipeline.client.http import open_http_client
from sluiceway.pipeline.client.stdio import open_stdio_client
from sluiceway.pipeline.config import load_text
from sluiceway.pipeline.protocol.messages import Notification
from sluiceway.pipeline.runtime.engine import Engine

CONFIG = """\
version: 1
sources:
  local: {http: {bind: "127.0.0.1:0"}, pipeline: main}
pipelines:
  main: {sink: demo}
sinks:
  demo: {embedded: {}}
"""
CHANGED = [f"notifications/{name}/list_changed" for name in ("tools", "resources", "prompts")]


class Ear:
    """Hears what no request caused."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._new = trio.Event()

    @property
    def handlers(self) -> Handlers:
        """For a client."""
        return Handlers(notification=self.hear)

    async def hear(self, notification: Notification) -> None:
        """Take a notification."""
        await trio.lowlevel.checkpoint()
        self.heard.append(notification.method)
        self._new.set()
        self._new = trio.Event()

    async def wait_for(self, wanted: list[str]) -> None:
        """Wait until these were heard, in this order, and nothing else."""
        with trio.fail_after(10):
            while self.heard != wanted:
                await self._new.wait()


async def test_a_legacy_session_over_http_hears_that_its_lists_changed() -> None:
    """After a reload that changed a sink, and not after one that did not."""
    ear, document = Ear(), load_text(CONFIG)
    async with Engine(document).running() as engine:
        source: Any = engine.sources["local"]
        async with open_http_client(source.urls[0], era="legacy", handlers=ear.handlers) as client:
            await engine.reload(attrs.evolve(document))
            assert await client.list_tools()
            assert ear.heard == []

            await engine.reload(load_text(CONFIG.replace("demo: {embedded", "demo: {required: false, embedded")))
            await ear.wait_for(CHANGED)

            assert await client.list_tools()

        # a session that has ended is not told, and not kept
        assert len(engine._sessions) == 0
        await engine.reload(document)


async def test_a_modern_listener_ends_well_at_a_reload() -> None:
    """With a result, not an error: its client listens again, and reads the lists anew."""
    document = load_text(CONFIG)
    replies: list[Any] = []
    async with Engine(document).running() as engine, trio.open_nursery() as nursery:
        source: Any = engine.sources["local"]

        async def listen() -> None:
            async with open_http_client(source.urls[0], era="modern") as client:
                params = {"notifications": {"toolsListChanged": True}}
                replies.append(await client.exchange("subscriptions/listen", params))

        nursery.start_soon(listen)
        with trio.fail_after(10):
            while not engine.pipelines["main"].listeners.in_flight:  # noqa: ASYNC110  # nobody tells
                await trio.sleep(0.01)
            await engine.reload(load_text(CONFIG.replace("demo: {embedded", "demo: {required: false, embedded")))

    assert "Result" == type(replies[0]).__name__


@pytest.mark.parametrize("change", ["added", "removed"])
async def test_a_file_in_a_watched_folder_is_a_backend(tmp_path: Path, change: str) -> None:
    """Over stdio, in a process of its own: a client is told when a file comes into the folder, or leaves it."""
    (tmp_path / "sinks").mkdir()
    (tmp_path / "sinks/demo.yaml").write_text("sinks: {demo: {embedded: {}}}\n")
    extra = tmp_path / "sinks/extra.yaml"
    backend = "sinks: {extra: {embedded: {}}}\n"
    if change == "removed":
        extra.write_text(backend)
    main = tmp_path / "main.yaml"
    main.write_text('version: 1\ninclude: ["sinks/*.yaml"]\n' + CONFIG.partition("sinks:")[0].partition("\n")[2])
    program = "import sys; from sluiceway.pipeline.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "run", str(main), "--stdio", "--watch"]
    ear = Ear()
    with (tmp_path / "log").open("wb") as log, trio.fail_after(20):
        async with open_stdio_client(command, era="legacy", handlers=ear.handlers, stderr=log) as client:
            if change == "added":
                extra.write_text(backend)
            else:
                extra.unlink()
            await ear.wait_for(CHANGED)

            assert await client.list_tools()
