"""
The ASGI application of an HTTP source: paths, checks that every request must pass, and who serves what is left.

The same callable runs under our own server and under a plain hypercorn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.options import KIB
from sluiceway.pipeline.model.security import Refusal
from sluiceway.pipeline.protocol.codec import decode_batch
from sluiceway.pipeline.protocol.errors import (
    CODE_TABLES,
    Forbidden,
    GatewayError,
    InvalidMessage,
    Misdirected,
    SessionNotFound,
)
from sluiceway.pipeline.protocol.mcp import MODERN_VERSIONS, Era
from sluiceway.pipeline.protocol.messages import Json, encode_json

from ..eras import modern
from .aliases import ALIASES, SAMPLING, Aliases
from .answers import Answer, HttpError, error_answer, json_answer, refusal_answer
from .compression import Encoder, choose_coding, installed_codings
from .config import HttpConfig
from .hosts import HostPolicy, split_host
from .legacy_posts import LegacyPosts
from .legacy_sse import LegacySse
from .media import EVENTS, accepts, is_json
from .modern_posts import ModernPosts
from .protection import is_place_of, metadata_answer, refuse_query_token
from .request import ON_GONE, ClientGone, HttpRequest, Receive, Send
from .response import HttpResponse
from .serving import Serving

HEALTH: Final = "/healthz"
READY: Final = "/readyz"
STREAM_SUFFIX: Final = "/stream"

SHORT_BODY: Final = 16 * KIB
"""Bytes of a body that is read before anybody is asked whose it is: mostly it is there already, with its head."""
_PREFLIGHT_S: Final = "600"
"""Seconds a browser may remember a preflight answer."""
_EXPOSED: Final = (
    "mcp-session-id, mcp-protocol-version, x-request-id, retry-after, www-authenticate, ratelimit, ratelimit-policy, "
    "x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset"
)
"""Response headers that pages of an allowed origin may read."""


Route = Callable[[HttpRequest, HttpResponse], Awaitable[None]]


@final
@frozen
class Checked:
    """What follows from the head of a request that is let in."""

    route: Route | None
    """Who serves its path; None if nobody does as a rule."""
    headers: Mapping[str, str]
    """For whatever is answered."""
    coding: tuple[str, Encoder] | None
    """How a long answer is compressed; None if it is not."""
    takes_events: bool
    """Whether the answer may become an event stream."""
    is_json: bool
    """Whether the body is JSON, and can be read as it is."""


def _checked(request: HttpRequest) -> Checked:
    """What was found of a request that is being served."""
    checked = request.head.verdict
    assert type(checked) is Checked
    return checked


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
        self._policy = HostPolicy(config.binds, config.allowed_hosts, config.allowed_origins)
        self._serving: Serving | None = None
        self._codings = installed_codings() if config.compress_from is not None else {}
        self._routes: dict[str, Route] = {config.path: self._endpoint}
        if config.aliases:
            self._routes[config.path.rstrip("/") + STREAM_SUFFIX] = self._stream
            self._routes["/"] = self._endpoint
            self._routes |= dict.fromkeys((*ALIASES, SAMPLING), self._alias)
        if config.sse is not None:
            self._routes[config.sse.path] = self._sse

    def connect(self, serving: Serving | None) -> None:
        """Say where requests go from now on; None for nowhere."""
        self._serving = serving
        if serving is not None:
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
        response = HttpResponse(send, self.is_draining)
        if scope["http_version"] not in ("1.0", "1.1") and ON_GONE not in scope.get("extensions", {}):
            text = b"this listener speaks HTTP/1.1; for HTTP/2, run the gateway with its own server\n"
            await response.answer(Answer(505, text, {"content-type": "text/plain"}))
            return
        nursery = None if self._serving is None else self._serving.nursery
        await self.serve(HttpRequest.of_scope(scope, receive, nursery), response)

    async def serve(self, request: HttpRequest, response: HttpResponse) -> None:
        """Answer one request."""
        if request.path in (HEALTH, READY):
            await response.answer(self._health(request.path, request.method))
        elif self._serving is None:
            await response.answer(Answer(503, b"not ready\n", {"content-type": "text/plain", "retry-after": "1"}))
        else:
            await self._guarded(request, response)

    async def _guarded(self, request: HttpRequest, response: HttpResponse) -> None:
        """Dispatch, and turn what is refused into an answer. Other exceptions are the server's to contain."""
        try:
            checked = request.head.verdict
            if type(checked) is not Checked:
                checked = request.head.verdict = self._check(request)
            if checked.headers:
                response.headers |= checked.headers
            if checked.coding is not None:
                response.encode, response.encode_from = checked.coding, self._config.compress_from or 0
            if request.query:
                refuse_query_token(request.query)
            if checked.route is not None:
                await checked.route(request, response)
            elif (document := self._published_at(request.path)) is not None:
                await self._publish(document, request, response)
            else:
                raise HttpError(404, f"nothing here; the endpoint is {self._config.path}")
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
        response.headers["connection"] = "close"
        async with trio.open_nursery() as nursery:  # hypercorn cannot end a response while a body waits for a reader
            nursery.start_soon(request.discard)
            await response.answer(answer)
            nursery.cancel_scope.cancel()

    # Checks of every request to the endpoint.

    def _check(self, request: HttpRequest) -> Checked:
        """
        What follows from a head, whatever comes behind it and whenever it comes.

        Raises:
            HttpError: It names no host.
            Misdirected: It names one that is not served here.
            Forbidden: It comes from a page that may not use this source.
        """
        headers = request.headers
        host = headers.get("host")
        if host is None or split_host(host) is None:
            raise HttpError(400, "a request needs one Host header, host or host:port")
        if not self._policy.allows_host(host):
            raise Misdirected(f"host {host[:100]!r} is not served here; if it should be, list it in allowed_hosts")
        answered, coding = self._answer_to_origin(headers.get("origin")), None
        if self._config.compress_from is not None:
            vary = answered.get("vary")
            answered["vary"] = f"{vary}, accept-encoding" if vary else "accept-encoding"
            coding = choose_coding(headers.get("accept-encoding"), self._codings)
        return Checked(
            self._routes.get(request.path),
            answered,
            None if coding is None else (coding, self._codings[coding]),
            takes_events=accepts(headers.get("accept"), EVENTS),
            is_json=is_json(headers.get("content-type"), headers.get("content-encoding")),
        )

    def _answer_to_origin(self, origin: str | None) -> dict[str, str]:
        if origin is None:
            return {}
        if not self._policy.allows_origin(origin):
            raise _foreign(origin)
        return {
            "access-control-allow-origin": origin,
            "access-control-expose-headers": _EXPOSED,
            "vary": "origin",
        }

    # What is published about the endpoint.

    def _published_at(self, path: str) -> Mapping[str, Json] | None:
        if not path.startswith("/.well-known/"):
            return None
        document = self._resource_metadata()
        return document if document is not None and is_place_of(path, self._config.path, document) else None

    async def _publish(self, document: Mapping[str, Json], request: HttpRequest, response: HttpResponse) -> None:
        preflight = request.method == "OPTIONS" and _is_preflight(request)
        await response.answer(_preflight(request, "GET") if preflight else metadata_answer(request.method, document))

    # Routes.

    async def _endpoint(self, request: HttpRequest, response: HttpResponse, *, patience_s: float | None = None) -> None:
        match request.method:
            case "POST":
                await self._post(request, response, patience_s)
            case "GET":
                await self._legacy.listen(request, response)
            case "DELETE":
                await self._legacy.end(request, response)
            case "OPTIONS" if _is_preflight(request):
                await response.answer(_preflight(request, "GET, POST, DELETE"))
            case _:
                raise HttpError(405, f"{request.method} is not used here", {"allow": "GET, POST, DELETE"})

    async def _stream(self, request: HttpRequest, response: HttpResponse) -> None:
        if request.method != "POST":
            raise HttpError(405, "only POST here", {"allow": "POST"})
        assert self._serving is not None
        await self._serving.identify(modern.visitor(request.headers, request.address, request.certificate), None)
        await self._post(request, response, 0.0)  # from here on the status is 200, whatever the answer is

    async def _sse(self, request: HttpRequest, response: HttpResponse) -> None:
        match request.method:
            case "GET":
                await self._legacy_sse.listen(request, response)
            case "POST":
                await self._legacy_sse.post(await self._body(request), request, response)
            case "OPTIONS" if _is_preflight(request):
                await response.answer(_preflight(request, "GET, POST"))
            case _:
                raise HttpError(405, f"{request.method} is not used here", {"allow": "GET, POST"})

    async def _alias(self, request: HttpRequest, response: HttpResponse) -> None:
        if request.method == "OPTIONS" and _is_preflight(request):
            await response.answer(_preflight(request, "POST"))
            return
        if request.method != "POST":
            raise HttpError(405, "only POST here", {"allow": "POST"})
        body = await self._body(request)
        await self._aliases.serve(body, request, response)

    async def _post(self, request: HttpRequest, response: HttpResponse, patience_s: float | None) -> None:
        if not _checked(request).takes_events:
            raise HttpError(406, "Accept must list application/json and text/event-stream")
        assert self._serving is not None
        message = decode_batch(await self._body(request), self._serving.limits)
        if isinstance(message, list):
            if request.headers.get(modern.VERSION_HEADER) in MODERN_VERSIONS:
                raise InvalidMessage("a body is one JSON object; batches exist in MCP 2025-03-26 only")
            await self._legacy.serve(message, request, response, patience_s=patience_s)
        elif modern.era_of(message, request.headers) is Era.MODERN:
            await self._modern.serve(message, request, response, patience_s=patience_s)
        else:
            await self._legacy.serve(message, request, response, patience_s=patience_s)

    async def _body(self, request: HttpRequest) -> bytes:
        if not _checked(request).is_json:
            raise HttpError(415, "the body must be application/json in UTF-8, not encoded otherwise")
        config, length = self._config, request.head.length
        if length is None or length > SHORT_BODY:
            assert self._serving is not None
            visitor = modern.visitor(request.headers, request.address, request.certificate)
            await self._serving.refuse_unread(visitor)
        return await request.body(config.max_body, config.body_grace, config.min_body_rate)

    # Health checks: anybody may ask, under any name, for they tell nothing else.

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


def _is_preflight(request: HttpRequest) -> bool:
    return "origin" in request.headers and "access-control-request-method" in request.headers


def _preflight(request: HttpRequest, methods: str) -> Answer:
    """Answer a browser that asks whether a page of an origin, which has been checked, may send what it wants to."""
    return Answer(
        204,
        headers={
            "access-control-allow-methods": methods,
            "access-control-allow-headers": request.headers.get("access-control-request-headers", "content-type"),
            "access-control-max-age": _PREFLIGHT_S,
        },
    )


def _foreign(origin: str) -> Forbidden:
    refusal = Forbidden(f"origin {origin[:100]!r} is not allowed; if it should be, list it in allowed_origins")
    refusal.event = "foreign_origin"
    return refusal
