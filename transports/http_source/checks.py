"""What follows from the head of a request, whatever comes behind it: found once for all requests with equal heads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, final

from attrs import frozen

from sluiceway.pipeline.protocol.errors import Forbidden, Misdirected
from sluiceway.pipeline.protocol.messages import EMPTY

from .answers import Answer, HttpError
from .compression import Encoder, choose_coding, installed_codings
from .config import HttpConfig
from .hosts import HostPolicy, split_host
from .media import EVENTS, accepts, is_json
from .request import HttpRequest, RequestHead
from .response import HttpResponse

_PREFLIGHT_S: Final = "600"
"""Seconds a browser may remember a preflight answer."""
_EXPOSED: Final = (
    "mcp-session-id, mcp-protocol-version, x-request-id, retry-after, www-authenticate, ratelimit, ratelimit-policy, "
    "x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset"
)
"""Response headers that pages of an allowed origin may read."""

Route = Callable[[HttpRequest, HttpResponse], Awaitable[None]]
"""Answers a request. What it raises at once counts like what its coroutine raises."""


@final
@frozen
class Checked:
    """What follows from the head of a request that is let in."""

    route: Route
    """Who serves it."""
    is_plain: bool
    """Whether nothing of what follows is there, and no query that matters."""
    headers: Mapping[str, str] = EMPTY
    """For whatever is answered."""
    coding: tuple[str, Encoder] | None = None
    """How a long answer is compressed; None if it is not."""


@final
class Checks:
    """
    The checks that every request to a source must pass, before anything is known but its head.

    Args:
        config: The source's options.
    """

    def __init__(self, config: HttpConfig) -> None:
        self._policy = HostPolicy(config.binds, config.allowed_hosts, config.allowed_origins)
        self._compresses = config.compress_from is not None
        self._codings = installed_codings() if self._compresses else {}

    def check(self, head: RequestHead, route: Route) -> Checked:
        """
        Check a head.

        Raises:
            HttpError: It names no host.
            Misdirected: It names one that is not served here.
            Forbidden: It comes from a page that may not use this source.
        """
        headers = head.headers
        host = headers.get("host")
        if host is None or split_host(host) is None:
            raise HttpError(400, "a request needs one Host header, host or host:port")
        if not self._policy.allows_host(host):
            raise Misdirected(f"host {host[:100]!r} is not served here; if it should be, list it in allowed_hosts")
        answered, coding = self._answer_to_origin(headers.get("origin")), None
        if self._compresses:
            vary = answered.get("vary")
            answered["vary"] = f"{vary}, accept-encoding" if vary else "accept-encoding"
            coding = choose_coding(headers.get("accept-encoding"), self._codings)
        return Checked(
            route,
            not answered and coding is None and not head.query,
            answered,
            None if coding is None else (coding, self._codings[coding]),
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


def is_fit(head: RequestHead) -> bool:
    """Whether a POST is one of MCP's: see `refuse_unfit`."""
    headers = head.headers
    return accepts(headers.get("accept"), EVENTS) and is_json(
        headers.get("content-type"), headers.get("content-encoding")
    )


def refuse_unfit(head: RequestHead) -> None:
    """
    Check that a POST is one of MCP's.

    Raises:
        HttpError: Its answer may not become an event stream, or its body is not plain JSON.
    """
    if not accepts(head.headers.get("accept"), EVENTS):
        raise HttpError(406, "Accept must list application/json and text/event-stream")
    refuse_other_bodies(head)


def refuse_other_bodies(head: RequestHead) -> None:
    """
    Check that a body is JSON, and can be read as it is.

    Raises:
        HttpError: It is not.
    """
    if not is_json(head.headers.get("content-type"), head.headers.get("content-encoding")):
        raise HttpError(415, "the body must be application/json in UTF-8, not encoded otherwise")


def is_preflight(head: RequestHead) -> bool:
    """Whether a browser asks what a page may send."""
    return head.method == "OPTIONS" and "origin" in head.headers and "access-control-request-method" in head.headers


def preflight_answer(request: HttpRequest, methods: str) -> Answer:
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
