"""
An upstream that is a child process of ours, spoken to over its standard input and output (MCP, transports, stdio).

Whose child: a legacy session has one of its own, because a legacy server keeps what a session said (capabilities,
subscriptions, log level) in the process; it lives from the session's `initialize` to the session's end. All modern
clients share one, because their requests carry everything. A server that locks to the era of its first message is
served by that as well.

When a child dies, what was in flight on it fails with the child's last words, and the next use of the shared child
starts a new one, after a pause if it comes too soon (restarts.py). Every death of the shared child counts for that; of
a session's only one before its first answer, for a client that crashes its own server must not take it from the others.
A session's handshake is not replayed to a new child: what the old one had promised (subscriptions,
tasks, answers half given) would be silently gone. The session ends with its child instead: its requests are answered
`SessionNotFound` (404 over HTTP), which tells a client to initialize again, and that starts a new child. The same holds
for a session whose child belonged to an earlier configuration.
"""

from __future__ import annotations

import contextvars
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.component import Context, Sink, sink
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.options import KIB, MIB, ConfigPath, Duration, Secret, Size, option
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    ConnectFailed,
    InvalidMessage,
    SessionNotFound,
    UnsupportedVersion,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import Json, Notification, Reply, Result
from sluiceway.pipeline.runtime.nursery import open_background_nursery

from .confinement import ConfineConfig, Lifetime, Walls
from .mirrors import Mirrors
from .multiplex import Multiplexer
from .outbox import Outbox
from .process import Process, Shim, Tail, child_environment, find_executable
from .restarts import RestartConfig
from .server_limits import LimitsConfig
from .stdio_child import Child
from .stdio_era import StdioEra
from .stdio_health import Health
from .stdio_probe import Probe, ProbeConfig

_LAST_ANSWERS_S: Final = 1.0
"""How long a session stays after its child died, so that the answers which say so can still leave through it."""


Spawn = Callable[..., Process]
"""Starts a process, as `Process.spawn` does."""


def _nothing() -> None:
    """There is no session to forget."""


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
        "makes the gateway ask, and clients of the other kind are refused.",
        example="legacy",
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
        self._health: Health | None = None
        self._env: dict[str, str] = {}
        self._walls = Walls((), Shim())
        self._secrets: list[str] = []
        self._nursery: trio.Nursery | None = None
        self._era = StdioEra(context.id, config.era)
        self._mirrors = Mirrors()
        self._children: dict[Session | None, Child] = {}
        self._running: set[Child] = set()

    @property
    def children(self) -> int:
        """Processes that run, those that are being stopped included."""
        return len(self._running)

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
        async with open_background_nursery() as nursery:
            self._nursery, self._health = nursery, Health(self.context, self._config.restart, nursery)
            try:
                yield
            finally:
                self._nursery = None
                self._health.close()
            for child in self._running:
                child.stop()
            for child in list(self._running):
                await child.ended.wait()

    async def __call__(self, exchange: Exchange) -> Reply:
        """
        Ask the caller's child, started if need be.

        Raises:
            ConnectFailed: The child could not be started.
            CapacityExceeded: `max_children`, `max_pending` or `max_unsent` is reached.
            InvalidMessage: A legacy client asks without a session.
            UnsupportedVersion: A modern client asks a server that speaks legacy revisions only.
            SessionNotFound: The session's child is gone, and the session with it.
            UpstreamFault: The child died, or answered with something that is not MCP.
        """
        session = exchange.client.session
        if exchange.kind is Kind.NOTIFY:
            await trio.lowlevel.checkpoint()
            self._notify(exchange.request, session)
            return Result()
        if exchange.client.era is Era.MODERN:
            return await self._serve_modern(exchange)
        if session is None:
            return await self._answer_stranger(exchange)
        if exchange.method == "initialize":
            self._era.check_handshake(exchange)
        return await self._ask(await self._child_of(session, exchange.method), exchange)

    async def act(self, action: str, arguments: Mapping[str, Json]) -> Json:
        """
        Stop all processes; returns how many. See `Component.act`.

        Raises:
            LookupError: It is not `restart`.
        """
        await trio.lowlevel.checkpoint()
        if action != "restart":
            return await super().act(action, arguments)
        running = [child for child in self._running if not child.is_ending]
        for child in running:
            child.stop()
        return {"stopped": len(running)}

    async def _serve_modern(self, exchange: Exchange) -> Reply:
        """
        Ask the child that all modern clients share.

        Raises:
            UnsupportedVersion: The server speaks legacy revisions only.
            HeaderMismatch: Headers of a call say something else than its arguments.
        """
        self._era.check(exchange)
        child = await self._shared_child()
        ask = partial(self._ask, child)
        try:
            await self._mirrors.check(exchange, partial(self._era.call, call=ask))
            reply = await self._era.call(exchange, ask)
        except UnsupportedVersion:
            if self._era.is_legacy and not child.connection.in_flight:
                child.stop()  # nobody can use it
            raise
        self._mirrors.learn(exchange, reply)
        return reply

    async def _ask(self, child: Child, exchange: Exchange) -> Reply:
        reply = await child.connection.call(exchange)
        assert self._health is not None
        self._health.answered(child)
        return reply

    def _notify(self, notification: object, session: Session | None) -> None:
        """Pass a notification on, if there is a child that it can mean anything to."""
        child = self._children.get(session)
        if child is not None and not child.is_ending:
            assert isinstance(notification, Notification)
            child.connection.notify(notification)

    async def _answer_stranger(self, exchange: Exchange) -> Reply:
        """A legacy client without a session has no child yet; all it may do is ping."""
        await trio.lowlevel.checkpoint()
        if exchange.method == "ping":
            return Result()
        raise InvalidMessage(f"{exchange.method} needs a session; send initialize first")

    async def _shared_child(self) -> Child:
        """The child of all modern clients; started, when it may be, if there is none."""
        while (child := self._children.get(None)) is None or child.is_ending:
            if not await self._admit():
                return self._start(None)
        return child

    async def _child_of(self, session: Session, method: str) -> Child:
        while (child := self._children.get(session)) is None and method == "initialize" and not session.closed:
            if not await self._admit():
                return self._start(session)
        if child is None or child.is_ending:
            raise SessionNotFound(f"{self.context.id}: the server of this session is gone; initialize again")
        return child

    async def _admit(self) -> bool:
        """See `Health.admit`."""
        if self._nursery is None or self._health is None:
            raise UpstreamUnavailable(f"{self.context.id}: is closed, and starts no more server processes")
        return await self._health.admit()

    def _start(self, session: Session | None) -> Child:
        """Start a child; only right after `_admit`, with no checkpoint between."""
        config, name = self._config, self.context.id
        assert self._nursery is not None
        assert self._health is not None
        if self.children >= config.max_children:
            raise CapacityExceeded(
                f"{name}: {config.max_children} server processes run already; raise max_children or end sessions"
            )
        try:
            command = (*self._walls.prefix, *config.command)
            process = self._spawn(command, cwd=config.cwd, env=self._env, shim=self._walls.shim)
        except OSError as error:
            self._health.died(f"cannot be started: {error.strerror}", 0.0)
            raise ConnectFailed(f"{name}: cannot start {config.command[0]!r}: {error.strerror}") from error
        self.context.log.info("server started", pid=process.pid, program=config.command[0])
        outbox = Outbox(config.max_unsent)
        child = Child(
            name,
            process,
            Multiplexer(
                name,
                outbox,
                self.context.log,
                session=session,
                max_pending=config.max_pending,
                spawn=self._spawn_apart,
                announce=self._heard,
            ),
            outbox,
            Tail(config.stderr_lines, self._secrets),
            graces_s=(config.stop_grace, config.kill_grace),
            max_message=config.max_message,
            idle_s=config.stop_when_idle if session is None else None,
            probe=config.probe and Probe(config.probe, Era.MODERN if session is None else Era.LEGACY),
            on_death=partial(self._note_death, session),
            on_noise=self._health.note_noise,
            log=self.context.log,
        )
        self._children[session] = child
        self._running.add(child)
        self._spawn_apart(self._host, child, session)
        return child

    def _spawn_apart(self, function: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task in a context of its own: what a child says must not be logged as said by whoever came first."""
        if self._nursery is not None:
            contextvars.Context().run(self._nursery.start_soon, function, *args)

    def _heard(self, notification: Notification) -> None:
        self._mirrors.heard(notification)
        self.context.changes.announce(self.context.id, notification)

    def _note_death(self, session: Session | None, child: Child) -> None:
        if self._health is not None and (session is None or not child.proven):
            self._health.died(child.end_text, trio.current_time() - child.started_at)

    async def _host(self, child: Child, session: Session | None) -> None:
        """The task of one child, and what its end means for the session that it belonged to."""
        forget = session.on_close(child.stop) if session is not None else _nothing
        try:
            await child.run()
        finally:
            forget()
            self._running.discard(child)
            if self._health is not None:
                self._health.forget(child)
            if self._children.get(session) is child:
                del self._children[session]
        if session is not None and not session.closed:
            await trio.sleep(_LAST_ANSWERS_S)
            session.close()

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
