"""Sink `embedded`: an MCP server made of Python functions, inside the gateway's own process."""

from __future__ import annotations

import hashlib
import importlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.component import Context, Sink, sink
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.options import MINUTE, Duration, Secret, option
from sluiceway.pipeline.model.worker import key_of_run
from sluiceway.pipeline.protocol.errors import ComponentError, UpstreamUnavailable
from sluiceway.pipeline.protocol.messages import Reply
from sluiceway.pipeline.runtime.nursery import open_background_nursery

from .dispatch import answer
from .drains import Drains
from .mrtr import Sealer
from .runtime import FEATURES, Feature, Runtime
from .server import Server
from .subscriptions import Hub

BUILT_IN: Final = {"demo": "sluiceway.transports.embedded.demo:build"}
"""Servers that come with Sluiceway, by the name `server:` knows them by."""


@final
@sink("embedded")
class EmbeddedSink(Sink):
    """
    Answers exchanges with a `Server` of the kit, in both protocol eras.

    `EmbeddedSink.serving(server)` makes one around a server object in Python.
    """

    in_process = True

    @frozen(kw_only=True)
    class Config:
        """Options of the sink."""

        server: str = option(
            "demo",
            doc="The server: `module:attribute` of a `Server` or of a function that makes one, or `demo`.",
            example="my_project.tools:server",
        )
        store: str | None = option(
            None, doc="Name of the store that handlers use as `ctx.store`.", example="notes", refers="store"
        )
        expose: tuple[Feature, ...] = option(
            FEATURES,
            doc="What clients see of the server; anything else is neither advertised nor served.",
            example=["resources"],
        )
        page_size: int = option(100, ge=1, le=10_000, doc="Items per page of a list.")
        name: str | None = option(None, doc="Name to give to clients instead of the server's own.", example="notes")
        version: str | None = option(
            None, doc="Version to give to clients instead of the server's own.", example="1.2.0"
        )
        max_subscriptions: int = option(1000, ge=0, doc="Resources one session or listener may watch at the same time.")
        state_key: Secret | None = option(
            None,
            doc="Key that protects `requestState` between the rounds of a request; needed where several processes "
            "serve the same clients, random at each start otherwise.",
            example={"from_env": "SLUICEWAY_STATE_KEY"},
        )
        state_ttl: Duration = option(
            Duration(10 * MINUTE), gt=0, doc="Time a client has to answer the questions of one round."
        )

    config: Config

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._given: Server | None = None
        self._runtime: Runtime | None = None

    @classmethod
    def serving(cls, server: Server, context: Context | None = None, **options: Any) -> EmbeddedSink:
        """
        A sink around a server object.

        Args:
            server: What to serve.
            context: The gateway's; a plain one unless given.
            **options: Fields of `Config`, except `server`.
        """
        made = cls(cls.Config(server=server.name, **options), context or Context(id=server.name))
        made._given = server
        return made

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Find the server, run its lifespan hook, make its singletons.

        Raises:
            ComponentError: The server cannot be found, or does not start; the text says why.
        """
        server = self._given or self._find()
        async with open_background_nursery() as nursery, AsyncExitStack() as stack:
            runtime = await self._start(server, stack, Drains(nursery))
            server.attach(runtime)
            self._runtime = runtime
            try:
                yield
            finally:
                self._runtime = None
                server.detach(runtime)
                runtime.hub.close()

    async def __call__(self, exchange: Exchange) -> Reply:
        """Answer one exchange; see `dispatch.answer`."""
        if self._runtime is None:
            raise UpstreamUnavailable(f"sink {self.context.id!r} is not open")
        return await answer(self._runtime, exchange)

    def _find(self) -> Server:
        target = BUILT_IN.get(self.config.server, self.config.server)
        module_name, colon, attribute = target.partition(":")
        if not colon:
            raise self._failure(f"server {target!r} is neither module:attribute nor one of {', '.join(BUILT_IN)}")
        try:
            found = getattr(importlib.import_module(module_name), attribute)
            server = found() if callable(found) else found
        except Exception as error:  # a user's module may raise anything while it is imported
            raise self._failure(f"server {target!r} cannot be loaded: {type(error).__name__}: {error}") from error
        if not isinstance(server, Server):
            raise self._failure(f"server {target!r} is a {type(server).__name__}, not a Server")
        return server

    async def _start(self, server: Server, stack: AsyncExitStack, drains: Drains) -> Runtime:
        runtime = self._runtime_of(server, drains)
        try:
            if server.lifespan_hook is not None:
                runtime.lifespan = await stack.enter_async_context(server.lifespan_hook())
            runtime.singletons.update(await server.providers.open_singletons(stack))
        except Exception as error:  # the server's own code: whatever it raises, the gateway does not start
            raise self._failure(f"server {server.name!r} did not start: {type(error).__name__}: {error}") from error
        return runtime

    def _runtime_of(self, server: Server, drains: Drains) -> Runtime:
        config, context = self.config, self.context
        since_epoch = time.time() - trio.current_time()
        return Runtime(
            server=server,
            id=context.id,
            exposed=frozenset(config.expose),
            page_size=config.page_size,
            info={"name": config.name or server.name, "version": config.version or server.version, **server.details},
            hub=Hub(context.id, config.max_subscriptions, partial(context.changes.announce, context.id)),
            drains=drains,
            sealer=Sealer(self._key(), config.state_ttl),
            new_id=context.new_id,
            clock=lambda: since_epoch + trio.current_time(),
            log=context.log,
            store=None if config.store is None else context.store(config.store),
        )

    def _key(self) -> bytes:
        """The key of `requestState`: the configured one stretched to its length, or one of 256 random bits."""
        secret = self.config.state_key
        text = key_of_run(self.context) if secret is None else secret.resolve()
        return hashlib.sha256(text.encode()).digest()

    def _failure(self, message: str) -> ComponentError:
        return ComponentError(self.context.id, "open", message)
