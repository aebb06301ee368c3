"""A session that a client names again and again is looked up once, and keeps what its client proves."""

from __future__ import annotations

import pytest

from sluiceway.pipeline.model.session import ANONYMOUS, Caller, Session
from sluiceway.pipeline.protocol.errors import SessionNotFound
from sluiceway.transports.http_source.membership import Membership
from sluiceway.transports.http_source.request import Remote, RequestHead
from sluiceway.transports.http_source.sessions import HttpSession
from sluiceway.transports.http_source.stream import Replay

ANA = Caller("ana", how="api_key")


def head_with(key: str) -> RequestHead:
    """A head with a credential."""
    return RequestHead("POST", "/mcp", b"", [(b"x-api-key", key.encode())])


def session_of(caller: Caller) -> HttpSession:
    """A session that somebody opened."""
    session = Session(id="s", source="web", caller=caller, version="2025-11-25")
    return HttpSession(session, lambda: "id", Replay(8, 1024))


def test_a_client_is_the_same_until_something_else_is_said() -> None:
    """Another head, a revision that was agreed on since, or the end of the session."""
    session, head = session_of(ANA), head_with("k")
    member = Membership(session, head, Remote("192.0.2.1"))
    seen = [member.is_of(head), member.is_of(head_with("k"))]
    session.session.version = "2025-06-18"
    seen.append(member.is_of(head))
    session.session.version = "2025-11-25"
    session.session.close()
    seen.append(member.is_of(head))

    assert [True, False, False, False] == seen
    assert ("192.0.2.1", session.session) == (member.client.address, member.client.session)


def test_what_was_proved_in_the_chain_counts_for_what_never_gets_there() -> None:
    """Only with that credential, and only if the chain said who it was."""
    session, head = session_of(ANA), head_with("k")
    member = Membership(session, head, Remote())
    member.prove(ANONYMOUS)
    with pytest.raises(SessionNotFound):
        session.admit(head.headers)
    member.prove(Caller("bob"))
    with pytest.raises(SessionNotFound):
        session.admit(head.headers)
    member.prove(ANA)
    session.admit(head.headers)

    with pytest.raises(SessionNotFound):
        session.admit(head_with("other").headers)


def test_a_credential_that_others_pushed_out_is_taken_note_of_again() -> None:
    """A session remembers eight; who goes on using one has it back with the next request."""
    session, head = session_of(ANA), head_with("k")
    member = Membership(session, head, Remote())
    member.prove(ANA)
    for number in range(8):
        Membership(session, head_with(str(number)), Remote()).prove(ANA)
    with pytest.raises(SessionNotFound):
        session.admit(head.headers)
    member.prove(ANA)

    session.admit(head.headers)
