"""What a client of the http source sees of authentication: statuses, headers, documents, and its own session only."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager

import httpx2
import mcp.client.auth.extensions.client_credentials as client_credentials
import pytest
import structlog
import trio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from structlog.testing import LogCapture

from sluiceway.middlewares.auth.api_keys import ApiKey, digest_of, render_keys
from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import ComponentKind, Context, Sink
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY, MetaKey
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.runtime.engine import Engine
from sluiceway.transports.asgi import Gateway

GATEWAY = "https://gateway.example.com/mcp"
PLACE = "https://gateway.example.com/.well-known/oauth-protected-resource/mcp"
ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
NEEDS = [{"when": {"name": ["delete_*"]}, "scopes": ["files:write"]}]


class Upstream(Sink):
    """Answers handshakes and calls; keeps what came."""

    def __init__(self):
        super().__init__(None, Context(id="up"))
        self.seen = []

    async def __call__(self, exchange):
        self.seen.append((exchange.method, exchange.caller, dict(exchange.client.headers)))
        if exchange.method == "initialize":
            info = {"name": "s", "version": "1"}
            return Result({"protocolVersion": LATEST_LEGACY, "capabilities": {}, "serverInfo": info})
        return Result({"content": [], "resultType": "complete"})


def configuration(server, chain=None, **source):
    bearer = {"issuer": server.url, "resource": GATEWAY, "require": ["mcp"], "needs": NEEDS}
    return from_data(
        {
            "version": 1,
            "sources": {"web": {"http": {"bind": "127.0.0.1:0", **source}}},
            "pipelines": {"main": {"chain": chain or [{"auth_bearer": bearer}], "sink": "up"}},
            "sinks": {"up": {"embedded": {}}},
        }
    )


class Web:
    """A gateway on a real socket, and a client for it."""

    def __init__(self, engine, sink, http):
        self.engine = engine
        self.sink = sink
        self.http = http
        (self.url,) = engine.sources["web"].urls

    async def modern(self, name="echo", *, token=None, method="tools/call", path="", **headers):
        meta = {MetaKey.VERSION: LATEST, MetaKey.CLIENT_CAPABILITIES: {}}
        params = {"name": name, "arguments": {}, "_meta": meta}
        head = {**ACCEPT, "mcp-protocol-version": LATEST, "mcp-method": method, "mcp-name": name, **_bearer(token)}
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return await self.http.post(self.url + path, json=body, headers=head | headers)

    async def legacy(self, method, params=None, *, token=None, session=None, **more):
        body = {"jsonrpc": "2.0", "method": method, "params": params or {}, **more}
        head = {**ACCEPT, **_bearer(token), **({"mcp-session-id": session} if session else {})}
        return await self.http.post(self.url, json=body, headers=head)

    async def session(self, token):
        params = {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        answer = await self.legacy("initialize", params, token=token, id=1)
        assert answer.status_code == 200
        return answer.headers["mcp-session-id"]

    async def ask(self, verb, session, token):
        head = {"accept": "text/event-stream", "mcp-session-id": session, **_bearer(token)}
        async with self.http.stream(verb, self.url, headers=head) as answer:
            return answer


def _bearer(token):
    return {} if token is None else {"authorization": f"Bearer {token}"}


@asynccontextmanager
async def web(document):
    sink = Upstream()
    engine = Engine(document, overrides={(ComponentKind.SINK, "up"): sink})
    async with engine.running(), httpx2.AsyncClient(trust_env=False, timeout=10) as http:
        yield Web(engine, sink, http)


async def test_requests_are_refused_as_the_specification_says(server):
    """Reliability case 26, in both eras: HTTP statuses with challenges, and the sink is not asked."""
    good = server.now(scope="mcp")
    needed, wrong = f'scope="mcp", resource_metadata="{PLACE}"', 'Bearer error="invalid_token", error_description='
    expected = {
        "none": (401, f"Bearer {needed}"),
        "audience": (401, f'{wrong}"wrong audience", {needed}'),
        "expired": (401, f'{wrong}"expired", {needed}'),
        "malformed": (400, f'Bearer error="invalid_request", resource_metadata="{PLACE}"'),
        "scope": (403, f'Bearer error="insufficient_scope", error_description="the token lacks a scope", {needed}'),
    }
    tokens = {
        "none": None,
        "audience": server.now(aud="https://other.example/mcp", scope="mcp"),
        "expired": server.now(exp=int(time.time()) - 60, scope="mcp"),
        "malformed": "two words",
        "scope": server.now(scope="other"),
    }
    async with web(configuration(server)) as gateway:
        modern = {name: await gateway.modern(token=token) for name, token in tokens.items()}
        params = {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        legacy = {name: await gateway.legacy("initialize", params, token=token, id=1) for name, token in tokens.items()}
        assert gateway.sink.seen == []
        stepped = await gateway.modern("delete_all", token=good)
        accepted = await gateway.modern(token=good)

    for answers in (modern, legacy):
        assert {name: (a.status_code, a.headers["www-authenticate"]) for name, a in answers.items()} == expected
    assert [a.json()["error"]["data"]["reason"] for a in modern.values()] == [
        "unauthenticated", "unauthenticated", "unauthenticated", "malformed_credentials", "forbidden",
    ]  # fmt: skip
    assert (stepped.status_code, accepted.status_code) == (403, 200)
    assert 'scope="files:write mcp"' in stepped.headers["www-authenticate"]


async def test_a_token_in_the_query_is_refused(server):
    """However it is spelt, with or without a good one in the header."""
    async with web(configuration(server)) as gateway:
        for query in ("?access_token=x", "?a=b&access%5Ftoken=x", "?ACCESS_TOKEN"):
            answer = await gateway.modern(token=server.now(scope="mcp"), path=query)
            assert (answer.status_code, answer.json()["error"]["data"]["reason"]) == (400, "malformed_credentials")
            assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_request"')
        assert (await gateway.modern(token=server.now(scope="mcp"), path="?a=access_token")).status_code == 200
        assert len(gateway.sink.seen) == 1


async def test_the_metadata_document_is_published(server):
    """RFC 9728: at the endpoint's own place and at the root, to everybody, and nowhere else."""
    async with web(configuration(server)) as gateway:
        root = gateway.url.removesuffix("/mcp")
        place = f"{root}/.well-known/oauth-protected-resource"
        answers = [await gateway.http.get(place + path) for path in ("/mcp", "", "/other", "/mcp/more")]
        head = await gateway.http.head(f"{place}/mcp")
        posted = await gateway.http.post(f"{place}/mcp")
        origin = {"origin": root, "access-control-request-method": "GET"}
        preflight = await gateway.http.options(f"{place}/mcp", headers=origin)

    document = {
        "resource": GATEWAY, "authorization_servers": [server.url], "bearer_methods_supported": ["header"],
        "scopes_supported": ["files:write", "mcp"],
    }  # fmt: skip
    assert [answer.status_code for answer in answers] == [200, 200, 404, 404]
    assert answers[0].json() == answers[1].json() == document
    assert answers[0].headers["content-type"] == "application/json"
    assert (head.status_code, posted.status_code, preflight.status_code) == (200, 405, 204)


async def test_behind_a_proxy_the_document_is_at_the_resources_own_place_too(server):
    """The proxy serves /gw/mcp from our /mcp, and passes well-known paths on as they are."""
    chain = [{"auth_bearer": {"issuer": server.url, "resource": "https://example.com/gw/mcp"}}]
    async with web(configuration(server, chain)) as gateway:
        root = gateway.url.removesuffix("/mcp")
        answer = await gateway.http.get(f"{root}/.well-known/oauth-protected-resource/gw/mcp")
        refused = await gateway.modern()

    assert answer.json()["resource"] == "https://example.com/gw/mcp"
    assert refused.headers["www-authenticate"] == (
        'Bearer resource_metadata="https://example.com/.well-known/oauth-protected-resource/gw/mcp"'
    )


async def test_without_tokens_nothing_is_published(server):
    """There is no authorization server to name."""
    async with web(configuration(server, ["auth_anonymous"])) as gateway:
        root = gateway.url.removesuffix("/mcp")
        answer = await gateway.http.get(f"{root}/.well-known/oauth-protected-resource/mcp")
        open_to_all = await gateway.modern()

    assert (answer.status_code, open_to_all.status_code) == (404, 200)


async def test_a_session_is_its_principals_and_nobody_elses(server):
    """Reliability case 24: who merely knows its id gets 404 on every verb, and 401 without a token."""
    ana, bob, late = (server.now(sub=sub, scope="mcp", jti=sub) for sub in ("ana", "bob", "ana"))
    expired = server.now(exp=int(time.time()) - 60, scope="mcp")
    async with web(configuration(server)) as gateway:
        session = await gateway.session(ana)
        initialized = await gateway.legacy("notifications/initialized", token=ana, session=session)
        statuses = {}
        for name, token in (("bob", bob), ("none", None), ("expired", expired)):
            statuses[name] = [
                (await gateway.legacy("ping", token=token, session=session, id=2)).status_code,
                (await gateway.legacy("notifications/roots/list_changed", token=token, session=session)).status_code,
                (await gateway.http.post(
                    gateway.url, json={"jsonrpc": "2.0", "id": 9, "result": {}},
                    headers={**ACCEPT, **_bearer(token), "mcp-session-id": session},
                )).status_code,
                (await gateway.ask("GET", session, token)).status_code,
                (await gateway.ask("DELETE", session, token)).status_code,
            ]  # fmt: skip
        known, random = [
            await gateway.legacy("ping", token=bob, session=each, id=2) for each in (session, "0" * len(session))
        ]
        renewed = await gateway.ask("GET", session, late)
        seen = [method for method, _, _ in gateway.sink.seen]
        ended = [(await gateway.ask("DELETE", session, late)).status_code for _ in range(2)]

    assert initialized.status_code == 202
    assert (known.status_code, known.json()) == (random.status_code, random.json())
    assert statuses == {"bob": [404] * 5, "none": [401] * 5, "expired": [401] * 5}
    assert (renewed.status_code, ended) == (200, [200, 404])
    assert seen == ["initialize", "notifications/initialized"]


async def test_the_refusal_of_a_stream_has_its_challenge(server):
    """A client learns from it where to get a token, as from any other."""
    async with web(configuration(server)) as gateway:
        session = await gateway.session(server.now(scope="mcp"))
        answer = await gateway.ask("GET", session, None)

    assert answer.headers["www-authenticate"] == f'Bearer scope="mcp", resource_metadata="{PLACE}"'


async def test_a_modern_notification_is_refused_too(server):
    """It has no reply, but a status."""
    async with web(configuration(server)) as gateway:
        meta = {MetaKey.VERSION: LATEST}
        body = {"jsonrpc": "2.0", "method": "notifications/vendor/x", "params": {"_meta": meta}}
        head = {**ACCEPT, "mcp-protocol-version": LATEST, "mcp-method": "notifications/vendor/x"}
        statuses = [
            (await gateway.http.post(gateway.url, json=body, headers=head | _bearer(token))).status_code
            for token in (None, server.now(scope="mcp"))
        ]

    assert statuses == [401, 202]


async def test_the_path_that_always_streams_refuses_with_a_status(server):
    """Before it becomes an event stream."""
    async with web(configuration(server, aliases=True)) as gateway:
        statuses = [(await gateway.modern(token=token, path="/stream")).status_code
                    for token in (None, server.now(scope="mcp"))]  # fmt: skip
        alias = await gateway.http.post(gateway.url.removesuffix("/mcp") + "/tools/list", json={})

    assert statuses == [401, 200]
    assert alias.status_code == 401


async def test_stages_are_alternatives(server, tmp_path, monkeypatch):
    """A key, or a token, or nobody: a wrong one of either is refused, and comes out as nobody's never."""
    monkeypatch.setenv("PEPPER", "a pepper of some length")
    key = ApiKey(id="k", digest=digest_of(b"a pepper of some length", "slw_key"), subject="robot")
    (tmp_path / "keys.json").write_bytes(render_keys([key]))
    keys = {"pepper": {"from_env": "PEPPER"}, "file": str(tmp_path / "keys.json"), "optional": True}
    chain = [{"auth_api_key": keys}, {"auth_bearer": {"issuer": server.url, "resource": GATEWAY, "optional": True}},
             "auth_anonymous"]  # fmt: skip
    async with web(configuration(server, chain)) as gateway:
        answers = [
            await gateway.modern(**{"x-api-key": "slw_key"}),
            await gateway.modern(token=server.now()),
            await gateway.modern(),
            await gateway.modern(**{"x-api-key": "slw_wrong"}),
            await gateway.modern(token="a.b.c"),
            await gateway.modern(authorization="Basic YTpi"),
        ]
        callers = [caller.subject for _, caller, _ in gateway.sink.seen]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 401, 401, 401]
    assert callers == ["robot", "ana", "anonymous"]


async def test_no_credential_goes_further_than_the_stage(server, nursery, monkeypatch, tmp_path):
    """Reliability case 27: canaries reach neither a sink nor an upstream, a log, an error or the status."""
    monkeypatch.setenv("PEPPER", "canary-pepper-of-some-length")
    logged = LogCapture()
    structlog.configure(processors=[logged], cache_logger_on_first_use=False)
    canaries = {"x-api-key": "canary-key", "cookie": "canary-cookie", "proxy-authorization": "canary-proxy"}
    key = ApiKey(id="k", digest=digest_of(b"canary-pepper-of-some-length", "canary-key"), subject="robot")
    (tmp_path / "keys.json").write_bytes(render_keys([key]))
    keys = {"pepper": {"from_env": "PEPPER"}, "file": str(tmp_path / "keys.json"), "optional": True}
    chain = ["request_id", "log", {"auth_api_key": keys}, {"auth_bearer": {"issuer": server.url, "resource": GATEWAY}}]
    document = from_data(
        {
            "version": 1,
            "sources": {"web": {"http": {"bind": "127.0.0.1:0"}}},
            "pipelines": {"main": {"chain": chain, "sink": "up"}},
            "sinks": {"up": {"http": {"url": f"{server.url}/upstream", "era": "modern"}}},
        }
    )
    token = server.now()
    async with web(configuration(server, chain)) as gateway:
        told = [await gateway.modern(token=token, cookie="canary-cookie"), await gateway.modern(**canaries)]
        told += [await gateway.modern(token="canary-token"), await gateway.modern(**{"x-api-key": "canary-wrong"})]
        seen = repr(gateway.sink.seen)
        status = json.dumps(gateway.engine.status()) + repr([h.details() for h in _stages(gateway.engine)])
    engine = Engine(document)
    async with engine.running(), httpx2.AsyncClient(trust_env=False, timeout=10) as http:
        gateway = Web(engine, None, http)
        before = len(server.asked)
        told += [await gateway.modern(token=token, cookie="canary-cookie"), await gateway.modern(**canaries)]
        upstream = repr([request for request in server.asked[before:] if request[1] == "/upstream"])

    assert [answer.status_code for answer in told[:4]] == [200, 200, 401, 401]
    assert "/upstream" in upstream
    answered = "".join(answer.text + repr(answer.headers) for answer in told)
    for place in (seen, upstream, answered, status, repr(logged.entries)):
        assert "canary" not in place
        assert token not in place


def _stages(engine):
    return [stage.middleware for stage in engine.pipelines["main"].lane.chain.stages]


async def test_under_a_plain_hypercorn_the_document_is_there_too(server):
    """The application serves the same paths."""
    document = configuration(server)
    app = Gateway(lambda: document)
    sent = []
    to_app, from_host = trio.open_memory_channel(2)
    started = trio.Event()

    async def lifespan_send(_event):
        started.set()

    async def send(event):
        sent.append(event)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(app, {"type": "lifespan"}, from_host.receive, lifespan_send)
        to_app.send_nowait({"type": "lifespan.startup"})
        await started.wait()
        scope = {"type": "http", "method": "GET", "path": "/.well-known/oauth-protected-resource/mcp", "client": None,
                 "headers": [(b"host", b"localhost")], "http_version": "1.1"}  # fmt: skip
        await app(scope, trio.sleep_forever, send)
        nursery.cancel_scope.cancel()

    assert sent[0]["status"] == 200
    assert json.loads(sent[1]["body"])["resource"] == GATEWAY


# The Python SDK's client, with its own OAuth.


class Storage:
    """The SDK's notion of a place for tokens."""

    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


@pytest.mark.parametrize("mode", ["legacy", LATEST])
async def test_the_sdks_client_finds_its_way(server, mode):
    """From the 401 to the metadata, the authorization server, a token of the right scope, and back."""
    with trio.socket.socket() as probe:
        await probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/mcp"
    chain = [{"auth_bearer": {"issuer": server.url, "resource": url, "require": ["mcp"]}}]
    document = from_data(
        {
            "version": 1,
            "sources": {"web": {"http": {"bind": f"127.0.0.1:{port}"}}},
            "pipelines": {"main": {"chain": chain, "sink": "demo"}},
            "sinks": {"demo": {"embedded": {}}},
        }
    )
    storage = Storage()
    provider = client_credentials.ClientCredentialsOAuthProvider(url, storage, "app", "secret", issuer=server.url)
    async with (
        Engine(document).running(),
        httpx2.AsyncClient(auth=provider, trust_env=False, timeout=10) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        listed = await client.list_tools()

    assert "increment" in [tool.name for tool in listed.tools]
    assert storage.tokens.scope == "mcp"
    assert server.paths().count("/token") == 1
