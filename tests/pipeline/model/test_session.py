"""Sessions end once, and tell those who asked."""

from typing import Any

from msgspec.structs import replace

from sluiceway.pipeline.model.session import ANONYMOUS, Caller, Client, Headers, Session
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import Notification


def make(**fields):
    """A session with only what it must have."""
    return Session(id="s-1", source="public", **fields)


def test_a_new_session_belongs_to_nobody_and_has_negotiated_nothing():
    """Defaults that a source fills in during the handshake."""
    session = make()

    assert (session.caller, session.version, session.closed) == (ANONYMOUS, None, False)
    assert (dict(session.capabilities), dict(session.info), session.state) == ({}, {}, {})


def test_what_nobody_listens_to_is_dropped():
    """`notify` is there before a source puts its own in place."""
    assert make().notify(Notification("notifications/tools/list_changed")) is None


def test_closing_tells_everybody_once_and_the_latest_first():
    """What was opened last goes first; a second `close` does nothing."""
    told = []
    session = make()
    session.on_close(lambda: told.append("first"))
    session.on_close(lambda: told.append("second"))
    session.close()
    session.close()

    assert session.closed
    assert told == ["second", "first"]


def test_who_asks_after_the_end_is_told_at_once():
    """And what it gets back is harmless."""
    told = []
    session = make()
    session.close()
    take_back = session.on_close(lambda: told.append("late"))
    take_back()

    assert told == ["late"]


def test_a_callback_can_be_taken_back():
    """Before the end it is not called any more; taking it back twice, or after the end, does nothing."""
    told = []
    session = make()
    take_back = session.on_close(lambda: told.append("taken back"))
    session.on_close(lambda: told.append("kept"))
    take_back()
    take_back()
    session.close()
    take_back()

    assert told == ["kept"]


def test_a_callback_may_take_back_another_one_while_closing():
    """The list changes while it is worked through."""
    told = []
    session = make()
    take_back = session.on_close(lambda: told.append("older"))
    session.on_close(take_back)
    session.close()

    assert told == []


def test_sessions_are_equal_only_to_themselves():
    """Two sessions with the same id, of two sources, are not one."""
    assert make() != make()


def test_a_client_without_a_session_is_in_memory():
    """What a test or a modern client looks like."""
    client = Client(era=Era.MODERN, version="2026-07-28")

    assert (client.session, client.transport, client.address, dict(client.headers)) == (None, "memory", None, {})


def test_a_client_with_other_headers_is_the_same_in_all_else():
    """Every field is taken over, and the first one keeps its own."""
    fields: Any = {name: object() for name in Client.__struct_fields__}
    client = Client(**fields)
    headers = {"host": "example.com"}

    assert client.with_headers(headers) == replace(client, headers=headers)
    assert client.headers != headers


def test_callers_are_values():
    """Equal when they say the same, and usable as keys."""
    assert Caller("ana", "acme", frozenset({"read"})) == Caller("ana", "acme", frozenset({"read"}), "none")
    assert len({Caller("ana"), Caller("ana"), ANONYMOUS}) == 2


def test_headers_are_known_without_some_names():
    """Shared ones remember the answer; whoever hides something else, or has others, gets another one."""
    hidden, all_of_them = frozenset({"cookie", "x-api-key"}), frozenset({"host", "cookie"})
    headers = Headers({"host": "a", "cookie": "b"})

    assert headers.without(hidden) == {"host": "a"}
    assert headers.without(hidden) is headers.without(hidden)
    assert headers.without(all_of_them) == {}
    assert headers.without(hidden) == {"host": "a"}
    assert headers == {"host": "a", "cookie": "b"}


def test_a_client_is_the_same_without_some_headers():
    """Wherever they come from."""
    client = Client(era=Era.MODERN, version="1", address="::1", headers={"host": "a", "cookie": "b"})
    shared = client.with_headers(Headers(client.headers))
    bare = client.with_headers({"host": "a"})

    assert client.without(frozenset({"cookie"})) == bare
    assert shared.without(frozenset({"cookie"})) == bare
    assert shared == client
