"""The WebSocket sink against real sockets: eras, ids, cancelling, loss, reconnecting, bounds."""

import base64
import hashlib
import json
import ssl
from pathlib import Path

import pytest
import trio

from sluiceway.pipeline.model.options import ConfigPath
from sluiceway.pipeline.protocol.errors import SluicewayError
from sluiceway.transports.http_upstream.config import TlsConfig
from sluiceway.transports.websocket_sink import WebSocketSinkConfig, parse_address

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def test_modern_clients_share_one_connection_and_get_their_own_answers(kit):
    """Ids on the wire are ours; a dial under concurrent first calls happens once."""
    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url}}}) as gateway,
        kit.speaking(kit.url_of(gateway)) as one,
        kit.speaking(kit.url_of(gateway)) as other,
    ):
        for client in (one, other):
            await client.send(id=7, method="tools/call", params={"name": "x", "_meta": kit.MODERN})
        replies = [await client.next() for client in (one, other)]
        told = {figure.name: figure.value for figure in gateway.sinks["up"].figures()}

        assert [reply["id"] for reply in replies] == [7, 7]
        assert told["websocket_connections"] == 1
        assert (told["upstream_waiting"], told["upstream_unanswered_total"]) == (0, 0)
        assert told["upstream_replies_total"] >= 2
        assert len(server.open) == len(server.headers) == 1


async def test_interleaved_replies_reach_who_asked(kit):
    """The last request is answered first."""

    async def backwards(socket):
        held = []
        while True:
            message = json.loads(await socket.get_message())
            if message["method"] == "server/discover":
                await kit.reply(socket, message["id"], kit.reply_of(message))
                continue
            held.append(message)
            if len(held) == 10:
                for each in reversed(held):
                    await kit.reply(socket, each["id"], {"name": each["params"]["name"]})

    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url}}}) as gateway,
        kit.speaking(kit.url_of(gateway)) as client,
    ):
        server.script = backwards
        for number in range(10):
            await client.send(id=number, method="tools/call", params={"name": f"t{number}", "_meta": kit.MODERN})
        replies = [await client.next() for _ in range(10)]

    assert {reply["id"]: reply["result"]["name"] for reply in replies} == {n: f"t{n}" for n in range(10)}


async def test_a_legacy_session_has_a_connection_of_its_own_that_ends_with_it(kit):
    """Opened by the handshake, closed when the client leaves; another session has another."""
    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url}}}) as gateway,
    ):
        async with kit.speaking(kit.url_of(gateway)) as one, kit.speaking(kit.url_of(gateway)) as other:
            for client in (one, other):
                await client.initialize()
                assert "result" in await client.call("tools/list", 1)
            open_while_there = len(server.open)
        await kit.until(lambda: not server.open)

    assert open_while_there == 2


async def test_questions_of_a_legacy_server_reach_the_client_whose_session_it_is(kit):
    """Sampling in mid-call, and the answer back under the server's own id."""

    async def curious(socket):
        while True:
            message = json.loads(await socket.get_message())
            if message.get("method") == "tools/call":
                await socket.send_message(
                    json.dumps({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {"n": 1}})
                )
                answer = json.loads(await socket.get_message())
                await kit.reply(socket, message["id"], {"answer": answer})
            elif "id" in message:
                await kit.reply(socket, message["id"], kit.reply_of(message))

    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url}}}) as gateway,
        kit.speaking(kit.url_of(gateway)) as client,
    ):
        server.script = curious
        await client.initialize()
        question = await client.call("tools/call", 1, name="x")
        await client.send(id=question["id"], result={"said": "hi"})
        answer = await client.next()

    assert (question["method"], question["params"]) == ("sampling/createMessage", {"n": 1})
    assert answer["result"]["answer"] == {"jsonrpc": "2.0", "id": "q", "result": {"said": "hi"}}


async def test_a_cancelled_request_is_cancelled_upstream(kit):
    """With the id that the upstream knows it by, whether the client says so or leaves."""
    notices = []
    noticed = trio.Event()

    async def deaf(socket):
        nonlocal noticed
        while True:
            message = json.loads(await socket.get_message())
            if message["method"] == "server/discover":
                await kit.reply(socket, message["id"], kit.reply_of(message))
            elif message["method"] == "tools/call":
                asked.append(message["id"])
                heard.set()
            elif message["method"] == "notifications/cancelled":
                notices.append(message["params"]["requestId"])
                noticed.set()

    asked: list[object] = []
    heard = trio.Event()
    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url}}}) as gateway,
    ):
        server.script = deaf
        async with kit.speaking(kit.url_of(gateway)) as client:
            await client.send(id=1, method="tools/call", params={"name": "x", "_meta": kit.MODERN})
            await heard.wait()
            await client.send(method="notifications/cancelled", params={"requestId": 1})
            await noticed.wait()
            heard, noticed = trio.Event(), trio.Event()
            await client.send(id=2, method="tools/call", params={"name": "x", "_meta": kit.MODERN})
            await heard.wait()
        await noticed.wait()

    assert notices == asked
    assert len(asked) == 2


async def test_what_is_in_flight_fails_at_once_when_the_upstream_closes(kit):
    """Every pending call, with its code and reason; the next call opens a new connection."""

    async def moody(socket):
        while True:
            message = json.loads(await socket.get_message())
            if message["method"] == "tools/call":
                await socket.aclose(1011, "out of order")
            await kit.reply(socket, message["id"], kit.reply_of(message))

    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url}}}) as gateway,
        kit.speaking(kit.url_of(gateway)) as client,
    ):
        server.script = moody
        await client.call_modern("tools/list", 0)
        for number in (1, 2):
            await client.send(id=number, method="tools/call", params={"name": "x", "_meta": kit.MODERN})
        failed = [await client.next() for _ in range(2)]
        server.script = kit.answering
        after = await client.call_modern(request_id=3)

    assert {each["error"]["data"]["reason"] for each in failed} == {"upstream_closed"}
    assert "out of order (close code 1011)" in failed[0]["error"]["message"]
    assert "result" in after


async def test_a_session_ends_with_its_connection(kit):
    """What the old connection had promised is gone, so the client is told to initialize again."""
    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url}}}) as gateway,
        kit.speaking(kit.url_of(gateway)) as client,
    ):
        await client.initialize()
        await server.open[0].aclose(1001)
        gone = await client.call("tools/list", 1)
        again = await client.call("initialize", 2, **kit.INITIALIZE)

    assert gone["error"]["data"]["reason"] == "session_not_found"
    assert "result" in again


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_era_refuses_clients_of_the_other_kind(kit, era):
    """What the configuration says is not asked for, and with `translate` off nothing stands in for it."""
    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url, "era": era, "translate": False}}}) as gateway,
        kit.speaking(kit.url_of(gateway)) as client,
    ):
        modern = await client.call_modern(request_id=1)
        legacy = await client.call("initialize", 2, **kit.INITIALIZE)

    assert [("result" in each) for each in (modern, legacy)] == [era == "modern", era == "legacy"]


async def test_a_server_of_the_legacy_era_is_found_out_and_remembered(kit):
    """It refuses `server/discover`; the second modern request does not ask again."""
    asked = []

    async def old(socket):
        while True:
            message = json.loads(await socket.get_message())
            asked.append(message["method"])
            error = {"code": -32601, "message": "what?"}
            await socket.send_message(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}))

    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url, "translate": False}}}) as gateway,
        kit.speaking(kit.url_of(gateway)) as client,
    ):
        server.script = old
        replies = [await client.call_modern(request_id=number) for number in (1, 2)]

    assert [reply["error"]["code"] for reply in replies] == [-32022, -32022]
    assert asked == ["server/discover"]


async def test_headers_and_secrets_go_into_the_request_that_opens_the_connection(kit, monkeypatch):
    """And the sub-protocol `mcp` with them; nothing of the client's own."""
    monkeypatch.setenv("WS_TOKEN", "Bearer secret")
    options = {"headers": {"authorization": {"from_env": "WS_TOKEN"}, "x-team": "a"}}
    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url, **options}}}) as gateway,
        kit.speaking(kit.url_of(gateway), x_mine="1") as client,
    ):
        await client.call_modern()

    assert server.headers[0][b"authorization"] == b"Bearer secret"
    assert server.headers[0][b"x-team"] == b"a"
    assert b"x-mine" not in server.headers[0]


async def test_a_server_that_chooses_no_subprotocol_is_spoken_to_all_the_same(kit):
    """Simple servers do not."""
    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url}}}) as gateway,
        kit.speaking(kit.url_of(gateway)) as client,
    ):
        server.subprotocol = None
        assert "result" in await client.call_modern()


async def test_an_upstream_that_refuses_the_upgrade_is_a_failure_to_connect(kit):
    """The status is named; nobody waits."""
    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url}}}) as gateway,
        kit.speaking(kit.url_of(gateway)) as client,
    ):
        server.refuse_with = 401
        refused = await client.call_modern()

    assert refused["error"]["data"]["reason"] == "connect_failed"
    assert "HTTP 401" in refused["error"]["message"]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", b"SSH-2.0-x\r\n", b""])
async def test_what_is_no_websocket_server_is_a_failure_to_connect(kit, answer):
    """Another protocol, or a connection that is closed at once."""

    async def other(stream):
        async with stream:
            await stream.receive_some(4096)
            if answer:
                await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, other, 0)
        port = listeners[0].socket.getsockname()[1]
        async with (
            kit.gateway({"up": {"websocket": {"url": f"ws://127.0.0.1:{port}/"}}}) as gateway,
            kit.speaking(kit.url_of(gateway)) as client,
        ):
            refused = await client.call_modern()
        nursery.cancel_scope.cancel()

    assert refused["error"]["data"]["reason"] == "connect_failed"


async def test_connect_timeout_ends_a_handshake_without_an_answer(kit):
    """A server that accepts TCP and says nothing."""

    async def silent(_stream):
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, silent, 0)
        port = listeners[0].socket.getsockname()[1]
        options = {"url": f"ws://127.0.0.1:{port}/", "connect_timeout": "50ms"}
        async with (
            kit.gateway({"up": {"websocket": options}}) as gateway,
            kit.speaking(kit.url_of(gateway)) as client,
        ):
            refused = await client.call_modern()
        nursery.cancel_scope.cancel()

    assert "connect_timeout" in refused["error"]["message"]


async def test_reconnect_keeps_an_upstream_that_is_down_in_quarantine(kit):
    """Refused at once with the time to wait, and the sink shows as failed."""
    options = {"url": "ws://127.0.0.1:1/", "reconnect": {"max": 1, "within": "60s", "quarantine": "30s"}}
    async with (
        kit.gateway({"up": {"websocket": options}}) as gateway,
        kit.speaking(kit.url_of(gateway)) as client,
    ):
        first = await client.call_modern(request_id=1)
        second = await client.call_modern(request_id=2)

    assert first["error"]["data"]["reason"] == "connect_failed"
    assert second["error"]["data"]["reason"] == "upstream_unavailable"
    assert 0 < second["error"]["data"]["retry_after_ms"] <= 30_000


async def test_notifications_go_to_the_connection_they_mean_something_on(kit):
    """A session's `initialized` reaches its own; one of a stranger reaches nobody, and opens nothing."""
    heard = []

    async def listening(socket):
        while True:
            message = json.loads(await socket.get_message())
            if "id" in message:
                await kit.reply(socket, message["id"], kit.reply_of(message))
            else:
                heard.append(message["method"])

    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url}}}) as gateway,
        kit.speaking(kit.url_of(gateway)) as client,
    ):
        server.script = listening
        await client.send(method="notifications/x", params={"_meta": kit.MODERN})
        ping = await client.call("ping", 0)
        opened_by_strangers = len(server.headers)
        await client.initialize()
        await client.call("tools/list", 1)
        await kit.until(lambda: bool(heard))

    assert "result" in ping
    assert opened_by_strangers == 0
    assert heard == ["notifications/initialized"]


async def test_a_gateway_that_stops_does_not_wait_for_a_handshake(kit):
    """It would take a minute here; the kit allows half of that."""

    async def silent(_stream):
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, silent, 0)
        port = listeners[0].socket.getsockname()[1]
        options = {"url": f"ws://127.0.0.1:{port}/", "connect_timeout": "60s"}
        async with (
            kit.gateway({"up": {"websocket": options}}, run={"stop_timeout": "60s"}) as gateway,
            kit.speaking(kit.url_of(gateway)) as client,
        ):
            await client.send(id=1, method="tools/call", params={"name": "x", "_meta": kit.MODERN})
            await kit.until(lambda: gateway.pipelines["main"].admission.in_flight == 1)
        nursery.cancel_scope.cancel()


async def test_a_name_that_leads_to_a_private_address_is_refused_unless_allow_private(kit, monkeypatch):
    """As for the http sink: a name must not turn into our own network."""

    async def resolve(host, port, **_):
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", resolve)
    async with kit.scripted_server() as server:
        url = server.url.replace("127.0.0.1", "upstream.example")
        replies = []
        for allow in (False, True):
            async with (
                kit.gateway({"up": {"websocket": {"url": url, "allow_private": allow}}}) as gateway,
                kit.speaking(kit.url_of(gateway)) as client,
            ):
                replies.append(await client.call_modern())

    assert "allow_private" in replies[0]["error"]["message"]
    assert "result" in replies[1]


@pytest.mark.parametrize(
    ("limit", "size", "said"),
    [({"max_pending": 1}, 0, "max_pending"), ({"max_unsent": "1KiB"}, 3_000_000, "not reading")],
)
async def test_max_pending_and_max_unsent_refuse_what_is_beyond(kit, limit, size, said):
    """An upstream that does not answer (`max_pending`), or does not read (`max_unsent`): a refusal names its limit."""

    async def nothing(_max_bytes):
        await trio.sleep_forever()

    async def deaf(socket):
        message = json.loads(await socket.get_message())
        socket._stream.receive_some = nothing  # else it reads on, and hangs up, for more than 1 MiB is too long for it
        await kit.reply(socket, message["id"], kit.reply_of(message))
        await trio.sleep_forever()

    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url, "era": "modern", **limit}}}) as gateway,
        kit.speaking(kit.url_of(gateway)) as client,
    ):
        server.script = deaf
        await client.call_modern("tools/list", 0)
        for number in range(1, 6):
            params = {"name": "x", "big": "x" * size, "_meta": kit.MODERN}
            await client.send(id=number, method="tools/call", params=params)
        refused = await client.next()

    assert said in refused["error"]["message"]


async def test_tls_trusts_what_ca_names_and_shows_cert_with_its_key(kit, authority):
    """The system knows neither; without a certificate of ours the upstream hangs up."""
    server_cert, server_key = authority.issue()
    cert, key = authority.issue("ana")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    context.load_cert_chain(server_cert, server_key)
    context.verify_mode = ssl.CERT_REQUIRED
    replies = []
    async with kit.scripted_server(context) as server:
        ca = {"ca": str(authority.file)}
        for tls in ({}, ca, {**ca, "cert": str(cert), "key": str(key)}):
            async with (
                kit.gateway({"up": {"websocket": {"url": server.url, "tls": tls, "connect_timeout": "1s"}}}) as gateway,
                kit.speaking(kit.url_of(gateway)) as client,
            ):
                replies.append(await client.call_modern())

    assert "tls.ca" in replies[0]["error"]["message"]
    assert "error" in replies[1]
    assert "result" in replies[2]


async def test_what_cannot_be_sent_or_read_is_named_at_the_start(kit, tmp_path, monkeypatch):
    """A certificate that is not there, or a secret with a line end in it, is not found at the first call only."""
    monkeypatch.setenv("WS_TOKEN", "a\r\nb")
    for options, said in (
        ({"url": "wss://a/", "tls": {"ca": str(tmp_path / "none")}}, "tls"),
        ({"url": "ws://a/", "headers": {"x": {"from_env": "WS_TOKEN"}}}, "header"),
    ):
        with pytest.raises(SluicewayError, match=said):
            async with kit.gateway({"up": {"websocket": options}}):
                pass


async def test_max_connections_bounds_sessions(kit):
    """One session more than there may be connections is refused; with one fewer there is room."""
    options = {"max_connections": 1}
    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url, **options}}}) as gateway,
        kit.speaking(kit.url_of(gateway)) as other,
    ):
        async with kit.speaking(kit.url_of(gateway)) as one:
            await one.initialize()
            refused = await other.call("initialize", 1, **kit.INITIALIZE)
        await kit.until(lambda: not server.open)
        accepted = await other.call("initialize", 2, **kit.INITIALIZE)

    assert "max_connections" in refused["error"]["message"]
    assert "result" in accepted


async def test_ping_interval_and_ping_timeout_find_a_dead_upstream(kit):
    """One that says nothing and answers no ping is given up, and its calls fail."""

    async def frozen(stream):
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some(4096)
        key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
        token = base64.b64encode(hashlib.sha1(key.split(b": ")[1] + GUID).digest())
        await stream.send_all(
            b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-accept: " + token + b"\r\n\r\n"
        )
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, frozen, 0)
        port = listeners[0].socket.getsockname()[1]
        options = {"url": f"ws://127.0.0.1:{port}/", "ping_interval": "20ms", "ping_timeout": "50ms", "era": "modern"}
        async with (
            kit.gateway({"up": {"websocket": options}}) as gateway,
            kit.speaking(kit.url_of(gateway)) as client,
        ):
            failed = await client.call_modern()
        nursery.cancel_scope.cancel()

    assert failed["error"]["data"]["reason"] == "upstream_closed"
    assert "no sign of life" in failed["error"]["message"]


async def test_close_when_idle_closes_the_shared_connection_and_the_next_call_opens_another(kit):
    """Not while it is used."""
    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url, "close_when_idle": "50ms"}}}) as gateway,
        kit.speaking(kit.url_of(gateway)) as client,
    ):
        await client.call_modern(request_id=1)
        await kit.until(lambda: not server.open)
        again = await client.call_modern(request_id=2)

    assert "result" in again
    assert len(server.headers) == 2


async def test_an_upstream_message_over_max_message_ends_the_connection(kit):
    """Its calls fail, and say why."""

    async def big(socket):
        while True:
            message = json.loads(await socket.get_message())
            await kit.reply(socket, message["id"], {"big": "x" * 3000})

    async with (
        kit.scripted_server() as server,
        kit.gateway({"up": {"websocket": {"url": server.url, "era": "modern", "max_message": "2KiB"}}}) as gateway,
        kit.speaking(kit.url_of(gateway)) as client,
    ):
        server.script = big
        failed = await client.call_modern()

    assert "at most 2048 bytes" in failed["error"]["message"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "http://a/"}, "ws://"),
        ({"url": "ws://u:p@a/"}, "password"),
        ({"url": "ws://a/", "headers": {"Sec-WebSocket-Key": "x"}}, "sink itself"),
        ({"url": "ws://a/", "headers": {"host": "x"}}, "sink itself"),
        ({"url": "ws://a/", "headers": {"x": "a\r\nb"}}, "header"),
        ({"url": "wss://a/", "tls": TlsConfig(key=ConfigPath(Path("k")))}, "cert"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, said):
    """With the name of the option."""
    with pytest.raises(ValueError, match=said):
        WebSocketSinkConfig(**options)


def test_addresses_are_those_of_http_with_other_names():
    """`ws` is plain, `wss` is TLS, with the ports of both."""
    plain, secure = parse_address("ws://a/x?y"), parse_address("wss://b")

    assert (plain.tls, plain.host, plain.port, plain.path) == (False, "a", 80, "/x?y")
    assert (secure.tls, secure.host, secure.port, secure.path) == (True, "b", 443, "/")
