"""The stage against an authorization server on a real socket, and against none."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from attrs import evolve
from msgspec.structs import replace
from trio.testing import wait_all_tasks_blocked

from sluiceway.middlewares.auth.bearer_config import BearerConfig, Claims, Introspect, Need
from sluiceway.middlewares.auth_bearer import AuthBearer
from sluiceway.pipeline.model.component import State
from sluiceway.pipeline.model.options import Secret
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.model.when import When
from sluiceway.pipeline.protocol.errors import Forbidden, MalformedCredentials, Unauthenticated, UpstreamUnavailable
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import cancel_everywhere, check_middleware
from sluiceway.pipeline.testing.exchanges import MODERN_CLIENT

GATEWAY = "https://gateway.example.com/mcp"
ISSUER = "https://id.example.com"
NOW = 1_800_000_000
PLACE = "https://gateway.example.com/.well-known/oauth-protected-resource/mcp"
METADATA = f'resource_metadata="{PLACE}"'
OK = Result({"answered": "tools/call"})


class Told(list):
    """What a stage reported of itself."""

    def __init__(self):
        super().__init__()
        self._news = trio.Event()

    def __call__(self, state, reason):
        self.append((state, reason))
        self._news.set()
        self._news = trio.Event()

    async def until(self, state):
        """Wait until that was the latest."""
        while self[-1][0] is not state:
            await self._news.wait()


@asynccontextmanager
async def opened(bench, sink, issuer_url, *, now=NOW, **options):
    """The stage around a sink; what its context was told."""
    context = bench.context("auth")
    context.now = lambda: now
    context.report = told = Told()
    stage = AuthBearer(BearerConfig(issuer=issuer_url, **{"resource": GATEWAY} | options), context)
    async with stage.open():
        yield stage, bench.service(sink, stage), told


@pytest.fixture
def own_keys(issuer, tmp_path):
    """Options with the issuer's keys in a file: nothing is fetched."""
    path = tmp_path / "jwks.json"
    path.write_bytes(issuer.jwks("rsa", "ec", "ed"))
    return {"issuer_url": ISSUER, "jwks": Secret(from_file=path)}


def bearer(bench, token, method="tools/call", **more):
    return bench.exchange(method, headers={"authorization": f"Bearer {token}", **more})


async def test_a_token_establishes_its_caller(bench, issuer, own_keys):
    """Subject, tenants, roles and scopes are what the configured claims say; the token goes no further."""
    seen = []

    async def sink(exchange):
        seen.append((exchange.caller, dict(exchange.client.headers)))
        return OK

    claims = Claims(tenant="org.name", tenants="orgs", roles=("realm_access.roles", "https://example.com/roles"))
    token = issuer.token(
        scope="read write", org={"name": "acme"}, orgs=["globex"], realm_access={"roles": ["dev"]},
        **{"https://example.com/roles": ["ops"]},
    )  # fmt: skip
    async with opened(bench, sink, **own_keys, claims=claims, prefix="idp:") as (_, service, _told):
        exchange = bearer(bench, token, accept="a")
        assert await service(exchange) == OK

    caller, headers = seen[0]
    assert evolve(caller, credential="") == Caller(
        "idp:ana", "acme", frozenset({"read", "write"}), "bearer", frozenset({"dev", "ops"}), frozenset({"globex"})
    )
    assert caller.credential.startswith("sha256:")
    assert headers == {"accept": "a"}
    assert [(d.outcome, d.cause) for d in exchange.link.decisions] == [("allow", caller.credential)]


@pytest.mark.parametrize(
    ("headers", "kind", "challenge", "cause"),
    [
        ({}, Unauthenticated, f'Bearer scope="mcp", {METADATA}', "no credential"),
        ({"authorization": "Basic YTpi"}, Unauthenticated, f'Bearer scope="mcp", {METADATA}', "no credential"),
        ({"authorization": "Bearer"}, MalformedCredentials, f'Bearer error="invalid_request", {METADATA}', "malformed"),
        ({"authorization": "Bearer a, Bearer b"}, MalformedCredentials,
         f'Bearer error="invalid_request", {METADATA}', "malformed"),
        ({"authorization": "Bearer " + "a" * 20_000}, MalformedCredentials,
         f'Bearer error="invalid_request", {METADATA}', "malformed"),
        ({"authorization": "nonsense"}, Unauthenticated, f'Bearer scope="mcp", {METADATA}', "no credential"),
        ({"authorization": ""}, MalformedCredentials, f'Bearer error="invalid_request", {METADATA}', "malformed"),
        ({"authorization": "Bearer opaque"}, Unauthenticated,
         f'Bearer error="invalid_token", error_description="not a JWT", scope="mcp", {METADATA}', "not a JWT"),
    ],
)  # fmt: skip
async def test_refusals_have_the_forms_of_rfc_6750(bench, answer, own_keys, headers, kind, challenge, cause):
    """400 for what is no bearer token, 401 without `error` when there is none, 401 with it for a wrong one."""
    async with opened(bench, answer, **own_keys, require=("mcp",)) as (_, service, _told):
        exchange = bench.exchange(headers=headers)
        with pytest.raises(kind) as caught:
            await service(exchange)

    assert type(caught.value) is kind
    assert caught.value.challenge == challenge
    assert [(d.outcome, d.cause) for d in exchange.link.decisions] == [("refuse", cause)]


@pytest.mark.parametrize(
    ("claims", "cause"),
    [({"aud": "https://other.example"}, "wrong audience"), ({"exp": NOW - 60}, "expired"),
     ({"iss": "https://evil.example"}, "wrong issuer"), ({"sub": ""}, "no subject"),
     ({"sub": "a\nb"}, "malformed claims"), ({"scope": "s " * 300}, "malformed claims")],
)  # fmt: skip
async def test_a_token_that_is_not_for_us_now_is_refused(bench, answer, issuer, own_keys, claims, cause):
    """Reliability case 26."""
    async with opened(bench, answer, **own_keys) as (_, service, _told):
        with pytest.raises(Unauthenticated) as caught:
            await service(bearer(bench, issuer.token(**claims)))

    assert caught.value.challenge == f'Bearer error="invalid_token", error_description="{cause}", {METADATA}'


async def test_who_lacks_a_scope_is_told_all_that_are_needed(bench, answer, issuer, own_keys):
    """403, RFC 6750 section 3.1; the audit knows who it was."""
    needs = (Need(when=When(name=("echo",)), scopes=("files:write", "offline_access")),)
    async with opened(bench, answer, **own_keys, require=("mcp",), needs=needs) as (stage, service, _told):
        exchange = bearer(bench, issuer.token(scope="mcp"))
        with pytest.raises(Forbidden) as caught:
            await service(exchange)
        listed = await service(bearer(bench, issuer.token(scope="mcp"), "tools/list"))
        published = stage.resource_metadata("public")

    assert caught.value.challenge == (
        'Bearer error="insufficient_scope", error_description="the token lacks a scope", '
        f'scope="files:write mcp offline_access", {METADATA}'
    )
    assert caught.value.scopes == ("files:write", "mcp", "offline_access")
    assert exchange.link.caller.subject == "ana"
    assert [(d.outcome, d.cause) for d in exchange.link.decisions] == [("refuse", "insufficient scope")]
    assert listed == Result({"answered": "tools/list"})
    assert published["scopes_supported"] == ["files:write", "mcp"]


async def test_a_scope_can_include_others(bench, answer, issuer, own_keys):
    """Directly, or through others; a circle is no harm."""
    implies = {"admin": ("write",), "write": ("read", "admin")}
    async with opened(bench, answer, **own_keys, require=("read",), implies=implies) as (_, service, _told):
        exchange = bearer(bench, issuer.token(scope="admin other"))
        await service(exchange)

    assert exchange.caller.scopes == {"admin", "write", "read", "other"}


async def test_scopes_that_an_inner_stage_misses_become_a_challenge(bench, issuer, own_keys):
    """It cannot know where tokens are got; what names no scopes, or has its own challenge, stays as it is."""
    raised = [Forbidden("no", scopes=["b", "a"]), Forbidden("no"), Forbidden("no", challenge="Other", scopes=["a"])]
    errors = list(raised)

    async def sink(_exchange):
        raise errors.pop(0)

    async with opened(bench, sink, **own_keys, require=("mcp",)) as (_, service, _told):
        for _ in range(3):
            with pytest.raises(Forbidden):
                await service(bearer(bench, issuer.token(scope="mcp")))

    first = (
        f'Bearer error="insufficient_scope", error_description="the token lacks a scope", scope="a b mcp", {METADATA}'
    )
    assert [error.challenge for error in raised] == [first, None, "Other"]


async def test_a_verified_token_is_remembered_until_it_expires(bench, answer, issuer, own_keys, monkeypatch):
    """And never longer; the memory is bounded."""
    verified = []
    from sluiceway.middlewares import auth_bearer

    real = auth_bearer.verify
    monkeypatch.setattr(auth_bearer, "verify", lambda *a: verified.append(a[0]) or real(*a))
    async with opened(bench, answer, **own_keys, max_remembered=2) as (stage, service, _told):
        token = issuer.token()
        for _ in range(5):
            await service(bearer(bench, token))
        assert len(verified) == 1
        for n in range(3):
            await service(bearer(bench, issuer.token(jti=str(n))))
        assert stage.details()["remembered"] == 2
        stage.context.now = lambda: NOW + 600 + 30
        with pytest.raises(Unauthenticated, match="expired"):
            await service(bearer(bench, issuer.token(jti="2")))
        assert stage.details()["keys"] == ["rsa", "ec", "ed"]


async def test_each_endpoint_has_its_own_address(bench, answer, issuer, own_keys):
    """A token for one is not one for the other, remembered or not; so is what they publish."""
    options = {**own_keys, "resources": {"partners": "https://gateway.example.com/partners"}, "title": "Tools",
               "documentation": "https://docs.example.com"}  # fmt: skip
    async with opened(bench, answer, **options) as (stage, service, _told):
        ours, theirs = issuer.token(), issuer.token(aud="https://gateway.example.com/partners")
        for token, source in ((ours, "public"), (theirs, "partners")):
            await service(replace(bearer(bench, token), source=source))
        for token, source in ((ours, "partners"), (theirs, "public")):
            with pytest.raises(Unauthenticated, match="wrong audience"):
                await service(replace(bearer(bench, token), source=source))

        assert stage.resource_metadata("partners") == {
            "resource": "https://gateway.example.com/partners",
            "authorization_servers": [ISSUER],
            "bearer_methods_supported": ["header"],
            "resource_name": "Tools",
            "resource_documentation": "https://docs.example.com",
        }
        assert stage.resource_metadata("public")["resource"] == GATEWAY


async def test_other_audiences_can_be_named(bench, answer, issuer, own_keys):
    """For authorization servers that do not know the gateway's address."""
    async with opened(bench, answer, **own_keys, audiences=("sluiceway",), types=("jwt",)) as (_, service, _told):
        assert await service(bearer(bench, issuer.token(aud="sluiceway", header={"typ": "JWT"}))) == OK
        with pytest.raises(Unauthenticated, match="type not allowed"):
            await service(bearer(bench, issuer.token()))


async def test_algorithms_leeway_and_claims_are_chosen(bench, answer, issuer, own_keys):
    """Another algorithm is refused; another claim is the subject."""
    options = {
        **own_keys,
        "algorithms": ("ES256",),
        "leeway": 0,
        "claims": Claims(subject="client_id", scopes=("perms",)),
    }
    async with opened(bench, answer, **options) as (_, service, _told):
        with pytest.raises(Unauthenticated, match="algorithm not allowed"):
            await service(bearer(bench, issuer.token()))
        with pytest.raises(Unauthenticated, match="expired"):
            await service(bearer(bench, issuer.token(kid="ec", alg="ES256", exp=NOW - 1)))
        exchange = bearer(bench, issuer.token(kid="ec", alg="ES256", client_id="app", perms=["a", "b", 3]))
        await service(exchange)

    assert (exchange.caller.subject, exchange.caller.scopes) == ("app", {"a", "b"})


async def test_a_shared_key_of_ones_own(bench, answer, issuer, tmp_path):
    """HMAC, where both sides are the operator's."""
    from joserfc.jwk import OctKey

    issuer = evolve(issuer, keys={"shared": OctKey.generate_key(256, {"kid": "shared"})})
    (tmp_path / "jwks").write_text(json.dumps({"keys": [issuer.keys["shared"].as_dict(private=True)]}))
    options = {"jwks": Secret(from_file=tmp_path / "jwks"), "algorithms": ("HS256",)}
    async with opened(bench, answer, ISSUER, **options) as (_, service, _told):
        assert await service(bearer(bench, issuer.token(kid="shared", alg="HS256"))) == OK


async def test_an_optional_stage_leaves_other_credentials_to_the_next(bench, answer, issuer, own_keys):
    """None, or another scheme; a wrong token it refuses."""
    async with opened(bench, answer, **own_keys, optional=True) as (_, service, _told):
        assert await service(bench.exchange(headers={"authorization": "Basic YTpi"})) == OK
        assert await service(bench.exchange()) == OK
        with pytest.raises(Unauthenticated):
            await service(bearer(bench, "a.b.c"))


# The authorization server.


async def test_keys_are_discovered_and_fetched(bench, answer, issuer, server):
    """RFC 8414 first; and not again for each request."""
    async with opened(bench, answer, server.url) as (stage, service, told):
        for n in range(3):
            assert await service(bearer(bench, issuer.token(iss=server.url, jti=str(n)))) == OK
        details = stage.details()

    assert server.paths() == ["/.well-known/oauth-authorization-server", "/jwks"]
    assert told == [(State.READY, "")]
    assert (details["fetches"], details["remembered"]) == (1, 3)


async def test_discovery_tries_the_places_of_the_specification_in_order(bench, answer, issuer, server):
    """For an issuer with a path: RFC 8414, then OpenID Connect with the path in front and behind."""
    realm = f"{server.url}/realm"
    server.answers["/.well-known/oauth-authorization-server/realm"] = (404, {}, b"")
    server.answers["/realm/.well-known/openid-configuration"] = (
        200, {}, json.dumps({"issuer": realm, "jwks_uri": f"{server.url}/jwks"}).encode(),
    )  # fmt: skip
    async with opened(bench, answer, realm) as (_, service, _told):
        assert await service(bearer(bench, issuer.token(iss=realm))) == OK

    assert server.paths() == [
        "/.well-known/oauth-authorization-server/realm",
        "/.well-known/openid-configuration/realm",
        "/realm/.well-known/openid-configuration",
        "/jwks",
    ]


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        ({"issuer": "https://evil.example"}, "describes another issuer"),
        ({"jwks_uri": None}, "does not say where its keys are"),
        ({"jwks_uri": "http://127.0.0.2:1/jwks"}, "private address"),
        ({"jwks_uri": "http://169.254.169.254/latest"}, "private address"),
        ({"jwks_uri": "file:///etc/passwd"}, "no address"),
        ({"jwks_uri": 7}, "is no text"),
    ],
)
async def test_a_description_cannot_lead_us_anywhere(bench, answer, issuer, server, metadata, complaint):
    """Reliability case 44: the issuer must match, and addresses that nobody wrote must be public."""
    document = {"issuer": server.url, "jwks_uri": f"{server.url}/jwks"} | metadata
    server.answers["/.well-known/oauth-authorization-server"] = (200, {}, json.dumps(document).encode())
    async with opened(bench, answer, server.url) as (_, service, told):
        with pytest.raises(UpstreamUnavailable) as caught:
            await service(bearer(bench, issuer.token(iss=server.url)))

    assert complaint in told[0][1]
    assert "127.0.0" not in str(caught.value)
    assert caught.value.retry_after_s >= 1


@pytest.mark.parametrize(
    ("answered", "complaint"),
    [
        ((302, {"location": "http://169.254.169.254/"}, b""), "HTTP 302"),
        ((500, {}, b""), "HTTP 500"),
        ((200, {}, b"<html>"), "not a key set"),
        ((200, {}, b'{"keys": []}'), "no key for the signatures"),
        ((200, {}, b" " * 300_000), "more than 262144 bytes"),
    ],
)
async def test_what_is_no_key_set_is_not_taken(bench, answer, issuer, server, answered, complaint):
    """Redirects are not followed, sizes are bounded."""
    server.answers["/jwks"] = answered
    async with opened(bench, answer, server.url, jwks_url=f"{server.url}/jwks") as (_, service, told):
        with pytest.raises(UpstreamUnavailable):
            await service(bearer(bench, issuer.token(iss=server.url)))

    assert complaint in told[0][1]
    assert server.paths() == ["/jwks"]


async def test_a_new_key_is_fetched_once_however_many_ask(bench, answer, issuer, server):
    """Rotation: tokens of the new key come in at once; those of the old one are refused from then on."""
    async with opened(bench, answer, server.url, refresh_at_most=0.05) as (stage, service, _told):
        old = issuer.token(iss=server.url)
        await service(bearer(bench, old))
        server.kids = ("ec",)
        await trio.sleep(0.06)
        async with trio.open_nursery() as nursery:
            for n in range(20):
                token = issuer.token(kid="ec", alg="ES256", iss=server.url, jti=str(n))
                nursery.start_soon(service, bearer(bench, token))
        await trio.sleep(0.06)
        with pytest.raises(Unauthenticated, match="unknown key"):
            await service(bearer(bench, old))
        fetches = stage.details()["fetches"]

    assert server.paths().count("/jwks") == fetches == 3


async def test_made_up_key_ids_do_not_make_a_flood(bench, answer, issuer, server):
    """At most one fetch an interval."""
    async with opened(bench, answer, server.url, refresh_at_most=60) as (stage, service, _told):
        for n in range(50):
            with pytest.raises(Unauthenticated):
                await service(bearer(bench, issuer.token(kid="other", header={"kid": f"k{n}"}, iss=server.url)))

        assert stage.details()["fetches"] == 1


async def test_keys_outlast_an_issuer_that_is_down(bench, answer, issuer, server):
    """The stage says that it is degraded, and serves."""
    async with opened(bench, answer, server.url, refresh=0.02, refresh_at_most=0.02) as (_, service, told):
        server.broken = True
        await told.until(State.DEGRADED)

        assert await service(bearer(bench, issuer.token(iss=server.url))) == OK


async def test_an_issuer_that_is_down_at_the_start_is_asked_again(bench, answer, issuer, server):
    """The gateway starts; tokens get 503 meanwhile."""
    server.broken = True
    async with opened(bench, answer, server.url, refresh_at_most=0.05, fetch_timeout=1) as (_, service, told):
        with pytest.raises(UpstreamUnavailable):
            await service(bearer(bench, issuer.token(iss=server.url)))
        server.broken = False
        await told.until(State.READY)

        assert await service(bearer(bench, issuer.token(iss=server.url))) == OK


async def test_a_silent_issuer_costs_a_bounded_time(bench, answer, nursery, autojump_clock):
    """`fetch_timeout`, for each place that is tried."""

    async def silent(stream):
        async with stream:
            await trio.sleep_forever()

    listeners = await nursery.start(partial(trio.serve_tcp, silent, 0, host="127.0.0.1"))
    url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    start = trio.current_time()
    async with opened(bench, answer, url, fetch_timeout=3) as (_, _service, told):
        assert trio.current_time() - start == pytest.approx(6)

    assert "no answer within 3 s" in told[0][1]
    nursery.cancel_scope.cancel()


# Opaque tokens.

ASK = Introspect(client_id="gate way", client_secret=Secret(from_env="INTROSPECTION"))


@pytest.fixture(autouse=True)
def _password(monkeypatch):
    monkeypatch.setenv("INTROSPECTION", "pass:word")


async def test_an_opaque_token_is_asked_about_once(bench, answer, server):
    """RFC 7662, with the gateway's own credentials, form-encoded (RFC 6749 section 2.3.1)."""
    server.active["opaque"] = {"sub": "ana", "aud": GATEWAY, "scope": "read", "exp": NOW + 60}
    async with opened(bench, answer, server.url, introspection=ASK) as (_, service, _told):
        exchange = bearer(bench, "opaque")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service, exchange)
            for _ in range(10):
                nursery.start_soon(service, bearer(bench, "opaque"))

    method, path, headers, body = server.asked[-1]
    assert server.paths().count("/introspect") == 1
    assert (method, path, body) == ("POST", "/introspect", b"token=opaque&token_type_hint=access_token")
    assert headers["authorization"] == "Basic Z2F0ZSt3YXk6cGFzcyUzQXdvcmQ="
    assert (exchange.caller.subject, exchange.caller.how, exchange.caller.scopes) == ("ana", "bearer", {"read"})


@pytest.mark.parametrize(
    ("says", "cause"),
    [(None, "not active"), ({"sub": "ana"}, "wrong audience"), ({"sub": "ana", "aud": "x"}, "wrong audience"),
     ({"sub": "ana", "aud": GATEWAY, "exp": NOW - 60}, "expired"), ({"aud": GATEWAY}, "no subject"),
     ({"sub": "a", "aud": GATEWAY, "iss": "https://evil.example"}, "wrong issuer")],
)  # fmt: skip
async def test_an_opaque_token_must_be_for_us_too(bench, answer, server, says, cause):
    """Active is not enough."""
    if says is not None:
        server.active["opaque"] = says
    async with opened(bench, answer, server.url, introspection=ASK) as (_, service, _told):
        for _ in range(2):
            with pytest.raises(Unauthenticated, match=cause):
                await service(bearer(bench, "opaque"))

    assert server.paths().count("/introspect") == 1


async def test_a_revoked_token_is_refused_soon(bench, answer, server):
    """After `remember`."""
    server.active["opaque"] = {"sub": "ana", "aud": GATEWAY}
    ask = evolve(ASK, remember=0.05, url=f"{server.url}/introspect")
    async with opened(bench, answer, server.url, introspection=ask, jwt=False) as (_, service, _told):
        await service(bearer(bench, "opaque"))
        server.active.clear()
        await service(bearer(bench, "opaque"))
        await trio.sleep(0.06)
        with pytest.raises(Unauthenticated, match="not active"):
            await service(bearer(bench, "opaque"))

    assert server.paths() == ["/introspect"] * 2


@pytest.mark.parametrize(
    "answered", [(500, {}, b""), (200, {}, b"[]"), (200, {}, b'{"active": "yes"}'), (200, {}, b"x")]
)
async def test_a_server_that_cannot_be_asked_lets_nobody_in(bench, answer, server, answered):
    """503, for the token may be good; it is asked again next time."""
    server.answers["/introspect"] = answered
    ask = evolve(ASK, url=f"{server.url}/introspect")
    async with opened(bench, answer, server.url, introspection=ask, jwt=False) as (_, service, _told):
        for _ in range(2):
            with pytest.raises(UpstreamUnavailable):
                await service(bearer(bench, "opaque"))

    assert server.paths() == ["/introspect"] * 2


async def test_with_jwt_off_every_token_is_asked_about(bench, answer, issuer, server):
    """JWTs as well: revocation counts at once."""
    async with opened(bench, answer, server.url, introspection=ASK, jwt=False) as (_, service, _told):
        with pytest.raises(Unauthenticated, match="not active"):
            await service(bearer(bench, issuer.token(iss=server.url)))

    assert server.paths() == ["/.well-known/oauth-authorization-server", "/introspect"]


async def test_who_waits_for_a_cancelled_question_asks_in_turn(bench, answer, nursery):
    """Nobody is left waiting for somebody who left."""
    asked = trio.Event()
    let = trio.Event()

    async def post(_headers, _form):
        asked.set()
        await let.wait()
        return b'{"active": true}'

    from sluiceway.middlewares.auth.introspection import Introspection

    introspection = Introspection(post, "a", "b", remember_s=9, max_remembered=2)
    first = trio.CancelScope()
    answers = []

    async def ask(scope):
        with scope:
            answers.append(await introspection.claims_of("t", b"d"))

    nursery.start_soon(ask, first)
    await asked.wait()
    nursery.start_soon(ask, trio.CancelScope())
    await wait_all_tasks_blocked()
    first.cancel()
    await wait_all_tasks_blocked()
    let.set()
    await wait_all_tasks_blocked()
    for n in range(5):
        await introspection.claims_of("t", bytes([n]))

    assert answers == [{"active": True}]
    assert introspection.asked == 7
    assert len(introspection) == 2


# Declarations and contract.


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"issuer": "http://id.example.com"}, "must be https"),
        ({"issuer": "ftp://id.example.com"}, "not an http"),
        ({"issuer": "https://id.example.com#x"}, "fragment"),
        ({"resource": "gateway"}, "not an http"),
        ({"resources": {"a": "gateway"}}, "not an http"),
        ({"jwks": Secret(from_env="A"), "jwks_url": "https://a.example"}, "keep one of them"),
        ({"jwks_url": "http://a.example"}, "must be https"),
        ({"algorithms": ()}, "algorithms"),
        ({"algorithms": ("none",)}, r"\['none'\] are not among"),
        ({"algorithms": ("RS256", "HS256"), "jwks": Secret(from_env="A")}, "must stand alone"),
        ({"algorithms": ("HS256",)}, "with a key in jwks"),
        ({"jwt": False}, "no token is ever accepted"),
    ],
)
def test_options_that_open_doors_are_refused(options, complaint):
    """When the configuration is read."""
    with pytest.raises(ValueError, match=complaint):
        BearerConfig(**{"issuer": ISSUER, "resource": GATEWAY} | options)


def test_an_endpoint_for_questions_must_be_https():
    """The gateway's password goes there."""
    with pytest.raises(ValueError, match="must be https"):
        Introspect(client_id="a", client_secret=Secret(from_env="A"), url="http://id.example.com/i")


@pytest.mark.parametrize("content", [b"{}", b'{"keys": [{"kty": "oct", "k": "AAAA"}]}'])
async def test_keys_of_ones_own_must_be_keys(bench, answer, tmp_path, content):
    """Or the stage does not open."""
    (tmp_path / "jwks").write_bytes(content)
    with pytest.raises(ValueError, match="key"):
        async with opened(bench, answer, ISSUER, jwks=Secret(from_file=tmp_path / "jwks")):
            pass


def test_it_keeps_the_contract_of_stages(issuer, own_keys):
    """With a client that shows a token, and with one that shows none."""
    far = issuer.token(exp=9_999_999_999, nbf=None, iat=None, scope="mcp")
    client = replace(MODERN_CLIENT, headers={"authorization": f"Bearer {far}"})
    options = {"issuer": ISSUER, "resource": GATEWAY, "jwks": {"from_file": str(own_keys["jwks"].from_file)}}

    check_middleware(AuthBearer, {**options, "require": ["mcp"]}, client=client)
    check_middleware(AuthBearer, {**options, "optional": True})


async def test_it_can_be_cancelled_anywhere(bench, answer, issuer, server):
    """In the middle of discovery, fetching, asking; nothing is left behind, and the next one comes in."""
    server.active["opaque"] = {"sub": "ana", "aud": GATEWAY}

    async def passage():
        async with opened(bench, answer, server.url, introspection=ASK) as (_, service, _told):
            await service(bearer(bench, issuer.token(iss=server.url)))
            await service(bearer(bench, "opaque"))

    await cancel_everywhere(passage)


async def test_the_certificates_to_trust_can_be_ones_own(bench, answer, tmp_path):
    """A file of `ca` that is none does not open."""
    (tmp_path / "ca.pem").write_text("rubbish")
    with pytest.raises(OSError, match=r"."):
        async with opened(bench, answer, ISSUER, ca=tmp_path / "ca.pem"):
            pass
