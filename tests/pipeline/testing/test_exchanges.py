"""Exchanges by hand are what a source and an engine would have made."""

from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.mcp import Era, ErrorCode, Kind
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Request, Result
from sluiceway.pipeline.testing.exchanges import MODERN_CLIENT, legacy_client, memory_exchange

PROGRESS = Notification("notifications/progress", {"progress": 1})


async def test_an_exchange_by_hand_has_the_kind_of_its_method():
    """Calls, listens and notifications come out as what the method table says."""
    assert memory_exchange("tools/call").kind is Kind.CALL
    assert memory_exchange("subscriptions/listen").kind is Kind.LISTEN
    assert memory_exchange("notifications/cancelled").request == Notification("notifications/cancelled")


async def test_an_exchange_by_hand_carries_what_it_is_given():
    """Id, params, client, caller, source and deadline are those of the call."""
    client, caller = legacy_client("2025-06-18", "s-7"), Caller("ana")

    exchange = memory_exchange(
        "prompts/get", {"name": "p"}, request_id="x", client=client, caller=caller, source_id="here", deadline=9.0
    )

    assert exchange.request == Request("x", "prompts/get", {"name": "p"})
    assert (exchange.client, exchange.caller, exchange.source) == (client, caller, "here")
    assert exchange.deadline == 9.0


async def test_what_an_exchange_by_hand_relays_is_collected():
    """`interim` gets the notifications; without it they are dropped and counted all the same."""
    interim = []
    exchange = memory_exchange(interim=interim)
    deaf = memory_exchange()

    await exchange.relay(PROGRESS)
    await deaf.relay(PROGRESS)

    assert interim == [PROGRESS]
    assert deaf.relayed == 1


async def test_an_exchange_by_hand_can_be_asked_if_somebody_answers():
    """Without `ask`, a question gets the error of a client that cannot be asked."""

    async def ask(method, params):
        return Result({"answer": method, **params})

    answered = await memory_exchange(ask=ask).ask("roots/list", {"a": 1})
    mute = await memory_exchange().ask("roots/list", {})

    assert answered == Result({"answer": "roots/list", "a": 1})
    assert isinstance(mute, ErrorReply)
    assert mute.code == ErrorCode.METHOD_NOT_FOUND


def test_clients_of_both_eras_come_ready_made():
    """The modern one has no session, the legacy one has."""
    legacy = legacy_client()

    assert (MODERN_CLIENT.era, MODERN_CLIENT.session) == (Era.MODERN, None)
    assert legacy.era is Era.LEGACY
    assert legacy.session is not None
    assert legacy.session.id == "session-1"
