"""The admin listener over real sockets."""

import socket
import stat
from contextlib import asynccontextmanager

import httpx2
import pytest
import trio

from sluiceway.pipeline.admin import serve_admin
from sluiceway.pipeline.admin.connections import MAX_CONNECTIONS
from sluiceway.pipeline.model.document import Admin
from sluiceway.pipeline.model.options import Secret
from sluiceway.pipeline.protocol.errors import ComponentError
from sluiceway.pipeline.runtime.nursery import unwrap_single


@pytest.fixture(autouse=True)
def _token(monkeypatch):
    """The secret that `TCP` names."""
    monkeypatch.setenv("ADMIN_TOKEN", "s3cret")


TCP = Admin(bind="127.0.0.1:0", token=Secret(from_env="ADMIN_TOKEN"))
TOKEN = {"authorization": "Bearer s3cret"}


class Gateway:
    """Has a status."""

    def __init__(self):
        self.ready = True
        self.broken = False

    def status(self):
        if self.broken:
            raise RuntimeError("planted")
        return {"version": "1", "ready": self.ready, "components": []}


@asynccontextmanager
async def listening(admin, gateway=None):
    gateway = gateway or Gateway()
    with unwrap_single():
        async with trio.open_nursery() as nursery:
            (bound,) = await nursery.start(serve_admin, admin, gateway.status)
            yield bound
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def client_of(bound, **headers):
    transport = httpx2.AsyncHTTPTransport(uds=bound.removeprefix("unix:") if bound.startswith("unix:") else None)
    base = "http://localhost" if bound.startswith("unix:") else f"http://{bound}"
    async with httpx2.AsyncClient(transport=transport, base_url=base, headers=headers) as client:
        yield client


async def test_status_is_served_as_json():
    """What the engine says comes out as it is, and must not be cached anywhere."""
    async with listening(TCP) as bound, client_of(bound, **TOKEN) as client:
        response = await client.get("/-/status")

    assert response.status_code == 200
    assert response.json() == {"version": "1", "ready": True, "components": []}
    assert response.headers["cache-control"] == "no-store"


async def test_ready_follows_the_engine_and_live_does_not():
    """A probe sees 503 while the gateway drains, and 200 for a process that serves."""
    gateway = Gateway()
    async with listening(TCP, gateway) as bound, client_of(bound) as client:
        before = (await client.get("/-/ready")).status_code
        gateway.ready = False
        after = await client.get("/-/ready")
        live = (await client.get("/-/live")).status_code

    assert (before, after.status_code, live) == (200, 503, 200)
    assert after.json() == {"ready": False}


async def test_status_needs_the_token_and_probes_do_not():
    """The token is read from its secret when the listener opens."""
    async with listening(TCP) as bound, client_of(bound) as client:
        without = await client.get("/-/status")
        wrong = await client.get("/-/status", headers={"authorization": "Bearer nope"})
        right = await client.get("/-/status", headers=TOKEN)
        probe = await client.get("/-/ready")

    assert tuple(r.status_code for r in (without, wrong, right, probe)) == (401, 401, 200, 200)
    assert without.headers["www-authenticate"].startswith("Bearer")


async def test_a_rebound_host_is_refused():
    """The answer names the listener, and every path is covered."""
    async with listening(TCP) as bound, client_of(bound, host="evil.example.com") as client:
        codes = [(await client.get(path)).status_code for path in ("/-/status", "/-/live", "/other")]

    assert codes == [421, 421, 421]


async def test_a_unix_socket_is_for_its_owner_and_goes_with_the_listener(tmp_path):
    """Permissions are set before anybody can connect, and the file does not stay."""
    path = tmp_path / "admin.sock"
    async with listening(Admin(bind=f"unix:{path}")) as bound, client_of(bound) as client:
        mode = stat.S_IMODE(path.stat().st_mode)
        response = await client.get("/-/status")

    assert mode == 0o600
    assert response.status_code == 200
    assert not path.exists()


async def test_a_socket_file_left_behind_is_replaced(tmp_path):
    """A process that was killed cannot remove its socket."""
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))

    async with listening(Admin(bind=f"unix:{path}")) as bound, client_of(bound) as client:
        assert (await client.get("/-/live")).status_code == 200


async def test_a_socket_in_use_is_not_taken_away(tmp_path):
    """The second listener fails and the first goes on."""
    path = tmp_path / "admin.sock"
    async with listening(Admin(bind=f"unix:{path}")) as bound, client_of(bound) as client:
        with pytest.raises(ComponentError, match="cannot be bound"):
            await serve_admin(Admin(bind=f"unix:{path}"), Gateway().status)

        assert (await client.get("/-/live")).status_code == 200


@pytest.mark.parametrize(
    ("admin", "text"),
    [
        (Admin(bind="127.0.0.1:0"), r"everybody on this machine can reach 127\.0\.0\.1:0; set run\.admin\.token"),
        (Admin(bind="nowhere"), "expected host:port"),
        (Admin(token=Secret(from_env="NOT_SET_ANYWHERE")), "NOT_SET_ANYWHERE is not set"),
    ],
)
async def test_a_listener_that_must_not_open_says_why(admin, text):
    """The error names the listener and the remedy."""
    with pytest.raises(ComponentError, match=rf"run\.admin: open: .*{text}"):
        await serve_admin(admin, Gateway().status)


async def test_an_empty_token_is_refused(monkeypatch):
    """An unset variable in a shell script must not open the door."""
    monkeypatch.setenv("ADMIN_TOKEN", "")
    with pytest.raises(ComponentError, match="the token is empty"):
        await serve_admin(Admin(token=Secret(from_env="ADMIN_TOKEN")), Gateway().status)


async def test_a_taken_port_is_an_error_that_names_it():
    """No traceback of the socket module."""
    async with listening(TCP) as bound:
        with pytest.raises(ComponentError, match=f"{bound} cannot be bound"):
            await serve_admin(Admin(bind=bound, token=TCP.token), Gateway().status)


@pytest.mark.parametrize(
    "attack",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /-/live HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"GET /-/live HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\nx",
        b"\x00\xff garbage\r\n\r\n",
    ],
)
async def test_no_input_ends_the_listener_or_reaches_http2(attack):
    """What hypercorn alone would die of stays in its connection (reliability, finding 1)."""
    async with listening(TCP) as bound:
        host, _, port = bound.partition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(attack)
            answer = await stream.receive_some()
        async with client_of(bound) as client:
            after = (await client.get("/-/live")).status_code

    assert not answer.startswith(b"HTTP/1.1 101")
    assert after == 200


async def test_an_exception_in_an_endpoint_costs_one_answer():
    """The listener goes on."""
    gateway = Gateway()
    async with listening(TCP, gateway) as bound, client_of(bound, **TOKEN) as client:
        gateway.broken = True
        failed = (await client.get("/-/status")).status_code
        gateway.broken = False
        after = (await client.get("/-/status")).status_code

    assert (failed, after) == (500, 200)


async def test_connections_are_bounded():
    """One more than the limit is closed at once; the others stay."""
    async with listening(TCP) as bound:
        host, _, port = bound.partition(":")
        streams = [await trio.open_tcp_stream(host, int(port)) for _ in range(MAX_CONNECTIONS)]
        request = b"GET /-/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for stream in streams:
            await stream.send_all(request)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        async with await trio.open_tcp_stream(host, int(port)) as extra:
            assert await extra.receive_some() == b""
        for stream in streams:
            await stream.aclose()
