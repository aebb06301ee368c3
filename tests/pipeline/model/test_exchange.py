"""Exchanges: views for the inner chain, forks for attempts, one link for all."""

import math

import pytest
import trio

from sluiceway.pipeline.model.exchange import Exchange, Link, Patience, deliver
from sluiceway.pipeline.model.session import ANONYMOUS, Caller
from sluiceway.pipeline.protocol.errors import SessionNotFound
from sluiceway.pipeline.protocol.mcp import ErrorCode, Kind
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Request, Result
from sluiceway.pipeline.testing.exchanges import MODERN_CLIENT, legacy_client, memory_exchange

PROGRESS = Notification("notifications/progress", {"progress": 1})


async def test_delivering_counts_and_moves_the_deadline_before_it_emits(autojump_clock):
    """Both hold from the moment a notification is handed over, also if writing it fails."""
    seen = []

    async def emit(notification):
        seen.append((notification, exchange.relayed, link.deadline))
        raise trio.BrokenResourceError

    link = Link(emit, deadline=3.0, patience=Patience(timeout=3.0, most=60.0))
    exchange = Exchange(request=Request(1, "ping"), kind=Kind.CALL, client=MODERN_CLIENT, link=link)
    await trio.sleep(2)

    with pytest.raises(trio.BrokenResourceError):
        await deliver(exchange, PROGRESS)

    assert seen == [(PROGRESS, 1, 5.0)]


@pytest.mark.parametrize(
    ("patience", "method", "deadline"),
    [
        (Patience(timeout=3.0, most=60.0), "notifications/progress", 5.0),
        (Patience(timeout=3.0, most=4.5), "notifications/progress", 4.5),
        (Patience(timeout=0.5, most=60.0), "notifications/progress", 3.0),
        (Patience(timeout=3.0, most=60.0), "notifications/message", 3.0),
        (None, "notifications/progress", 3.0),
    ],
    ids=["by its timeout", "up to its maximum", "never back", "by progress only", "only if it is to"],
)
async def test_progress_moves_the_deadline(patience, method, deadline, autojump_clock):
    """Of an exchange that has 3 s, and reports after 2 s."""
    exchange = memory_exchange(deadline=3.0)
    exchange.link.patience = patience
    await trio.sleep(2)

    await deliver(exchange, Notification(method, {"progress": 1}))

    assert exchange.link.deadline == deadline


def test_method_and_target_are_read_off():
    """The target is what the method table says."""
    exchange = memory_exchange("tools/call", {"name": "search"})

    assert (exchange.method, exchange.target) == ("tools/call", "search")
    assert memory_exchange("tools/list").target is None


async def test_the_nearest_deadline_counts(mock_clock):
    """The engine's, or that of a scope around whoever asks."""
    exchange = memory_exchange(deadline=7.0)

    assert memory_exchange().deadline == math.inf
    assert exchange.deadline == 7.0
    with trio.CancelScope(deadline=5):
        await trio.lowlevel.checkpoint()
        assert exchange.deadline == 5.0
    with trio.CancelScope(deadline=9):
        await trio.lowlevel.checkpoint()
        assert exchange.deadline == 7.0


async def test_an_auth_stage_tells_every_view_who_calls():
    """The view that was authenticated, what is inside of it, and the source all see the same caller."""
    exchange = memory_exchange()
    view = exchange.with_request(Request(1, "tools/list"))
    view.authenticate(Caller("ana"))

    assert view.caller == view.link.caller == exchange.link.caller == Caller("ana")
    assert view.with_request(Request(1, "ping")).caller == Caller("ana")


async def test_who_initializes_a_session_owns_it_and_nobody_else_may_use_it():
    """Another principal is told that there is no such session; other scopes of the same one are fine."""
    client = legacy_client()
    session = client.session
    session.version = None
    memory_exchange("initialize", client=client).authenticate(Caller("ana", "acme"))
    session.version = "2025-11-25"
    memory_exchange(client=client).authenticate(Caller("ana", "acme", frozenset({"write"})))

    assert session.caller == Caller("ana", "acme")
    for stranger in (Caller("bob", "acme"), Caller("ana", "globex"), ANONYMOUS):
        exchange = memory_exchange(client=client)
        with pytest.raises(SessionNotFound, match="no such session"):
            exchange.authenticate(stranger)
        assert exchange.caller == ANONYMOUS


async def test_a_session_belongs_to_the_tenant_that_was_chosen_while_it_was_opened():
    """
    Authentication finds the same principal again in each request, before the tenant is chosen; another choice, another
    principal and another principal's choice are refused.
    """
    client = legacy_client()
    session = client.session
    session.version = None
    opening = memory_exchange("initialize", client=client)
    for caller in (Caller("ana"), Caller("ana", "acme")):
        opening.authenticate(caller)
    session.version = "2025-11-25"

    exchange = memory_exchange(client=client)
    for caller in (Caller("ana"), Caller("ana", "acme")):
        exchange.authenticate(caller)
    assert (session.caller, exchange.caller) == (Caller("ana", "acme"), Caller("ana", "acme"))
    for stranger in (Caller("ana", "globex"), Caller("bob"), Caller("bob", "acme"), ANONYMOUS):
        with pytest.raises(SessionNotFound):
            memory_exchange(client=client).authenticate(stranger)


async def test_a_handshake_tried_again_by_somebody_else_is_somebody_elses():
    """A connection whose first `initialize` failed keeps nothing of who sent it."""
    client = legacy_client()
    session = client.session
    session.version = None
    for subject in ("ana", "bob"):
        opening = memory_exchange("initialize", client=client)
        for caller in (Caller(subject), Caller(subject, "acme")):
            opening.authenticate(caller)
    session.version = "2025-11-25"

    assert session.admits(Caller("bob"))
    assert not session.admits(Caller("ana"))
    assert not session.admits(Caller("ana", "acme"))


def test_a_view_may_show_another_client():
    """A stage that hides headers from the inner chain does it with a view."""
    exchange = memory_exchange(client=legacy_client())
    view = exchange.with_client(MODERN_CLIENT)

    assert view.client is MODERN_CLIENT
    assert exchange.client is not MODERN_CLIENT


async def test_a_view_with_another_request_shares_everything_else():
    """Outer stages keep their request; marks, headers, link and caller are the same objects."""
    interim = []
    exchange = memory_exchange("tools/call", {"name": "old"}, interim=interim, caller=Caller("ana"))
    new = Request(1, "tools/call", {"name": "new"})
    view = exchange.with_request(new)
    view.marks["stage"] = 1
    view.reply_headers["x"] = "y"
    await view.relay(PROGRESS)

    assert (exchange.target, view.target) == ("old", "new")
    assert view.caller == Caller("ana")
    assert exchange.marks is view.marks
    assert exchange.reply_headers is view.reply_headers
    assert exchange.draining is view.draining
    assert (interim, exchange.relayed) == ([PROGRESS], 1)


async def test_a_view_with_another_way_back_relays_there():
    """The exchange itself keeps its own way."""
    interim, elsewhere = [], []

    async def relay(view, notification):
        elsewhere.append((view, notification))

    exchange = memory_exchange(interim=interim)
    view = exchange.with_relay(relay)
    await view.relay(PROGRESS)
    await exchange.relay(PROGRESS)

    assert elsewhere == [(view, PROGRESS)]
    assert interim == [PROGRESS]


def test_a_fork_has_its_own_marks_and_the_next_attempt_number():
    """What a stage noted before the attempt is there; what it notes in it stays in it."""
    exchange = memory_exchange()
    exchange.marks["stage"] = "before"
    fork = exchange.fork()
    fork.marks["stage"] = "in the attempt"

    assert exchange.marks == {"stage": "before"}
    assert (exchange.attempt, fork.attempt, fork.fork().attempt) == (1, 2, 3)
    assert fork.link is exchange.link


async def test_a_muted_fork_neither_relays_nor_asks():
    """An attempt that lost is not heard any more; the one that won is."""
    interim, asked = [], []

    async def ask(method, params):
        asked.append((method, params))
        return Result({"roots": []})

    exchange = memory_exchange(interim=interim, ask=ask)
    lost, won = exchange.fork(), exchange.fork()
    lost.mute()
    await lost.relay(PROGRESS)
    refused = await lost.ask("roots/list", {})

    assert interim == []
    assert isinstance(refused, ErrorReply)
    assert refused.code == ErrorCode.METHOD_NOT_FOUND

    await won.relay(PROGRESS)

    assert interim == [PROGRESS]
    assert await won.ask("roots/list", {"a": 1}) == Result({"roots": []})
    assert asked == [("roots/list", {"a": 1})]


async def test_muting_a_fork_mutes_the_views_and_forks_made_from_it():
    """An inner stage that holds a view of a lost attempt is not heard either; the exchange itself still is."""
    interim = []
    exchange = memory_exchange(interim=interim)
    lost = exchange.fork()
    view, deeper = lost.with_request(lost.request), lost.fork()
    lost.mute()
    await view.relay(PROGRESS)
    await deeper.relay(PROGRESS)

    assert interim == []

    await exchange.relay(PROGRESS)

    assert interim == [PROGRESS]


async def test_a_client_that_cannot_be_asked_is_an_error_that_names_the_question():
    """Where the source has no way to ask, the answer is -32601."""
    reply = await memory_exchange().ask("sampling/createMessage", {})

    assert reply == ErrorReply(ErrorCode.METHOD_NOT_FOUND, "this client cannot be asked: sampling/createMessage")


def test_exchanges_are_equal_only_to_themselves():
    """Identity, so that they can be keys."""
    one, other = memory_exchange(), memory_exchange()

    assert one != other
    assert len({one, other}) == 2


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (lambda exchange: exchange.with_request(Request(2, "ping")), "request"),
        (lambda exchange: exchange.with_client(legacy_client()), "client"),
        (lambda exchange: exchange.with_relay(exchange.link.emit), "way_back"),
    ],
)
def test_a_view_shares_everything_but_what_it_changes(change, changed):
    """Every field, whichever are added: a view that forgot one would fail where it is read."""
    exchange = memory_exchange("tools/call", {"name": "search"}, caller=Caller("ana"))
    exchange.correlation_id = "c-1"

    view = change(exchange)

    assert [name for name in Exchange.__struct_fields__ if getattr(view, name) is not getattr(exchange, name)] == [
        changed
    ]
