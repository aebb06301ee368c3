"""Keys: who they let in, what they refuse, where they come from, and that none is kept or passed on."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count

import pytest
import trio
from msgspec.structs import replace

from sluiceway.middlewares.auth.api_keys import ApiKey, digest_of, make_key, render_keys
from sluiceway.middlewares.auth_api_key import AuthApiKey
from sluiceway.pipeline.model.component import Context, State
from sluiceway.pipeline.model.options import Secret
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import MalformedCredentials, SessionNotFound, Unauthenticated
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.stores.memory import MemoryStore
from sluiceway.pipeline.testing import cancel_everywhere, check_middleware
from sluiceway.pipeline.testing.exchanges import MODERN_CLIENT, legacy_client, memory_exchange

PEPPER = "a pepper of some length"
ANA, BOB = make_key("ana" * 15), make_key("bob" * 15)
NOON = 1_800_000_000.0


def record(key, subject="ana", **more):
    return ApiKey(id=f"key of {subject}", digest=digest_of(PEPPER.encode(), key), subject=subject, **more)


@pytest.fixture
def keys(tmp_path, monkeypatch):
    """A file with the keys of two people, and the pepper in the environment."""
    monkeypatch.setenv("PEPPER", PEPPER)
    path = tmp_path / "keys.json"
    ana = record(ANA, tenant="acme", tenants=("globex",), roles=("dev",), scopes=("read",))
    path.write_bytes(render_keys([ana, record(BOB, "bob")]))
    return path


def stage(bench, keys, **options):
    if "store" not in options:
        options["file"] = keys
    config = AuthApiKey.Config(pepper=Secret(from_env="PEPPER"), **options)
    context = bench.context("auth")
    context.now = lambda: NOON
    return AuthApiKey(config, context)


@asynccontextmanager
async def opened(bench, keys, answer, **options):
    """The stage around a sink, as a service, and the callers and headers that the sink has seen."""
    auth = stage(bench, keys, **options)
    seen = []

    async def sink(exchange):
        seen.append((exchange.caller, dict(exchange.client.headers)))
        return await answer(exchange)

    async with auth.open():
        yield auth, bench.service(sink, auth), seen


async def test_a_key_establishes_its_caller(bench, keys, answer):
    """Subject, tenants, roles and scopes are those beside the digest; the decision names the key, not its text."""
    async with opened(bench, keys, answer) as (_, service, seen):
        exchange = bench.exchange(headers={"x-api-key": ANA, "user-agent": "u", "cookie": "c"})
        reply = await service(exchange)

    caller = Caller(
        "ana", "acme", frozenset({"read"}), "api_key", frozenset({"dev"}), frozenset({"globex"}), "key of ana"
    )
    assert reply == Result({"answered": "tools/call"})
    assert seen == [(caller, {"user-agent": "u"})]
    assert exchange.caller == exchange.link.caller == caller
    assert [(d.stage, d.outcome, d.cause) for d in exchange.link.decisions] == [("auth", "allow", "key of ana")]


@pytest.mark.parametrize("method", ["tools/call", "initialize", "subscriptions/listen", "notifications/initialized"])
@pytest.mark.parametrize(
    ("headers", "cause"),
    [
        ({}, "no credential"),
        ({"authorization": f"Bearer {ANA}"}, "no credential"),
        ({"x-api-key": ANA[:-1]}, "unknown key"),
        ({"x-api-key": ANA + "="}, "unknown key"),
        ({"x-api-key": ANA.upper()}, "unknown key"),
    ],
)
async def test_without_a_right_key_nobody_comes_in(bench, keys, answer, method, headers, cause):
    """Whatever is asked, 401, with a challenge and a decision; the refusal does not repeat what was sent."""
    async with opened(bench, keys, answer) as (_, service, seen):
        exchange = bench.exchange(method, headers=headers)
        with pytest.raises(Unauthenticated) as caught:
            await service(exchange)

    assert (caught.value.http_status, caught.value.challenge) == (401, 'ApiKey realm="sluiceway"')
    assert [(d.outcome, d.cause) for d in exchange.link.decisions] == [("refuse", cause)]
    assert ANA[:-1] not in str(caught.value)
    assert seen == []


@pytest.mark.parametrize("value", ["", "a b", f"{ANA}, {BOB}", "\u00e4" * 30, "k" * 513, "a\tb"])
async def test_what_cannot_be_a_key_is_malformed(bench, keys, answer, value):
    """400: the header stands twice, or holds what no key consists of."""
    async with opened(bench, keys, answer) as (_, service, _seen):
        with pytest.raises(MalformedCredentials) as caught:
            await service(bench.exchange(headers={"x-api-key": value}))

    assert caught.value.http_status == 400


async def test_an_expired_key_is_refused(bench, keys, answer):
    """From the second it names."""
    moment = datetime.fromtimestamp(NOON, UTC)
    keys.write_bytes(render_keys([record(ANA, expires=moment)]))
    async with opened(bench, keys, answer) as (auth, service, _):
        with pytest.raises(Unauthenticated, match="has expired"):
            await service(bench.exchange(headers={"x-api-key": ANA}))
        auth.context.now = lambda: NOON - 0.001

        assert await service(bench.exchange(headers={"x-api-key": ANA})) == Result({"answered": "tools/call"})


async def test_a_key_that_is_remembered_expires_all_the_same(bench, keys, answer):
    """Who was let in a moment ago is asked for the date again."""
    keys.write_bytes(render_keys([record(ANA, expires=datetime.fromtimestamp(NOON, UTC))]))
    async with opened(bench, keys, answer) as (auth, service, seen):
        auth.context.now = lambda: NOON - 1
        for _ in range(2):
            await service(bench.exchange(headers={"x-api-key": ANA}))
        auth.context.now = lambda: NOON
        with pytest.raises(Unauthenticated, match="has expired"):
            await service(bench.exchange(headers={"x-api-key": ANA}))

    assert len(seen) == 2


async def test_keys_are_remembered_for_a_moment_only(bench, keys, answer, autojump_clock, monkeypatch):
    """Until the file is looked at again, and no more of them than there is room for; unknown ones never."""
    monkeypatch.setattr("sluiceway.middlewares.auth_api_key._MAX_SEEN", 1)
    async with opened(bench, keys, answer, reload=3) as (auth, service, _):
        for key in (ANA, BOB, ANA, BOB):
            await service(bench.exchange(headers={"x-api-key": key}))
        with pytest.raises(Unauthenticated):
            await service(bench.exchange(headers={"x-api-key": make_key("eve" * 15)}))
        remembered = set(auth._seen)
        await trio.sleep(3.1)

        assert (remembered, auth._seen) == ({BOB}, {})


@pytest.mark.parametrize(
    ("scheme", "sent", "found"),
    [("ApiKey", f"apikey {ANA}", True), ("Bearer", f"Bearer {ANA}", True), ("ApiKey", f"Bearer {ANA}", False)],
)
async def test_the_key_may_stand_behind_a_scheme(bench, keys, answer, scheme, sent, found):
    """Schemes are compared without case; another scheme is another kind of credential."""
    async with opened(bench, keys, answer, header="Authorization", scheme=scheme, optional=True) as (_, service, seen):
        await service(bench.exchange(headers={"authorization": sent}))

    assert [caller.subject for caller, _ in seen] == ["ana" if found else "anonymous"]


async def test_an_optional_stage_leaves_to_the_next_what_is_no_key(bench, keys, answer):
    """No credential, or a bearer token that is no key of ours; a wrong key it refuses all the same."""
    async with opened(bench, keys, answer, header="authorization", scheme="Bearer", optional=True) as (
        _,
        service,
        seen,
    ):
        exchange = bench.exchange(headers={"authorization": "Bearer ey.a.token"})
        await service(exchange)
        with pytest.raises(Unauthenticated):
            await service(bench.exchange(headers={"authorization": f"Bearer {make_key('0' * 43)}"}))

    assert seen == [(exchange.caller, {"authorization": "Bearer ey.a.token"})]
    assert [(d.outcome, d.cause) for d in exchange.link.decisions] == [("pass", "no credential")]


async def test_who_is_established_is_not_asked_again(bench, keys, answer):
    """A stage before this one has spoken."""
    async with opened(bench, keys, answer) as (_, service, seen):
        await service(bench.exchange(caller=Caller("eve", how="mtls")))

    assert [caller.subject for caller, _ in seen] == ["eve"]


async def test_subjects_can_have_a_prefix(bench, keys, answer):
    """So that a key's subject is not a token's by accident."""
    async with opened(bench, keys, answer, prefix="key:") as (_, service, seen):
        await service(bench.exchange(headers={"x-api-key": BOB}))

    assert [caller.subject for caller, _ in seen] == ["key:bob"]


async def test_a_session_is_its_principals(bench, keys, answer):
    """Another one's key gets 404, and a decision that says why."""
    async with opened(bench, keys, answer) as (_, service, _seen):
        client = legacy_client()
        client.session.caller = Caller("bob", how="api_key")
        exchange = memory_exchange(client=replace(client, headers={"x-api-key": ANA}))
        with pytest.raises(SessionNotFound):
            await service(exchange)

    assert [(d.outcome, d.cause) for d in exchange.link.decisions] == [("refuse", "session of another principal")]


async def test_a_changed_file_is_taken_over(bench, keys, answer, autojump_clock):
    """Two keys of one subject are valid at once; a revoked one is refused after `reload` at the latest."""
    async with opened(bench, keys, answer, reload=3) as (_, service, seen):
        new = make_key("new" * 15)
        rotated = evolve_key(record(new), id="second")
        keys.write_bytes(render_keys([record(ANA), rotated]))
        await trio.sleep(3.1)
        for key in (ANA, new):
            await service(bench.exchange(headers={"x-api-key": key}))
        keys.write_bytes(render_keys([rotated]))
        await trio.sleep(3.1)
        with pytest.raises(Unauthenticated):
            await service(bench.exchange(headers={"x-api-key": ANA}))

    assert [(caller.subject, caller.credential) for caller, _ in seen] == [("ana", "key of ana"), ("ana", "second")]


def evolve_key(key, **changes):
    return ApiKey(**{name: getattr(key, name) for name in key.__struct_fields__} | changes)


async def test_a_stage_that_opens_again_knows_only_the_keys_of_now(bench, keys, answer):
    """Whom it let in before it was closed needs a key that is in the file when it opens."""
    async with opened(bench, keys, answer) as (auth, service, _):
        await service(bench.exchange(headers={"x-api-key": ANA}))
    keys.write_bytes(render_keys([record(BOB, "bob")]))

    async with auth.open():
        with pytest.raises(Unauthenticated):
            await service(bench.exchange(headers={"x-api-key": ANA}))


async def test_a_broken_file_leaves_the_keys_as_they_were(bench, keys, answer, autojump_clock):
    """The stage says that it is degraded, once, and that it is ready again when the file is."""
    states = []
    async with opened(bench, keys, answer) as (auth, service, seen):
        auth.context.report = lambda state, reason: states.append((state, reason[:30]))
        good = keys.read_bytes()
        keys.write_bytes(b"{")
        await trio.sleep(20)
        await service(bench.exchange(headers={"x-api-key": ANA}))
        keys.unlink()
        await trio.sleep(6)
        keys.write_bytes(good)
        await trio.sleep(6)
        await service(bench.exchange(headers={"x-api-key": ANA}))

    reason = "the file of keys cannot be use"
    assert states == [(State.DEGRADED, reason), (State.DEGRADED, reason), (State.READY, "")]
    assert len(seen) == 2
    assert bench.events().count("the file of keys cannot be used; the keys stay as they were") == 2


@pytest.mark.parametrize(
    ("pepper", "content", "complaint"),
    [
        ("short", None, "the pepper has 5 bytes; it needs 16"),
        (PEPPER, b"{}x", "not a file of keys"),
        (PEPPER, b'{"keys": [{"id": "a"}]}', "not a file of keys"),
    ],
)
async def test_a_stage_that_cannot_know_its_keys_does_not_open(bench, keys, monkeypatch, pepper, content, complaint):
    """With a sentence for the operator."""
    monkeypatch.setenv("PEPPER", pepper)
    if content is not None:
        keys.write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        async with stage(bench, keys).open():
            pass


async def test_a_file_that_is_too_large_is_not_read(bench, keys, monkeypatch):
    """It could be anything."""
    monkeypatch.setattr("sluiceway.middlewares.auth_api_key._MAX_FILE", 10)
    with pytest.raises(ValueError, match="more than 10 bytes"):
        async with stage(bench, keys).open():
            pass


# Keys in a store.


@pytest.fixture
def store():
    return MemoryStore(MemoryStore.Config(), Context(id="store"))


@asynccontextmanager
async def with_store(bench, keys, answer, store, **options):
    async with store.open():
        auth = stage(bench, keys, store="state", **options)
        auth.context.stores = lambda _: store
        async with auth.open():
            yield auth, bench.service(answer, auth)


async def test_keys_of_a_store_are_issued_listed_and_revoked(bench, keys, answer, store, autojump_clock):
    """The key is shown once; the store has its digest; a revocation takes effect at once here."""
    async with with_store(bench, keys, answer, store) as (auth, service):
        issued = await auth.act("issue", {"subject": "ana", "tenant": "acme", "scopes": ["read"]})
        key = issued["key"]
        listed = await auth.act("list", {})
        reply = await service(bench.exchange(headers={"x-api-key": key}))
        kept = [await store.get(place) for place in await store.keys()]
        revoked = await auth.act("revoke", {"id": issued["id"]})
        with pytest.raises(Unauthenticated):
            await service(bench.exchange(headers={"x-api-key": key}))

    assert reply == Result({"answered": "tools/call"})
    assert listed == [{"id": issued["id"], "subject": "ana", "tenant": "acme", "scopes": ["read"]}]
    assert revoked == {"revoked": issued["id"]}
    assert len(kept) == 1
    assert key.encode() not in kept[0]


async def test_what_a_store_says_is_believed_for_a_while(bench, keys, answer, store, autojump_clock):
    """`reload` bounds how long a key works that somebody else revoked, and that a new one does not."""
    async with with_store(bench, keys, answer, store, reload=2) as (auth, service):
        key = (await auth.act("issue", {"subject": "ana"}))["key"]
        exchange = bench.exchange(headers={"x-api-key": key})
        await service(exchange)
        (place,) = await store.keys()
        await store.delete(place)
        await trio.sleep(1.9)
        await service(bench.exchange(headers={"x-api-key": key}))
        await trio.sleep(0.2)
        with pytest.raises(Unauthenticated):
            await service(bench.exchange(headers={"x-api-key": key}))


async def test_stages_with_one_namespace_share_keys(bench, keys, answer, store, autojump_clock):
    """And those with different ones do not."""
    async with with_store(bench, keys, answer, store, namespace="a") as (auth, _):
        key = (await auth.act("issue", {"subject": "ana"}))["key"]
    async with with_store(bench, keys, answer, store, namespace="a") as (_, service):
        await service(bench.exchange(headers={"x-api-key": key}))
    async with with_store(bench, keys, answer, store, namespace="b") as (_, service):
        with pytest.raises(Unauthenticated):
            await service(bench.exchange(headers={"x-api-key": key}))


async def test_an_entry_that_is_no_key_lets_nobody_in(bench, keys, answer, store, autojump_clock):
    """It is logged, and that is all."""
    async with with_store(bench, keys, answer, store) as (auth, service):
        key = (await auth.act("issue", {"subject": "ana"}))["key"]
        (place,) = await store.keys()
        await store.put(place, b"rubbish")
        with pytest.raises(Unauthenticated):
            await service(bench.exchange(headers={"x-api-key": key}))

    assert "an entry of the store is no key" in bench.events()


async def test_what_a_store_said_is_bounded(bench, keys, answer, store, monkeypatch, autojump_clock):
    """Guessing fills nothing."""
    monkeypatch.setattr("sluiceway.middlewares.auth.stored_keys._MAX_REMEMBERED", 5)
    async with with_store(bench, keys, answer, store) as (auth, service):
        for number in range(20):
            with pytest.raises(Unauthenticated):
                await service(bench.exchange(headers={"x-api-key": f"guess-{number}"}))

        assert len(auth._stored._remembered) == 5


@pytest.mark.parametrize(
    ("action", "arguments", "complaint"),
    [
        ("issue", {}, "issue: .*subject"),
        ("issue", {"subject": "ana", "colour": "red"}, "issue: .*colour"),
        ("issue", {"subject": "ana", "expires": "2027-01-01T00:00:00"}, "needs a time zone"),
        ("issue", {"subject": "ana", "id": "taken"}, "there is a key 'taken' already"),
        ("revoke", {"id": "nobody"}, "there is no key 'nobody'"),
        ("revoke", {}, "there is no key None"),
    ],
)
async def test_wrong_arguments_are_told(bench, keys, answer, store, action, arguments, complaint):
    """By name."""
    async with with_store(bench, keys, answer, store) as (auth, _):
        await auth.act("issue", {"subject": "ana", "id": "taken"})
        with pytest.raises(ValueError, match=complaint):
            await auth.act(action, arguments)


async def test_there_are_at_most_so_many_keys(bench, keys, answer, store, monkeypatch):
    """A store is bounded."""
    monkeypatch.setattr("sluiceway.middlewares.auth.stored_keys.MAX_KEYS", 1)
    async with with_store(bench, keys, answer, store) as (auth, _):
        await auth.act("issue", {"subject": "ana"})
        with pytest.raises(ValueError, match="revoke some"):
            await auth.act("issue", {"subject": "bob"})


async def test_keys_of_a_file_are_not_made_by_the_stage(bench, keys, answer):
    """The command does that; and there is no other action."""
    async with opened(bench, keys, answer) as (auth, _, _seen):
        with pytest.raises(ValueError, match="sluiceway keys"):
            await auth.act("list", {})
        with pytest.raises(LookupError, match="no action 'dance'"):
            await auth.act("dance", {})


# Declarations.


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "from a file or from a store"),
        ({"file": "k", "store": "s"}, "from a file or from a store"),
        ({"file": "k", "header": "x y"}, "header: 'x y'"),
        ({"file": "k", "header": "Authorization"}, "scheme: the header authorization needs one"),
        ({"file": "k", "header": "authorization", "scheme": "two words"}, "scheme: 'two words'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, complaint):
    """When the configuration is read."""
    with pytest.raises(ValueError, match=complaint):
        AuthApiKey.Config(pepper=Secret(from_env="PEPPER"), **options)


async def test_decisions_are_counted(bench, keys, answer):
    """For metrics and for status."""
    async with opened(bench, keys, answer, optional=True) as (auth, service, _):
        for headers in ({"x-api-key": ANA}, {"x-api-key": BOB}, {}, {"x-api-key": "wrong"}):
            exchange = bench.exchange(headers=headers)
            if headers.get("x-api-key") == "wrong":
                with pytest.raises(Unauthenticated):
                    await service(exchange)
            else:
                await service(exchange)

        assert {f.labels["outcome"]: f.value for f in auth.figures()} == {"allow": 2, "refuse": 1, "pass": 1}
        assert json.loads(json.dumps(auth.details())) == {"allow": 2, "refuse": 1, "pass": 1}


def test_it_keeps_the_contract_of_stages(keys):
    """With a client that shows a key."""
    client = replace(MODERN_CLIENT, headers={"x-api-key": ANA})
    options = {"pepper": {"from_env": "PEPPER"}}
    check_middleware(AuthApiKey, {**options, "file": str(keys)}, client=client)
    check_middleware(AuthApiKey, {**options, "store": "state", "optional": True})


async def test_it_can_be_cancelled_anywhere(bench, keys, answer, store, autojump_clock):
    """Nothing stays behind, and the next one comes in."""

    numbers = count(1)

    async def passage():
        async with with_store(bench, keys, answer, store) as (auth, service):
            key = (await auth.act("issue", {"subject": "ana", "id": f"key {next(numbers)}"}))["key"]
            await service(bench.exchange(headers={"x-api-key": key}))

    await cancel_everywhere(passage)
