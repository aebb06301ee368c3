"""
A bearer token of the gateway's own, by client credentials (RFC 6749 section 4.4, RFC 8707; MCP SEP-1046).

Fetched when it is first needed, kept until shortly before it expires, fetched again when the upstream refuses it.
"""

from __future__ import annotations

import base64
from typing import Final, final
from urllib.parse import quote_plus, urlencode

import msgspec
import trio

from sluiceway.pipeline.model.options import KIB, MINUTE
from sluiceway.pipeline.protocol.errors import UpstreamUnavailable

from ..http_client.client import HttpClient

_EARLY_S: Final = 30.0
"""A token is renewed so long before it expires, or at half its life if that is later."""
_UNSTATED_S: Final = 5 * MINUTE
"""How long a token is kept whose life the server does not state."""
MAX_ANSWER: Final = 64 * KIB
"""Bytes that an answer of the token endpoint may have."""


class _Answer(msgspec.Struct, frozen=True):
    access_token: str
    token_type: str = "bearer"  # noqa: S105  # a kind of token, not one
    expires_in: float | None = None


class _Refusal(msgspec.Struct, frozen=True):
    error: str = ""


_decode_answer = msgspec.json.Decoder(_Answer, strict=False).decode
_decode_refusal = msgspec.json.Decoder(_Refusal).decode


@final
class TokenSource:
    """
    The current token, for everybody who needs it.

    Args:
        name: What the upstream is called in errors.
        client: Leads to the token endpoint.
        client_id: Who asks.
        client_secret: Its password.
        scope: Scopes to ask for; None for the server's default.
        resource: What the token is for; None to leave it out.
    """

    def __init__(
        self,
        name: str,
        client: HttpClient,
        client_id: str,
        client_secret: str,
        *,
        scope: str | None = None,
        resource: str | None = None,
    ) -> None:
        self._name = name
        self._client = client
        pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
        self._head = client.prepare(
            "POST",
            {
                "authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
                "content-type": "application/x-www-form-urlencoded",
                "accept": "application/json",
            },
        )
        form = {"grant_type": "client_credentials", "scope": scope, "resource": resource}
        self._form = urlencode({key: value for key, value in form.items() if value is not None}).encode()
        self._token: str | None = None
        self._renew_at = 0.0
        self._fetching = trio.Lock()

    async def token(self) -> str:
        """
        The token, fetched if there is none that will do; who comes meanwhile waits for the same.

        Raises:
            UpstreamFault: The authorization server cannot be reached, refuses, or answers nonsense.
        """
        token = self._current()
        if token is None:
            async with self._fetching:
                token = self._current() or await self._fetch()
        return token

    def refused(self, token: str) -> None:
        """The upstream does not take this token; the next call of `token` fetches another."""
        if token == self._token:
            self._token = None

    def _current(self) -> str | None:
        return self._token if trio.current_time() < self._renew_at else None

    async def _fetch(self) -> str:
        client = self._client
        with client.faults, await client.send(self._head, body=self._form, repeatable=True) as response:
            status, body = response.head.status, await response.body(MAX_ANSWER)
        if status != 200:
            raise self._refusal(status, body)
        try:
            answer = _decode_answer(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._failure("its answer is not a token response (RFC 6749 section 5.1)") from error
        token = answer.access_token
        if answer.token_type.lower() != "bearer" or not token or not token.isascii() or not token.isprintable():
            raise self._failure("its token is not a bearer token")
        life_s = _UNSTATED_S if answer.expires_in is None else max(0.0, answer.expires_in)
        self._token, self._renew_at = token, trio.current_time() + max(life_s - _EARLY_S, life_s / 2)
        return token

    def _refusal(self, status: int, body: bytes) -> UpstreamUnavailable:
        try:
            word = _decode_refusal(body).error[:60]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            word = ""
        return self._failure(f"it answers HTTP {status} {word!r}" if word else f"it answers HTTP {status}")

    def _failure(self, why: str) -> UpstreamUnavailable:
        error = UpstreamUnavailable(f"{self._name}: the authorization server gives the gateway no token: {why}")
        error.retryable = False
        return error
