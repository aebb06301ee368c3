"""
The gateway as an ASGI application, for servers that own their sockets.

Start it with `hypercorn -k trio sluiceway.transports.asgi:app`. The configuration is the file that `SLUICEWAY_CONFIG`
names, else the quickstart. All `http` sources share the server's port, told apart by their paths; `bind` is ignored,
and so are sources of other kinds that listen. WebSockets are served where an `http` source has `websocket`: with the
handshake, the pings (`websocket_ping_interval`) and the compression of hypercorn, and `max_message` holds for what its
`websocket_max_message_size` lets through.

What `sluiceway run` does better: it closes listeners and idle connections when it drains, it contains every exception
of a connection, and it notices a client that left without a task per request. Give hypercorn a `graceful_timeout`
above `run.drain_timeout`, for it says nothing before that passed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, final

import structlog

import sluiceway.pipeline
from sluiceway.pipeline.config import load
from sluiceway.pipeline.model.document import Document
from sluiceway.pipeline.protocol.errors import SluicewayError
from sluiceway.pipeline.replay.recording import open_edges
from sluiceway.pipeline.runtime.engine import Engine
from sluiceway.pipeline.telemetry.log import configure_logging

from .http_source.answers import Answer
from .http_source.request import Receive, Send
from .http_source.source import HttpSource
from .websocket.scope import refuse_scope

CONFIG_VARIABLE: Final = "SLUICEWAY_CONFIG"

_QUICKSTART: Final = Path(sluiceway.pipeline.__file__).parent / "cli" / "quickstart.yaml"


def load_configured() -> Document:
    """
    The configuration that the environment names, with its log settings applied.

    Raises:
        ConfigError: It has errors.
    """
    document = load(Path(os.environ.get(CONFIG_VARIABLE) or _QUICKSTART))
    configure_logging(document.run.log_level, document.run.log_format)
    return document


@final
class Gateway:
    """
    ASGI 3: `lifespan` runs the engine, `http` and `websocket` go to the source whose path it is.

    A failed start is answered with `lifespan.startup.failed`: an exception would leave hypercorn serving. If the
    engine crashes later, every request is answered 503, those for health included, so that whoever watches the
    process ends it.

    Args:
        configure: Makes the configuration, at start.
    """

    def __init__(self, configure: Callable[[], Document] = load_configured) -> None:
        self._configure = configure
        self._sources: tuple[HttpSource, ...] = ()
        self._log: Any = structlog.get_logger()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif not self._sources:
            await _unavailable(send)
        else:
            await self._source_of(scope).app(scope, receive, send)

    async def _websocket(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        for source in self._sources:
            if source.config.websocket_path == scope["path"]:
                await source.serve_websocket(scope, receive, send)
                return
        await refuse_scope(scope, receive, send, Answer(404 if self._sources else 503))

    def _source_of(self, scope: Mapping[str, Any]) -> HttpSource:
        owners = (source for source in self._sources if source.app.serves(scope["path"]))
        return next(owners, self._sources[0])  # which answers for health, or 404

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        started = asked = False
        failure = ""
        try:
            document = self._configure()
            async with open_edges(document) as edges, Engine(document, listen=False, edges=edges).running() as engine:
                self._sources = _http_sources(engine)
                for source in self._sources:  # the server may have accepted connections already
                    await source.serving.wait()
                await send({"type": "lifespan.startup.complete"})
                started = True
                await receive()  # lifespan.shutdown
                asked = True
                await engine.drain()
        except Exception as error:  # a boundary: nobody above us says what went wrong, or stops
            if not started:
                failure = str(error) if isinstance(error, SluicewayError) else f"{type(error).__name__}: {error}"
            else:
                self._log.critical("the gateway crashed; every request is answered 503 now", exc_info=error)
        finally:
            self._sources = ()
        if not started:
            await send({"type": "lifespan.startup.failed", "message": failure})
            return
        if not asked:
            await receive()  # the server still wants an answer to its lifespan.shutdown
        await send({"type": "lifespan.shutdown.complete"})


def _http_sources(engine: Engine) -> tuple[HttpSource, ...]:
    """
    The sources that share the server's port.

    Raises:
        SluicewayError: There is none, or two that nothing but their address tells apart.
    """
    owners: dict[tuple[str, str | None], str] = {}
    found = []
    for source_id, source in engine.sources.items():
        if not isinstance(source, HttpSource):
            continue
        places = [("http", path) for path in source.config.paths]
        if source.config.websocket is not None:
            places.append(("websocket", source.config.websocket_path))
        for place in places:
            other = owners.setdefault(place, source_id)
            if other != source_id:
                raise SluicewayError(
                    f"sources {other} and {source_id} have the same path {place[1]}; give them different paths, "
                    f"or use `sluiceway run`, which gives each its own address"
                )
        found.append(source)
    if not found:
        raise SluicewayError("no source of kind http is configured; there is nothing to serve")
    return tuple(found)


async def _unavailable(send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": b"the gateway is not running\n"})


app = Gateway()
