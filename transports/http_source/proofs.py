"""
Credentials with which a session's principal got through the chain, so that what never reaches a chain can be checked.

Where the pipeline has no auth stage, but something else authenticates there, an answer to a question, a cancel notice,
a GET or a DELETE would be anybody's who knows the session's id. They must carry a credential that was accepted before.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, final

from sluiceway.pipeline.model.handle import Handle, Ticket
from sluiceway.pipeline.model.kept_scope import KeptScope
from sluiceway.pipeline.model.session import ANONYMOUS, Asker, Caller, Client, Session
from sluiceway.pipeline.protocol.errors import SessionNotFound
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request

_CREDENTIALS: Final = ("authorization", "x-api-key")
_MAX_PROOFS: Final = 8
"""Credentials remembered per session: tokens are renewed now and then, and the old one may still be in flight."""


@final
class Proofs:
    """What one session's principal proved itself with; digests only."""

    def __init__(self) -> None:
        self.known: OrderedDict[bytes, None] = OrderedDict()
        """The latest last."""

    def check(self, headers: Mapping[str, str], session: Session) -> None:
        """
        Check a request that never reaches a chain.

        Raises:
            SessionNotFound: The session is an authenticated principal's, and this is not one of its credentials.
        """
        if session.caller is not ANONYMOUS and _proof_of(headers) not in self.known:
            raise unknown_session()

    def remember(self, headers: Mapping[str, str], caller: Caller, session: Session) -> bytes | None:
        """
        Take note of the credentials with which a request was authenticated in the chain as `caller`.

        Returns:
            What stands for them in `known`; None if they prove nothing.
        """
        if caller is ANONYMOUS or not session.belongs_to(caller):
            return None
        proof = _proof_of(headers)
        self.known[proof] = None
        self.known.move_to_end(proof)
        if len(self.known) > _MAX_PROOFS:
            self.known.popitem(last=False)
        return proof


def unknown_session() -> SessionNotFound:
    """The one answer for sessions that never were, are over, or are somebody else's."""
    return SessionNotFound("no such session; initialize again without a session id")


def _proof_of(headers: Mapping[str, str]) -> bytes:
    """A digest of the credentials a request carries, so that they themselves are never kept."""
    digest = hashlib.sha256()
    for name in _CREDENTIALS:
        digest.update(headers.get(name, "").encode("latin-1", "replace") + b"\0")
    return digest.digest()


@final
class _NotingTicket:
    """An exchange whose credentials are remembered when it got through."""

    def __init__(self, ticket: Ticket, proofs: Proofs) -> None:
        self._ticket = ticket
        self._proofs = proofs
        self.exchange = ticket.exchange

    async def run(self, kept: KeptScope | None = None) -> Reply | None:
        """See `Ticket.run`."""
        reply = await self._ticket.run(kept)
        client = self.exchange.client
        if client.session is not None:
            self._proofs.remember(client.headers, self.exchange.link.caller, client.session)
        return reply

    def cancel(self, reason: Literal["client", "shutdown"] = "client") -> None:
        """See `Ticket.cancel`."""
        self._ticket.cancel(reason)


@final
class NotingHandle:
    """
    A pipeline whose exchanges leave their credentials in `proofs`.

    Args:
        handle: The pipeline.
        proofs: Of the session whose exchanges they are.
    """

    def __init__(self, handle: Handle, proofs: Proofs) -> None:
        self._handle = handle
        self._proofs = proofs

    def __call__(
        self,
        message: Request | Notification,
        *,
        client: Client,
        emit: Callable[[Notification], Awaitable[None]],
        ask: Asker | None = None,
    ) -> Ticket:
        """See `Handle`."""
        return _NotingTicket(self._handle(message, client=client, emit=emit, ask=ask), self._proofs)
