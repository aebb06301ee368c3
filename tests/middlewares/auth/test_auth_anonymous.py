"""Who shows no credential comes in by choice, and nobody else."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sluiceway.middlewares.auth_anonymous import AuthAnonymous
from sluiceway.pipeline.model.session import ANONYMOUS, Caller
from sluiceway.pipeline.protocol.errors import SessionNotFound, Unauthenticated
from sluiceway.pipeline.testing import check_middleware
from sluiceway.pipeline.testing.exchanges import legacy_client, memory_exchange


def service(bench, sink, **options):
    return bench.service(sink, AuthAnonymous(AuthAnonymous.Config(**options), bench.context("auth")))


async def test_nobody_in_particular_comes_in(bench, answer):
    """As before, and with a decision; cookies go no further."""
    seen = []

    async def sink(exchange):
        seen.append(dict(exchange.client.headers))
        return await answer(exchange)

    exchange = bench.exchange(headers={"cookie": "c", "accept": "a"})
    await service(bench, sink)(exchange)

    assert exchange.caller == ANONYMOUS
    assert seen == [{"accept": "a"}]
    assert [(d.outcome, d.cause) for d in exchange.link.decisions] == [("allow", "")]


async def test_a_fixed_principal(bench, answer):
    """For stdio, where there is one client and the configuration knows who it is."""
    exchange = bench.exchange()
    options = {"subject": "ana", "tenant": "acme", "roles": ("dev",), "scopes": ("read",)}
    await service(bench, answer, **options)(exchange)

    assert exchange.caller == Caller("ana", "acme", frozenset({"read"}), "fixed", frozenset({"dev"}))


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
async def test_a_credential_that_nobody_took_is_refused(bench, answer, header):
    """A wrong one must not turn its owner into nobody."""
    exchange = bench.exchange(headers={header: "Bearer x"})
    with pytest.raises(Unauthenticated) as caught:
        await service(bench, answer)(exchange)

    assert caught.value.challenge == 'Bearer realm="sluiceway"'
    assert [(d.outcome, d.cause) for d in exchange.link.decisions] == [("refuse", "credential of no kind")]


async def test_other_transports_are_refused_or_left_to_the_next_stage(bench, answer):
    """By `optional`."""
    stdio = replace(bench.exchange().client, transport="stdio")
    for transport, optional, subject in (("stdio", False, "me"), ("http", True, "anonymous"), ("http", False, None)):
        exchange = bench.exchange()
        exchange.client = replace(stdio, transport=transport)
        serve = service(bench, answer, subject="me", transports=("stdio",), optional=optional)
        if subject is None:
            with pytest.raises(Unauthenticated, match="over http"):
                await serve(exchange)
        else:
            await serve(exchange)
            assert exchange.caller.subject == subject


async def test_a_session_of_somebody_is_not_nobodys(bench, answer):
    """Who knows its id has not yet its owner's credential."""
    client = legacy_client()
    client.session.caller = Caller("ana", how="bearer")
    with pytest.raises(SessionNotFound):
        await service(bench, answer)(memory_exchange(client=client))


def test_a_subject_has_a_name():
    """Or it would be nobody and somebody."""
    with pytest.raises(ValueError, match="must not be empty"):
        AuthAnonymous.Config(subject="")


def test_it_keeps_the_contract_of_stages():
    """As nobody and as somebody."""
    check_middleware(AuthAnonymous)
    check_middleware(AuthAnonymous, {"subject": "me", "transports": ["stdio"], "optional": True})
