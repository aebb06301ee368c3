"""Keys of an issuer, and tokens signed with them."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import h11
import pytest
import trio
from attrs import define, field
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

ISSUER = "https://id.example.com"
GATEWAY = "https://gateway.example.com/mcp"
NOW = 1_800_000_000


@define(eq=False)
class Issuer:
    """Signs tokens as an authorization server does."""

    keys: dict[str, Any] = field(factory=dict)

    def jwks(self, *kids: str) -> bytes:
        """The public keys, or some of them."""
        return json.dumps({"keys": [self.keys[kid].as_dict(private=False) for kid in kids or self.keys]}).encode()

    def token(
        self, *, kid: str = "rsa", alg: str = "RS256", header: Mapping[str, Any] | None = None, **claims: Any
    ) -> str:
        """A token that is in order but for what is said; a claim or header of None is left out."""
        body = {"iss": ISSUER, "aud": GATEWAY, "sub": "ana", "exp": NOW + 600, "iat": NOW, "nbf": NOW} | claims
        head = {"alg": alg, "kid": kid, "typ": "at+jwt"} | dict(header or {})
        return self.sign(
            {k: v for k, v in head.items() if v is not None}, {k: v for k, v in body.items() if v is not None}, kid
        )

    def sign(self, header: Mapping[str, Any], claims: Any, kid: str) -> str:
        """Any claims under any header."""
        registry = jws.JWSRegistry(algorithms=[header["alg"]], strict_check_header=False)
        data = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # the name EdDSA (RFC 9864)
            return jws.serialize_compact(dict(header), data, self.keys[kid], registry=registry)


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    """With a key of each kind."""
    return Issuer(
        {
            "rsa": RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}),
            "ec": ECKey.generate_key("P-256", {"kid": "ec"}),
            "ed": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
            "other": RSAKey.generate_key(2048, {"kid": "other"}),
        }
    )


@define(eq=False)
class AuthServer:
    """An authorization server in this process, on a port of loopback."""

    signer: Issuer
    url: str = ""
    """Its issuer identifier."""
    kids: tuple[str, ...] = ("rsa",)
    """Keys it publishes."""
    active: dict[str, Any] = field(factory=dict)
    """Opaque tokens and what introspection says of them."""
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(factory=dict)
    """Status, headers and body for a path, in place of the usual answer."""
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(factory=list)
    """Method, path, headers and body of every request."""
    broken: bool = False
    """Connections are closed without a word."""

    def now(self, **claims: Any) -> str:
        """A token of this server that is valid by the real clock."""
        second = int(time.time())
        times = {"exp": second + 600, "iat": second, "nbf": second}
        return self.signer.token(**{"iss": self.url, **times, **claims})

    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [path for _, path, _, _ in self.asked]

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if path in self.answers:
            return self.answers[path]
        if path in ("/.well-known/oauth-authorization-server", "/.well-known/oauth-authorization-server/realm"):
            issuer = self.url + path.removeprefix("/.well-known/oauth-authorization-server")
            metadata = {
                "issuer": issuer,
                "jwks_uri": f"{self.url}/jwks",
                "introspection_endpoint": f"{self.url}/introspect",
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "response_types_supported": ["code"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            }
            return 200, {}, json.dumps(metadata).encode()
        if path == "/jwks":
            return 200, {}, self.signer.jwks(*self.kids)
        if path == "/token":
            form = dict(parse_qsl(body.decode()))
            token = self.now(aud=form["resource"], scope=form.get("scope", ""), sub="app")
            answer = {"access_token": token, "token_type": "Bearer", "expires_in": 600, "scope": form.get("scope", "")}
            return 200, {"content-type": "application/json"}, json.dumps(answer).encode()
        if path == "/introspect":
            token = dict(parse_qsl(body.decode())).get("token", "")
            known = {"active": True, **self.active[token]} if token in self.active else {"active": False}
            return 200, {}, json.dumps(known).encode()
        return 404, {}, b""

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection."""
        connection = h11.Connection(h11.SERVER)
        async with stream:
            with suppress(trio.BrokenResourceError, h11.RemoteProtocolError):  # the client left
                await self._converse(stream, connection)

    async def _converse(self, stream: trio.SocketStream, connection: h11.Connection) -> None:
        while not self.broken:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65_536))
            elif isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                path = request.target.decode()
                headers = {name.decode(): value.decode() for name, value in request.headers}
                self.asked.append((request.method.decode(), path, headers, body))
                status, more, data = self.answer(path, body)
                head = [("content-length", str(len(data))), *more.items()]
                await stream.send_all(
                    (connection.send(h11.Response(status_code=status, headers=head)) or b"")
                    + (connection.send(h11.Data(data=data)) or b"")
                    + (connection.send(h11.EndOfMessage()) or b"")
                )
                connection.start_next_cycle()
            else:
                return


@pytest.fixture
async def server(issuer: Issuer, nursery: trio.Nursery) -> AuthServer:
    """Serving until the test ends."""
    made = AuthServer(issuer)
    listeners = await nursery.start(partial(trio.serve_tcp, made.serve, 0, host="127.0.0.1"))
    made.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    return made
