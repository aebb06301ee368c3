"""
An upstream that is a child process of ours, spoken to over its standard input and output (MCP, transports, stdio).

Each child is a line (lines.py): a legacy session has one of its own, all modern clients share one. A server that locks
to the era of its first message is served by that as well. When a child dies, what was in flight on it fails with the
child's last words. A session whose child belonged to an earlier configuration has none any more.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.component import Context, Sink, sink
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import KIB, MIB, ConfigPath, Duration, Secret, Size, option
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.errors import ConnectFailed
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import Json, Reply

from .confinement import ConfineConfig, Lifetime, Walls
from .lines import Lines
from .outbox import Outbox
from .process import Process, Shim, Tail, child_environment, find_executable
from .restarts import RestartConfig
from .server_limits import LimitsConfig
from .stdio_child import Child
from .stdio_probe import Probe, ProbeConfig
from .translation.config import TranslationConfig
from .translation.losses import remarks
from .translation.translator import Translator

Spawn = Callable[..., Process]
"""Starts a process, as `Process.spawn` does."""


@final
@frozen
class StdioSinkConfig:
    """Options of the `stdio` sink."""

    command: tuple[str, ...] = option(
        doc="The server's command line as a list: a program and its arguments. No shell is involved.",
        example=["npx", "-y", "@modelcontextprotocol/server-everything", "stdio"],
    )
    cwd: ConfigPath | None = option(
        None, doc="Directory the server runs in; the gateway's own when absent.", example="./docs"
    )
    env: Mapping[str, str | Secret] = option(
        factory=dict,
        doc="Variables for the server. It inherits only PATH, HOME, LANG, LC_*, TZ, TMPDIR, USER and a few like them.",
        example={"API_KEY": {"from_env": "SEARCH_API_KEY"}},
    )
    era: Literal["auto", "legacy", "modern"] = option(
        "auto",
        doc="Which revisions of MCP the server speaks: those with a handshake (`legacy`, up to 2025-11-25), those "
        "without (`modern`, from 2026-07-28), or whichever it turns out to (`auto`): a modern client's first request "
        "makes the gateway ask. See `translate` for clients of the other kind.",
        example="legacy",
    )
    translate: bool = option(
        True,
        doc="Whether clients of revisions that the upstream does not speak are served by translating; else they are "
        "refused. What is lost in translation: docs/eras.md.",
    )
    translation: TranslationConfig = option(
        factory=TranslationConfig,
        doc="What is held at an upstream with handshakes for clients that know none.",
        example={"park_timeout": "2m"},
    )
    stop_grace: Duration = option(
        2.0, ge=0, doc="Time between closing the server's input and SIGTERM to its process group.", example="2s"
    )
    kill_grace: Duration = option(
        5.0, ge=0, doc="Time between SIGTERM and SIGKILL. The supervisor's stop_timeout may cut it short.", example="5s"
    )
    max_message: Size = option(
        10 * MIB, ge=1 * KIB, doc="Longest message the server may send; a longer one is cut off.", example="10MiB"
    )
    max_pending: int = option(
        1000, ge=1, doc="Requests to one child that may wait for a reply; above this they are refused.", example=1000
    )
    max_unsent: Size = option(
        16 * MIB, ge=1 * KIB, doc="Bytes that may wait to be read by one child; above this requests are refused.",
        example="16MiB",
    )  # fmt: skip
    max_children: int = option(
        64, ge=1, doc="Children at the same time: one for each legacy session, one for all modern clients.", example=64
    )
    restart: RestartConfig = option(
        factory=RestartConfig,
        doc="When a server that died is started again: after up to 1, 2, 4 .. 60 s, and not at all while quarantined.",
        example={"max": 5, "within": "60s"},
    )
    stop_when_idle: Duration | None = option(
        None, gt=0, doc="Stop the child that all modern clients share when nobody has used it for so long; "
        "the next call starts it again. A session's child stays until its session ends.", example="10m",
    )  # fmt: skip
    probe: ProbeConfig | None = option(
        None, doc="Replace a server that runs and says nothing while somebody waits for it.", example={"every": "30s"}
    )
    lifetime: Lifetime = option(
        "auto",
        doc="What ends a server when the gateway is killed: a `shim` that watches it, `bubblewrap` with process ids of "
        "its own, or nothing (`plain`). `auto` is bubblewrap for what is confined, and the shim otherwise.",
        example="shim",
    )
    limits: LimitsConfig = option(
        factory=LimitsConfig, doc="What one process of a server may use.", example={"memory": "2GiB"}
    )
    confine: ConfineConfig | None = option(
        None,
        doc="Keep the server from most of the machine: but for `user` alone, only `writable_paths` and a `/tmp` of its "
        "own can be written. Needs bubblewrap; if it cannot be had, the sink does not open.",
        example={"no_network": True, "writable_paths": ["./data"]},
    )
    stderr_lines: int = option(
        20, ge=1, doc="Last lines of a child's standard error that are quoted when it dies.", example=20
    )


@final
@sink("stdio")
class StdioSink(Sink):
    """Speak to a server that runs as a child process."""

    Config = StdioSinkConfig
    actions = MappingProxyType(
        {"restart": "Stop its processes, politely; the next call starts one, and sessions end with theirs."}
    )

    def __init__(self, config: StdioSinkConfig, context: Context, *, spawn: Spawn = Process.spawn) -> None:
        """Pure. `spawn` starts a process; tests have one that does not."""
        super().__init__(config, context)
        self._config = config
        self._spawn = spawn
        self._env: dict[str, str] = {}
        self._walls = Walls((), Shim())
        self._secrets: list[str] = []
        self._lines: Lines[Child] = Lines(
            context, self._start, era=config.era, restart=config.restart, max_lines=config.max_children,
            option="max_children", noun="server process",
        )  # fmt: skip
        self._translator = Translator(self._lines, context, translate=config.translate, config=config.translation)

    @property
    def children(self) -> int:
        """Processes that run, those that are being stopped included."""
        return len(self._lines)

    @classmethod
    def remarks(cls, config: StdioSinkConfig) -> Iterator[str]:
        """Whom it serves by translating."""
        return remarks(config.era, config.translate)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Check that the command exists; children are started by those who need them.

        Raises:
            ConnectFailed: There is no such command or directory, or limits or confinement cannot be had.
            LookupError: A secret of `env` cannot be resolved.
        """
        self._resolve_env()
        self._check_command()
        config = self._config
        self._walls = Walls.build(config.lifetime, config.confine, config.limits.rlimits(), config.command[0])
        await self._walls.check(config.cwd, self._env)
        async with self._lines.open(), self._translator.open():
            yield

    def figures(self) -> Iterator[Figure]:
        """Its children, what was asked of them, and what is translated for clients of the other era."""
        yield Figure("stdio_children", self.children, "gauge", "Child processes, those that are ending included.")
        yield from self._lines.figures()
        yield from self._translator.figures()

    def details(self) -> Mapping[str, Json]:
        """Each child, with what it holds of a line that has not ended; and for whom it translates."""
        children = sorted((child.details() for child in self._lines.running), key=lambda each: each["pid"])
        return {"children": children, **self._translator.details()}

    def __call__(self, exchange: Exchange) -> Coroutine[Any, Any, Reply]:
        """When awaited, ask the caller's child, started if need be. Raises as `Lines` does."""
        if exchange.client.era is Era.MODERN and self._lines.is_modern:  # then nothing is translated
            return self._lines(exchange)
        return self._translator(exchange)

    async def act(self, action: str, arguments: Mapping[str, Json]) -> Json:
        """
        Stop all processes; returns how many. See `Component.act`.

        Raises:
            LookupError: It is not `restart`.
        """
        await trio.lowlevel.checkpoint()
        if action != "restart":
            return await super().act(action, arguments)
        return {"stopped": self._lines.stop()}

    def _start(self, session: Session | None) -> Child:
        config, name, health = self._config, self.context.id, self._lines.health
        assert health is not None
        try:
            command = (*self._walls.prefix, *config.command)
            process = self._spawn(command, cwd=config.cwd, env=self._env, shim=self._walls.shim)
        except OSError as error:
            health.died(f"cannot be started: {error.strerror}", 0.0)
            raise ConnectFailed(f"{name}: cannot start {config.command[0]!r}: {error.strerror}") from error
        self.context.log.info("server started", pid=process.pid, program=config.command[0])
        outbox = Outbox(config.max_unsent, process.stdin.send_nowait)
        return Child(
            name,
            process,
            self._lines.connection(session, outbox, config.max_pending),
            outbox,
            Tail(config.stderr_lines, self._secrets),
            graces_s=(config.stop_grace, config.kill_grace),
            max_message=config.max_message,
            idle_s=config.stop_when_idle if session is None else None,
            probe=config.probe and Probe(config.probe, Era.MODERN if session is None else Era.LEGACY),
            on_death=partial(self._lines.note_loss, session),
            on_noise=health.note_noise,
            log=self.context.log,
        )

    def _resolve_env(self) -> None:
        declared: dict[str, str] = {}
        for key, value in self._config.env.items():
            if isinstance(value, Secret):
                declared[key] = value.resolve()
                self._secrets.append(declared[key])
            else:
                declared[key] = value
        self._env = child_environment(os.environ, declared)

    def _check_command(self) -> None:
        config = self._config
        if not config.command:
            raise ConnectFailed("command is empty; it needs at least a program")
        cwd = None if config.cwd is None else Path(config.cwd)
        if cwd is not None and not cwd.is_dir():
            raise ConnectFailed(f"cwd {str(cwd)!r} is not a directory")
        if find_executable(config.command[0], cwd=cwd, path=self._env.get("PATH")) is None:
            raise ConnectFailed(
                f"command {config.command[0]!r} was not found; install it, or give its full path "
                f"(PATH is {self._env.get('PATH', 'not set')})"
            )
