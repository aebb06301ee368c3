"""Tenants: a caller acts for one that its credential allows, whatever it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs

from sluiceway.middlewares.tenant import NoChoice, Tenant, TenantStage, allowed_to, choose
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.keys import authorization_of, principal_of
from sluiceway.pipeline.model.session import ANONYMOUS, Caller, Client
from sluiceway.pipeline.protocol.errors import Forbidden, GatewayError, SessionNotFound, render_error
from sluiceway.pipeline.protocol.messages import ErrorReply, Reply, Result
from sluiceway.pipeline.testing import FakeSink, PipelineHarness, cancel_everywhere, check_middleware
from sluiceway.pipeline.testing.exchanges import MODERN_CLIENT, legacy_client, memory_exchange

LAW = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Other sessions run on the same machine: how long an example takes says nothing."""

ANA = Caller("ana", "acme", how="bearer", tenants=frozenset({"globex"}))
BOB = Caller("bob", how="bearer", tenants=frozenset({"acme", "globex"}))
EVE = Caller("eve", "evil", how="bearer")
NOBODY = Caller("zoe", how="bearer")
META = "com.example/tenant"

TENANTS = st.sampled_from(["acme", "globex", "evil"])
CALLERS = st.builds(
    Caller, st.sampled_from(["ana", "bob"]), st.none() | TENANTS, how=st.just("bearer"), tenants=st.frozensets(TENANTS)
)


def stage_of(**options: Any) -> TenantStage:
    return TenantStage(TenantStage.Config(**{"header": "X-Tenant", "meta": META, **options}), Context(id="tenant"))


async def visit(
    stage: TenantStage, caller: Caller, *, client: Client = MODERN_CLIENT, header: Any = None, meta: Any = None
) -> tuple[Reply | GatewayError, Caller | None, Exchange]:
    """Send one exchange; the outcome, and as whom the inner chain saw it."""
    seen: list[Caller] = []

    async def inner(exchange: Exchange) -> Reply:
        await trio.lowlevel.checkpoint()
        seen.append(exchange.caller)
        return Result()

    headers: Mapping[str, str] = {} if header is None else {"x-tenant": header}
    params = {"name": "t"} if meta is None else {"name": "t", "_meta": {META: meta}}
    exchange = memory_exchange("tools/call", params, caller=caller, client=replace(client, headers=headers))
    try:
        reply: Reply | GatewayError = await stage(exchange, inner)
    except GatewayError as error:
        reply = error
    return reply, seen[0] if seen else None, exchange


@pytest.mark.parametrize(
    ("caller", "wished", "options", "tenant"),
    [
        (ANA, None, {}, "acme"),
        (ANA, "globex", {}, "globex"),
        (ANA, "acme", {}, "acme"),
        (ANA, None, {"before": "globex"}, "globex"),
        (ANA, "acme", {"before": "globex"}, "acme"),
        (ANA, None, {"before": "evil"}, "acme"),
        (ANA, None, {"default": "globex"}, "acme"),
        (BOB, "acme", {}, "acme"),
        (BOB, None, {"default": "globex"}, "globex"),
        (BOB, None, {"known": frozenset({"acme"})}, "acme"),
        (Caller("x", tenants=frozenset({"one"})), None, {}, "one"),
        (NOBODY, None, {}, None),
        (Caller("x", "", tenants=frozenset({""})), None, {}, None),
        (Caller("x", ""), None, {"default": "public"}, "public"),
        (NOBODY, None, {"default": "acme"}, "acme"),
        (NOBODY, "acme", {"default": "acme"}, "acme"),
        (ANONYMOUS, None, {"default": "public"}, "public"),
    ],
)
def test_the_tenant_that_is_chosen(caller: Caller, wished: str | None, options: Any, tenant: str | None) -> None:
    """The wish, else the session's, else the caller's own, else the default, else the only one."""
    assert tenant == choose(caller, wished, **options)


@pytest.mark.parametrize(
    ("caller", "wished", "options", "said"),
    [
        (ANA, "evil", {}, "Tenant evil not found"),
        (ANA, "", {}, "Tenant  not found"),
        (ANA, "acme, globex", {}, "Tenant acme, globex not found"),
        (ANA, "e" * 999, {}, f"Tenant {'e' * 64} not found"),
        (ANA, "globex", {"known": frozenset({"acme"})}, "Tenant globex not found"),
        (EVE, None, {"known": frozenset({"acme"})}, "Tenant not found"),
        (EVE, "acme", {"default": "acme"}, "Tenant acme not found"),
        (NOBODY, "acme", {}, "Tenant acme not found"),
        (BOB, None, {}, "several tenants are possible; name one"),
        (BOB, None, {"default": "evil"}, "several tenants are possible; name one"),
    ],
)
def test_a_tenant_that_cannot_be_chosen(caller: Caller, wished: str | None, options: Any, said: str) -> None:
    """S4-MT-04: unknown and foreign read the same."""
    with pytest.raises(NoChoice) as caught:
        choose(caller, wished, **options)
    assert said == str(caught.value)


@LAW
@given(
    CALLERS,
    st.none() | TENANTS,
    st.none() | TENANTS,
    st.none() | TENANTS,
    st.none() | st.frozensets(TENANTS),
)
def test_nobody_gets_a_tenant_beyond_its_credential(
    caller: Caller, wished: str | None, before: str | None, default: str | None, known: frozenset[str] | None
) -> None:
    """D-46, as a law: allowed by the credential (or the default of those without any), served, and the one wished."""
    try:
        tenant = choose(caller, wished, before=before, default=default, known=known)
    except NoChoice:
        return

    assert tenant is None or tenant in allowed_to(caller) or (not allowed_to(caller) and tenant == default)
    assert tenant is None or known is None or tenant in known
    assert wished is None or wished == tenant


@LAW
@given(CALLERS, CALLERS, st.none() | TENANTS, st.none() | TENANTS)
def test_what_is_kept_for_one_tenant_is_never_found_by_another(
    one: Caller, other: Caller, wish: str | None, other_wish: str | None
) -> None:
    """Keys of principals and of authorization contexts differ as soon as subject or tenant do."""

    async def keys(caller: Caller, wished: str | None) -> tuple[Any, Any, Any] | None:
        reply, seen, exchange = await visit(stage_of(), caller, header=wished)
        if not isinstance(reply, Result) or seen is None:
            return None
        return (seen.subject, seen.tenant), principal_of(exchange), authorization_of(exchange)

    first, second = trio.run(keys, one, wish), trio.run(keys, other, other_wish)

    if first is not None and second is not None and first[0] != second[0]:
        assert first[1] != second[1]
        assert first[2] != second[2]


@pytest.mark.parametrize(
    ("names", "tenant"),
    [({}, "acme"), ({"header": "globex"}, "globex"), ({"meta": "globex"}, "globex"),
     ({"header": "globex", "meta": "globex"}, "globex")],
)  # fmt: skip
async def test_a_request_may_name_its_tenant(names: Any, tenant: str) -> None:
    """In a header, whatever its case, or in `_meta`; the inner chain and the source see it."""
    reply, seen, exchange = await visit(stage_of(), ANA, **names)

    assert isinstance(reply, Result)
    assert evolve(ANA, tenant=tenant) == seen
    assert tenant == exchange.link.caller.tenant
    assert (["choose"] if names else []) == [each.outcome for each in exchange.link.decisions]


@pytest.mark.parametrize(
    ("caller", "names", "said"),
    [
        (ANA, {"header": "evil"}, "Tenant evil not found"),
        (ANA, {"meta": "evil"}, "Tenant evil not found"),
        (ANA, {"header": "acme", "meta": "globex"}, "two tenants are named; name one"),
        (ANA, {"meta": 1}, "_meta.com.example/tenant must be a text"),
        (NOBODY, {}, "Tenant not found: this credential has none"),
        (ANONYMOUS, {}, "Tenant not found: this credential has none"),
        (BOB, {}, "several tenants are possible; name one"),
    ],
)
async def test_a_refusal_as_the_client_sees_it(caller: Caller, names: Any, said: str) -> None:
    """403, and nothing of what tenants there are."""
    stage = stage_of()
    error, seen, exchange = await visit(stage, caller, **names)

    assert isinstance(error, Forbidden)
    assert ErrorReply(40300, said, {"origin": "gateway", "reason": "forbidden"}) == render_error(error)
    assert (403, None) == (error.http_status, seen)
    assert ["refuse"] == [each.outcome for each in exchange.link.decisions]
    assert [1] == [figure.value for figure in stage.figures()]


async def test_what_is_not_configured_names_nothing() -> None:
    """A header or a key that nobody named is a header or a key of somebody else's."""
    for options in ({"header": None}, {"meta": None}):
        names: dict[str, Any] = {"header": "globex"} if options == {"header": None} else {"meta": "globex"}
        _, seen, _ = await visit(stage_of(**options), ANA, **names)

        assert ANA == seen


async def test_only_listed_and_enabled_tenants_are_served() -> None:
    """S4-MT-01: a credential may name others; they do not exist here. What is served is logged and shown."""
    tenants = {"acme": Tenant(name="Acme Ltd"), "globex": Tenant(enabled=False), "initech": Tenant()}
    stage = stage_of(tenants=tenants)
    with capture_logs() as logs:
        stage = TenantStage(stage.config, Context(id="tenant"))
        async with stage.open():
            ana, _, _ = await visit(stage, ANA)
            gone, _, _ = await visit(stage, ANA, header="globex")
            eve, _, _ = await visit(stage, EVE)

    assert isinstance(ana, Result)
    assert isinstance(gone, Forbidden)
    assert isinstance(eve, Forbidden)
    assert [("Tenant initialized", "acme", "Acme Ltd"), ("Tenant initialized", "initech", "initech")] == [
        (line["event"], line["tenant"], line["name"]) for line in logs
    ]
    assert {"tenants": {"acme": "Acme Ltd", "initech": "initech"}} == stage.details()


async def test_callers_without_a_tenant_may_be_let_through() -> None:
    """`required: false`: as they are. `default`: as that tenant."""
    _, bare, _ = await visit(stage_of(required=False), NOBODY)
    _, public, _ = await visit(stage_of(default="public"), ANONYMOUS)

    assert NOBODY == bare
    assert evolve(ANONYMOUS, tenant="public") == public


def test_a_default_that_is_not_served_is_an_error() -> None:
    """At the check."""
    with pytest.raises(ValueError, match="default: 'x' is not one of tenants: acme"):
        TenantStage.Config(tenants={"acme": Tenant()}, default="x")


async def open_session(stage: TenantStage, caller: Caller, header: str | None) -> Client:
    """A legacy client's handshake through authentication and the stage."""
    client = legacy_client()
    session = client.session
    assert session is not None
    session.version = None
    await arrive(stage, caller, client, header)
    session.version = "2025-11-25"
    return client


async def arrive(stage: TenantStage, caller: Caller, client: Client, header: str | None) -> Caller:
    """One exchange as it comes: nobody until it is authenticated, then the stage."""

    async def inner(exchange: Exchange) -> Reply:
        await trio.lowlevel.checkpoint()
        return Result()

    exchange = memory_exchange("ping", client=replace(client, headers={} if header is None else {"x-tenant": header}))
    exchange.authenticate(caller)
    await stage(exchange, inner)
    return exchange.caller


@pytest.mark.parametrize(("caller", "header"), [(ANA, "globex"), (ANA, None), (BOB, "acme"), (BOB, "globex")])
async def test_a_session_belongs_to_the_tenant_it_was_opened_for(caller: Caller, header: str | None) -> None:
    """Named once, in the handshake, it holds; the same principal as another tenant, or another one, finds nothing."""
    stage = stage_of()
    client = await open_session(stage, caller, header)
    tenant = header or "acme"
    other = "acme" if tenant == "globex" else "globex"

    assert tenant == (await arrive(stage, caller, client, None)).tenant
    assert tenant == (await arrive(stage, caller, client, tenant)).tenant
    with pytest.raises(SessionNotFound):
        await arrive(stage, caller, client, other)
    for stranger in (EVE, NOBODY, evolve(caller, subject="mallory")):
        with pytest.raises(SessionNotFound):
            await arrive(stage, stranger, client, None)


async def test_a_session_of_a_default_tenant_goes_on() -> None:
    """Its principal never had a tenant of its own."""
    stage = stage_of(default="public")
    client = await open_session(stage, NOBODY, None)

    assert "public" == (await arrive(stage, NOBODY, client, None)).tenant


async def test_stages_behind_it_are_told_apart_by_tenant(autojump_clock: Any) -> None:
    """S4-MT-05: what a tenant gets of its own stands in the stages, guarded by its name."""
    limited = {"max_in_flight": 1, "when": {"tenant": ["globex"]}}
    data = {
        "version": 1,
        "sources": {"public": {"http": {"bind": "127.0.0.1:0"}}},
        "pipelines": {"main": {"chain": [{"tenant": {"meta": META}}, {"concurrency_limit": limited}], "sink": "up"}},
        "sinks": {"up": {"http": {"url": "http://127.0.0.1:9/mcp"}}},
    }
    async with PipelineHarness.from_data(data, sinks={"up": FakeSink.slow(1)}) as gateway:
        gateway.caller = BOB
        calls = {
            tenant: [gateway.start("tools/call", name="t", _meta={META: tenant}) for _ in range(2)]
            for tenant in ("acme", "globex")
        }
        replies = {tenant: [await call.wait() for call in started] for tenant, started in calls.items()}

    assert [Result, Result] == [type(reply) for reply in replies["acme"]]
    assert {Result, ErrorReply} == {type(reply) for reply in replies["globex"]}


async def test_it_can_be_cancelled_anywhere(autojump_clock: Any) -> None:
    """It holds nothing."""
    async with PipelineHarness.from_stages([(TenantStage, {"default": "acme"})]) as gateway:
        await cancel_everywhere(lambda: gateway.call("tools/call", name="x"))


@pytest.mark.parametrize("options", [{"default": "acme"}, {"required": False, "header": "x-tenant", "meta": META}])
def test_it_keeps_the_contract_of_stages(options: Any) -> None:
    """For callers with a tenant and without."""
    check_middleware(TenantStage, options)
