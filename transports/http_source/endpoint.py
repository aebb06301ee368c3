"""
The ASGI application of an HTTP source: paths, checks that every request must pass, and who serves what is left.

The same callable runs under our own server and under a plain hypercorn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, final

import trio

from sluiceway.pipeline.model.options import KIB
from sluiceway.pipeline.model.security import Refusal
from sluiceway.pipeline.protocol.codec import decode_batch
from sluiceway.pipeline.protocol.errors import (
    CODE_TABLES,
    GatewayError,
    InvalidMessage,
    SessionNotFound,
)
from sluiceway.pipeline.protocol.mcp import MODERN_VERSIONS, Era
from sluiceway.pipeline.protocol.messages import Json, encode_json

from ..eras import modern
from .aliases import ALIASES, SAMPLING, Aliases
from .answers import Answer, HttpError, error_answer, json_answer, refusal_answer
from .checks import Checked, Checks, Route, is_fit, is_preflight, preflight_answer, refuse_other_bodies, refuse_unfit
from .config import HttpConfig
from .legacy_posts import LegacyPosts
from .legacy_sse import LegacySse
from .modern_posts import ModernPosts
from .protection import is_place_of, metadata_answer, refuse_query_token
from .request import ON_GONE, ClientGone, HttpRequest, Receive, RequestHead, ScopeRequest, Send
from .response import HttpResponse, ScopeWay
from .serving import Serving

HEALTH: Final = "/healthz"
READY: Final = "/readyz"
STREAM_SUFFIX: Final = "/stream"

SHORT_BODY: Final = 16 * KIB
"""Bytes of a body that is read before anybody is asked whose it is: mostly it is there already, with its head."""


@final
class Endpoint:
    """
    Serves every path of one source. An ASGI 3 application for the scope type `http`; a WebSocket is refused.

    Args:
        config: The source's options.
        readiness: Whether the gateway is ready; asked by `/readyz`.
        resource_metadata: What is published about the endpoint (RFC 9728); None for nothing.
    """

    def __init__(
        self,
        config: HttpConfig,
        readiness: Callable[[], bool],
        resource_metadata: Callable[[], Mapping[str, Json] | None] = lambda: None,
    ) -> None:
        self._config = config
        self._readiness = readiness
        self._resource_metadata = resource_metadata
        self._checks = Checks(config)
        self._short = min(SHORT_BODY, config.max_body)
        self._serving: Serving | None = None
        self._routes: dict[str, Callable[[RequestHead], Route]] = {config.path: self._at_endpoint}
        if config.aliases:
            self._routes[config.path.rstrip("/") + STREAM_SUFFIX] = self._at_stream
            self._routes["/"] = self._at_endpoint
            self._routes |= dict.fromkeys((*ALIASES, SAMPLING), self._at_alias)
        if config.sse is not None:
            self._routes[config.sse.path] = self._at_sse

    def connect(self, serving: Serving | None) -> None:
        """Say where requests go from now on; None for nowhere."""
        self._serving = serving
        if serving is not None:
            self._limits = serving.limits
            self._legacy, self._modern, self._aliases = LegacyPosts(serving), ModernPosts(serving), Aliases(serving)
            if self._config.sse is not None:
                self._legacy_sse = LegacySse(serving, self._config.sse)

    def serves(self, path: str) -> bool:
        """Whether a path is one of this source's, health checks excluded."""
        return path in self._routes or self._published_at(path) is not None

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """ASGI 3: answer one request."""
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1002})
            return
        response = HttpResponse(ScopeWay(send, self.is_draining))
        if scope["http_version"] not in ("1.0", "1.1") and ON_GONE not in scope.get("extensions", {}):
            text = b"this listener speaks HTTP/1.1; for HTTP/2, run the gateway with its own server\n"
            await response.answer(Answer(505, text, {"content-type": "text/plain"}))
            return
        nursery = None if self._serving is None else self._serving.nursery
        await self.serve(ScopeRequest(scope, receive, nursery), response)

    async def serve(self, request: HttpRequest, response: HttpResponse) -> None:
        """Answer one request: what is refused too. Other exceptions are the server's to contain."""
        try:
            head = request.head
            checked = head.verdict
            if checked is None or self._serving is None:
                checked = self._checked(head)
            if not checked.is_plain:
                self._prepare(checked, head, response)
            await checked.route(request, response)
        except ClientGone:
            return
        except HttpError as error:
            await self._refuse(request, response, refusal_answer(error))
        except GatewayError as error:
            if isinstance(error, SessionNotFound) and await self._passed_on(request, response):
                return
            if self._serving is not None:
                context, reason = self._serving.context, error.event or error.reason
                context.alarm(Refusal(reason=reason, source=context.id, address=request.address))
            codes = self._serving.context.codes if self._serving is not None else CODE_TABLES["spec"]
            await self._refuse(request, response, error_answer(error, codes=codes))

    def _prepare(self, checked: Checked, head: RequestHead, response: HttpResponse) -> None:
        """Have a response as its request wants it."""
        if checked.headers:
            response.headers = checked.headers
        if checked.coding is not None:
            response.encode, response.encode_from = checked.coding, self._config.compress_from or 0
        refuse_query_token(head.query)

    async def _passed_on(self, request: HttpRequest, response: HttpResponse) -> bool:
        """Whether a session that is not found lives in another worker, which has answered then."""
        fellows = None if self._serving is None else self._serving.fellows
        mark = None if fellows is None else fellows.owner_of(request)
        if fellows is None or mark is None:
            return False
        return await fellows.pass_on(mark, request, response)

    def move(self, mark: str, client: int) -> None:
        """Give a client, between two requests, to the worker in which its session lives. Closes the descriptor."""
        assert self._serving is not None
        assert self._serving.fellows is not None
        self._serving.start(self._serving.fellows.move, mark, client)

    async def _refuse(self, request: HttpRequest, response: HttpResponse, answer: Answer) -> None:
        if self._serving is not None:
            log = self._serving.context.log
            log.debug("request refused", status=answer.status, method=request.method, address=request.address)
        if not request.unread:
            await response.answer(answer)
            return
        response.headers = {**response.headers, "connection": "close"}
        async with trio.open_nursery() as nursery:  # hypercorn cannot end a response while a body waits for a reader
            nursery.start_soon(request.discard)
            await response.answer(answer)
            nursery.cancel_scope.cancel()

    def _checked(self, head: RequestHead) -> Checked:
        """What follows from a head. Anybody may ask for our health, in any way, for that tells nothing else."""
        if head.path in (HEALTH, READY):
            return Checked(self._tell_health, is_plain=True)
        if self._serving is None:
            return Checked(_unready, is_plain=True)
        route = self._routes[head.path](head) if head.path in self._routes else self._elsewhere
        head.verdict = checked = self._checks.check(head, route)
        return checked

    # What is published about the endpoint.

    def _published_at(self, path: str) -> Mapping[str, Json] | None:
        if not path.startswith("/.well-known/"):
            return None
        document = self._resource_metadata()
        return document if document is not None and is_place_of(path, self._config.path, document) else None

    async def _elsewhere(self, request: HttpRequest, response: HttpResponse) -> None:
        document = self._published_at(request.path)
        if document is None:
            raise HttpError(404, f"nothing here; the endpoint is {self._config.path}")
        if is_preflight(request.head):
            await response.answer(preflight_answer(request, "GET"))
        else:
            await response.answer(metadata_answer(request.method, document))

    # Routes.

    def _at_endpoint(self, head: RequestHead) -> Route:
        match head.method:
            case "POST":
                return self._post if is_fit(head) else _refuse_unfit
            case "GET":
                return self._legacy.listen
            case "DELETE":
                return self._legacy.end
        return _other_methods(head, "GET, POST, DELETE")

    def _at_stream(self, head: RequestHead) -> Route:
        return self._stream if head.method == "POST" else partial(_refuse_method, "POST")

    def _at_sse(self, head: RequestHead) -> Route:
        match head.method:
            case "GET":
                return self._legacy_sse.listen
            case "POST":
                return self._sse
        return _other_methods(head, "GET, POST")

    def _at_alias(self, head: RequestHead) -> Route:
        return self._alias if head.method == "POST" else _other_methods(head, "POST")

    async def _stream(self, request: HttpRequest, response: HttpResponse) -> None:
        assert self._serving is not None
        await self._serving.identify(modern.visitor(request.headers, request.address, request.certificate), None)
        refuse_unfit(request.head)
        await self._serve(
            await self._body(request), request, response, 0.0
        )  # its status is 200, whatever the answer is

    async def _sse(self, request: HttpRequest, response: HttpResponse) -> None:
        refuse_other_bodies(request.head)
        await self._legacy_sse.post(await self._body(request), request, response)

    async def _alias(self, request: HttpRequest, response: HttpResponse) -> None:
        refuse_other_bodies(request.head)
        await self._aliases.serve(await self._body(request), request, response)

    def _post(self, request: HttpRequest, response: HttpResponse) -> Awaitable[None]:
        body = request.whole
        if body is None or len(body) > self._short:
            return self._post_long(request, response)
        return self._serve(body, request, response, None)

    async def _post_long(self, request: HttpRequest, response: HttpResponse) -> None:
        await self._serve(await self._body(request), request, response, None)

    def _serve(
        self, body: bytes, request: HttpRequest, response: HttpResponse, patience_s: float | None
    ) -> Awaitable[None]:
        """
        Answer what was posted.

        Args:
            body: What was.
            request: As which.
            response: Where the answer goes.
            patience_s: Seconds to wait for a single answer before this becomes an event stream; the default when None.
        """
        message = decode_batch(body, self._limits)
        if isinstance(message, list):
            if request.headers.get(modern.VERSION_HEADER) in MODERN_VERSIONS:
                raise InvalidMessage("a body is one JSON object; batches exist in MCP 2025-03-26 only")
            return self._legacy.serve(message, request, response, patience_s)
        if modern.era_of(message, request.head.headers) is Era.MODERN:
            return self._modern.serve(message, request, response, patience_s)
        return self._legacy.serve(message, request, response, patience_s)

    async def _body(self, request: HttpRequest) -> bytes:
        config, whole = self._config, request.whole
        size = request.declared if whole is None else len(whole)
        if size is None or size > SHORT_BODY or (whole is None and request.head.waits):
            assert self._serving is not None
            visitor = modern.visitor(request.headers, request.address, request.certificate)
            await self._serving.refuse_unread(visitor)
        return await request.body(config.max_body, config.body_grace, config.min_body_rate)

    # Health checks.

    async def _tell_health(self, request: HttpRequest, response: HttpResponse) -> None:
        await response.answer(self._health(request.path, request.method))

    def _health(self, path: str, method: str) -> Answer:
        if method not in ("GET", "HEAD"):
            return Answer(405, headers={"allow": "GET, HEAD"})
        ready = self._serving is not None and not self.is_draining() and self._readiness()
        if path == HEALTH:
            return _status("alive", 200)
        return _status("ready", 200) if ready else _status("draining" if self.is_draining() else "not ready", 503)

    def is_draining(self) -> bool:
        """Whether responses are the last of their connections."""
        return self._serving is not None and self._serving.draining


def _status(word: str, status: int) -> Answer:
    return json_answer(status, encode_json({"status": word}), {"cache-control": "no-store"})


async def _unready(_: HttpRequest, response: HttpResponse) -> None:
    await response.answer(Answer(503, b"not ready\n", {"content-type": "text/plain", "retry-after": "1"}))


async def _refuse_unfit(request: HttpRequest, _: HttpResponse) -> None:
    refuse_unfit(request.head)


def _other_methods(head: RequestHead, methods: str) -> Route:
    """For methods that do nothing here: what a browser asks before it uses one that does is answered."""
    return partial(_allow, methods) if is_preflight(head) else partial(_refuse_method, methods)


async def _allow(methods: str, request: HttpRequest, response: HttpResponse) -> None:
    await response.answer(preflight_answer(request, methods))


async def _refuse_method(methods: str, request: HttpRequest, _: HttpResponse) -> None:
    raise HttpError(405, f"{request.method} is not used here; {methods} may be", {"allow": methods})
