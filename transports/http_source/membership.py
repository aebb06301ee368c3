"""Which session a client of the legacy era names, looked at once for as long as it names the same."""

from __future__ import annotations

from typing import Final, final

from sluiceway.pipeline.model.session import ANONYMOUS, Caller, Client

from ..eras import legacy
from .media import prefers_events
from .request import Remote, RequestHead
from .sessions import HttpSession


@final
class Membership:
    """
    A session, as a request on a connection named it; those that come there with an equal head are from the same client.

    Args:
        session: Which is named.
        head: Of the request.
        remote: Its sender.
    """

    __slots__ = ("_caller", "_proof", "client", "head", "prefers_events", "session")

    def __init__(self, session: HttpSession, head: RequestHead, remote: Remote) -> None:
        self.session: Final = session
        self.head: Final = head
        self.client: Final[Client] = legacy.client_of(session.session, head.headers, remote.address, remote.certificate)
        self.prefers_events: Final = prefers_events(head.headers.get("accept"))
        """Whether the client would rather have an event stream than plain JSON."""
        self._caller: Caller | None = None
        self._proof: bytes | None = None

    def is_of(self, head: RequestHead) -> bool:
        """Whether a request with this head, on the same connection, is the same client's."""
        session = self.session.session
        return head is self.head and not session.closed and session.version == self.client.version

    def prove(self, caller: Caller) -> None:
        """A request with this head was authenticated in the chain as `caller`: the session takes note of that."""
        proofs = self.session.proofs
        if caller is ANONYMOUS or (caller is self._caller and self._proof in proofs.known):
            return
        self._proof = proofs.remember(self.head.headers, caller, self.session.session)
        self._caller = caller
