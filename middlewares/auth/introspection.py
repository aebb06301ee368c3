"""
Opaque tokens: the authorization server is asked what they are (RFC 7662), and believed for a short while.

However many requests come with one token, one of them asks. What the server says is kept by the token's digest, that it
is not active too, so that neither a busy client nor a guessing one becomes a flood for the server.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, final
from urllib.parse import quote_plus, urlencode

import trio

from sluiceway.pipeline.model.options import KIB
from sluiceway.pipeline.model.remembered import Remembered
from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.gate import Limits, parse
from sluiceway.pipeline.protocol.messages import Json

from .fetching import FetchFailed

MAX_ANSWER: Final = 64 * KIB
_LIMITS: Final = Limits(max_message_size=MAX_ANSWER)


@final
class Introspection:
    """
    Args:
        post: Posts a form with these headers to the endpoint; raises `FetchFailed`.
        client_id: Who the gateway is there.
        client_secret: Its password.
        remember_s: How long an answer is believed.
        max_remembered: Answers kept at most; the oldest is forgotten first.
    """

    def __init__(
        self,
        post: Callable[[Mapping[str, str], bytes], Awaitable[bytes]],
        client_id: str,
        client_secret: str,
        *,
        remember_s: float,
        max_remembered: int,
    ) -> None:
        self._post = post
        pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode()
        self._headers = {"authorization": f"Basic {base64.b64encode(pair).decode()}"}
        self._remember_s = remember_s
        self._remembered = Remembered[bytes, tuple[float, Mapping[str, Json] | None]](max_remembered)
        self._asking: dict[bytes, trio.Event] = {}
        self.asked = 0
        """Questions put to the server."""

    def __len__(self) -> int:
        return len(self._remembered)

    async def claims_of(self, token: str, digest: bytes) -> Mapping[str, Json] | None:
        """
        What the server says about a token; None if it is not active.

        Args:
            token: The token.
            digest: Of the token: what the answer is kept by.

        Raises:
            FetchFailed: The server cannot be asked, or says nothing that can be understood.
        """
        while True:
            found = self._remembered.get(digest)
            if found is not None and trio.current_time() < found[0]:
                return found[1]
            asking = self._asking.get(digest)
            if asking is None:
                return await self._ask(token, digest)
            await asking.wait()

    async def _ask(self, token: str, digest: bytes) -> Mapping[str, Json] | None:
        """Ask. Who waits meanwhile looks again afterwards, and asks in turn if this was cancelled or failed."""
        done = self._asking[digest] = trio.Event()
        try:
            self.asked += 1
            form = urlencode({"token": token, "token_type_hint": "access_token"}).encode()
            claims = parse_answer(await self._post(self._headers, form))
            self._remembered.keep(digest, (trio.current_time() + self._remember_s, claims))
            return claims
        finally:
            del self._asking[digest]
            done.set()


def parse_answer(data: bytes) -> Mapping[str, Json] | None:
    """
    Read an introspection response (RFC 7662 section 2.2); None for a token that is not active.

    Raises:
        FetchFailed: It is none.
    """
    try:
        answer = parse(data, _LIMITS)
    except GatewayError as error:
        raise FetchFailed("its answer is not JSON") from error
    if not isinstance(answer, dict) or not isinstance(answer.get("active"), bool):
        raise FetchFailed("its answer is not an introspection response (RFC 7662 section 2.2)")
    return answer if answer["active"] else None
