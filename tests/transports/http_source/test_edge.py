"""Malformed HTTP/1.1: the matrix of reliability section 3.3, through the whole connection."""

from __future__ import annotations

import pytest
import trio

from sluiceway.transports.http_source.edge import MAX_HEAD, inspect_head

OK_BODY = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
HEAD = "Host: localhost\r\nContent-Type: application/json\r\nAccept: */*\r\n"


def post(*lines, body=OK_BODY, length=True, line="POST /mcp HTTP/1.1", eol="\r\n"):
    head = HEAD + (f"Content-Length: {len(body)}\r\n" if length else "")
    text = line + "\r\n" + head + "".join(each + "\r\n" for each in lines) + "\r\n"
    return text.replace("\r\n", eol).encode("latin-1") + body


def get(target="/mcp", version="HTTP/1.1", method="GET", host="localhost"):
    return f"{method} {target} {version}\r\nHost: {host}\r\n\r\n".encode("latin-1")


CHUNKED = "Transfer-Encoding: chunked"
ONE_CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(OK_BODY), OK_BODY)

MATRIX = {
    # length and encoding of the body
    "cl and te": (post(CHUNKED, body=ONE_CHUNK), 400),
    "te and cl": (post(CHUNKED, "Content-Length: 5", body=ONE_CHUNK, length=False), 400),
    "cl twice, equal": (post(f"Content-Length: {len(OK_BODY)}"), 400),
    "cl twice, different": (post("Content-Length: 1"), 400),
    "cl list": (post(f"Content-Length: {len(OK_BODY)}, {len(OK_BODY)}", length=False), 400),
    "cl +3": (post("Content-Length: +3", length=False), 400),
    "cl -1": (post("Content-Length: -1", length=False), 400),
    "cl 0x3": (post("Content-Length: 0x3", length=False), 400),
    "cl 1_0": (post("Content-Length: 1_0", length=False), 400),
    "cl 3 3": (post("Content-Length: 3 3", length=False), 400),
    "cl empty": (post("Content-Length:", length=False), 400),
    "cl 3.0": (post("Content-Length: 3.0", length=False), 400),
    "cl arabic": (post("Content-Length: ٣".encode().decode("latin-1"), length=False), 400),
    "cl 20 digits": (post("Content-Length: 1" + "0" * 20, length=False), 413),
    "cl over the limit": (post("Content-Length: 4194305", length=False), 413),
    "te twice": (post(CHUNKED, CHUNKED, body=ONE_CHUNK, length=False), 400),
    "te list": (post("Transfer-Encoding: gzip, chunked", body=ONE_CHUNK, length=False), 501),
    "te identity": (post("Transfer-Encoding: identity", body=ONE_CHUNK, length=False), 501),
    "te xchunked": (post("Transfer-Encoding: xchunked", body=ONE_CHUNK, length=False), 501),
    "te obs-fold": (post("Transfer-Encoding:\r\n chunked", body=ONE_CHUNK, length=False), 400),
    "te with vt": (post("Transfer-Encoding: \x0bchunked", body=ONE_CHUNK, length=False), 400),
    "te in 1.0": (post(CHUNKED, body=ONE_CHUNK, length=False, line="POST /mcp HTTP/1.0"), 400),
    "te space before colon": (post("Transfer-Encoding : chunked", body=ONE_CHUNK, length=False), 400),
    "chunk size not hex": (post(CHUNKED, body=b"zz\r\n", length=False), 400),
    "chunk size negative": (post(CHUNKED, body=b"-1\r\n", length=False), 400),
    "chunk size with 0x": (post(CHUNKED, body=b"0x5\r\nabcde\r\n", length=False), 400),
    "chunk size 2^64 + 3": (post(CHUNKED, body=b"10000000000000003\r\n", length=False), 400),
    "chunk size enormous": (post(CHUNKED, body=b"f" * 30 + b"\r\n", length=False), 400),
    "chunk without crlf": (post(CHUNKED, body=b"3\r\nabcX0\r\n\r\n", length=False), 400),
    # line ends and folding
    "bare lf": (post(eol="\n"), 400),
    "bare lf in one header": (post("X-A: b\nX-C: d"), 400),
    "bare lf at the end": (b"GET /mcp HTTP/1.1\r\nHost: localhost\r\n\n", 400),
    "bare cr in a header": (post("X-A: b\rX-C: d"), 400),
    "obs-fold space": (post("X-A: b\r\n c"), 400),
    "obs-fold tab": (post("X-A: b\r\n\tc"), 400),
    "fold in the first header": (b"GET /mcp HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
    "empty line first": (b"\r\n" + get(), 400),
    "space first": (b" " + get(), 400),
    # headers
    "no colon": (post("nonsense"), 400),
    "empty name": (post(": x"), 400),
    "space in name": (post("a b: x"), 400),
    "space before colon": (post("X-A : x"), 400),
    "nul in value": (post("X-A: a\0b"), 400),
    "control in value": (post("X-A: a\x01b"), 400),
    "non-ascii name": (post("X-\xe4: a"), 400),
    "brace in name": (post("X{: a"), 400),
    "101 headers": (post(*(f"X-{n}: 1" for n in range(97))), 431),
    "1000 headers": (post(*(f"X-{n}: 1" for n in range(1000))), 431),
    "16 KiB of headers": (post("X-A: " + "a" * MAX_HEAD), 431),
    "endless header": (b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * (MAX_HEAD + 1), 431),
    # host
    "no host": (b"GET /mcp HTTP/1.1\r\n\r\n", 400),
    "no host in 1.0": (b"GET /mcp HTTP/1.0\r\n\r\n", 400),
    "two hosts": (post("Host: localhost"), 400),
    "host with space": (get(host="a b"), 400),
    "host with path": (get(host="a/evil?x"), 400),
    "host with user": (get(host="u@a:99999"), 400),
    "host with port too great": (get(host="localhost:65536"), 400),
    "empty host": (get(host=""), 400),
    "host list": (get(host="localhost, evil.example"), 400),
    "foreign host": (get(host="evil.example"), 421),
    # request line
    "lower-case method": (get(method="get"), 405),
    "mixed-case method": (get(method="Get"), 405),
    "connect": (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    "trace": (get(method="TRACE"), 405),
    "unknown method": (get(method="BREW"), 405),
    "method with brackets": (get(method="G(T"), 400),
    "http/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "http/2.0 text": (get(version="HTTP/2.0"), 505),
    "http/1.2": (get(version="HTTP/1.2"), 505),
    "http/3.0": (get(version="HTTP/3.0"), 505),
    "http/0.9": (b"GET /\r\n", 400),
    "http/11": (get(version="HTTP/11"), 400),
    "http/1.10": (get(version="HTTP/1.10"), 400),
    "lower-case http": (get(version="http/1.1"), 400),
    "no version": (b"GET /mcp\r\nHost: localhost\r\n\r\n", 400),
    "two spaces": (get(target=" /mcp"), 400),
    "tab between": (b"GET\t/mcp\tHTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "trailing space": (get(version="HTTP/1.1 "), 400),
    "extra word": (get(target="/mcp x"), 400),
    "nul in target": (get(target="/mcp\0"), 400),
    "non-ascii target": (get(target="/\xe4"), 400),
    "8 KiB target": (get(target="/" + "a" * 8192), 414),
    "endless target": (b"GET /" + b"a" * 9000, 414),
    "target !": (get(target="!"), 400),
    "target *": (get(target="*", method="OPTIONS"), 400),
    "fragment": (get(target="/mcp#b"), 400),
    "escaped nul": (get(target="/a%00b"), 400),
    "escaped dots": (get(target="/%2e%2e%2fadmin"), 400),
    "dots": (get(target="/x/../mcp"), 400),
    "one dot": (get(target="/./mcp"), 400),
    "backslash dots": (get(target="/..\\mcp"), 400),
    "broken escape": (get(target="/a%zz"), 400),
    "cut escape": (get(target="/a%2"), 400),
    "absolute form": (get(target="http://localhost/mcp"), 400),
    "absolute form, other host": (get(target="http://evil.example/mcp"), 400),
    "authority form": (get(target="localhost:80"), 400),
    # not HTTP at all
    "tls hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "zeros": (b"\0" * 50, 400),
    "only line ends": (b"\r\n\r\n\r\n", 400),
    "json": (b'{"jsonrpc":"2.0"}\r\n\r\n', 400),
    "ssh": (b"SSH-2.0-OpenSSH_9.2p1\r\n", 400),
}  # fmt: skip


SOUND = {"foreign host", "unknown method"}
"""Sound HTTP, refused by the endpoint: the connection goes on."""


@pytest.mark.parametrize("name", MATRIX)
async def test_malformed_requests_are_refused_and_closed(running, autojump_clock, name):
    """The exact status; nothing behind a broken request is seen; nothing is called; the server lives."""
    data, status = MATRIX[name]
    async with running() as served:
        wire = served.connect()
        await wire.send_raw(data if name == "endless target" else data + get("/healthz"))
        got, headers = await wire.head()
        await wire.rest()
        rest = b"" if name in SOUND else await wire.closed()
        alive = await served.ask("GET", "/healthz")

        assert status == got
        assert b"alive" not in wire.raw + rest
        assert (405 == status) == ("allow" in headers)
        assert (200, 0) == (alive.status, served.pipeline.served + served.source.server.contained)


ODD = {
    "plain": get("/healthz"),
    "dots in the query": get("/healthz?x=%2e%2e/.."),
    "http/1.0": get("/healthz", version="HTTP/1.0"),
    "host with port": get("/healthz", host="localhost:8080"),
    "host in brackets": get("/healthz", host="[::1]:1"),
    "escaped letter": get("/he%61lthz"),
    "upgrade to h2c": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n",
    "upgrade to websocket": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
}
"""Answered with 200 by /healthz."""


@pytest.mark.parametrize("name", ODD)
async def test_odd_but_sound_requests_are_answered(running, autojump_clock, name):
    """Upgrades are ignored: the answer is HTTP/1.1, also when something follows (cases 1 and 3)."""
    async with running() as served:
        answer = await served.raw(ODD[name] + b"x")

        assert (200, {"status": "alive"}) == (answer.status, answer.json)
        assert 0 == served.source.server.contained


@pytest.mark.parametrize("name", ["http/2 preface", "cl and te", "bare lf", "no host", "dots", "101 headers"])
async def test_the_verdict_does_not_depend_on_how_the_bytes_arrive(running, autojump_clock, name):
    """One byte at a time gives the same status."""
    data, status = MATRIX[name]
    async with running() as served:
        wire = served.connect()
        await wire.send_raw(b"")
        with trio.move_on_after(1):
            for byte in data[:4000]:
                await wire.stream.send_all(bytes([byte]))
        got, _ = await wire.head()

        assert status == got


async def test_two_thousand_priority_frames_end_nothing(running, autojump_clock):
    """Case 2: the preface is refused and the connection closed, whatever follows."""
    async with running() as served:
        wire = served.connect()
        frames = (b"\x00\x00\x05\x02\x00" + b"\x00\x00\x00\x01" + b"\x00\x00\x00\x00\x10") * 2000
        await wire.send_raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + frames)

        assert 505 == (await wire.response()).status
        assert 200 == (await served.ask("GET", "/healthz")).status


async def test_a_request_hidden_in_an_ambiguous_body_is_never_seen(running, autojump_clock):
    """Case 4: with both length headers, in both orders, nothing behind the head is read as a request."""
    hidden = get("/healthz")
    for lines in (("Content-Length: 5", CHUNKED), (CHUNKED, "Content-Length: 5")):
        async with running() as served:
            wire = served.connect()
            await wire.send_raw(post(*lines, body=b"0\r\n\r\n" + hidden, length=False) + hidden)
            answer = await wire.response()
            rest = await wire.closed()

            assert (400, "close") == (answer.status, answer.headers["connection"])
            assert b"alive" not in wire.raw + rest


def test_nothing_is_refused_before_enough_is_there():
    """An unfinished head that is fine so far is waited for."""
    whole = get()
    assert [None] * len(whole) == [inspect_head(whole[:n]) for n in range(len(whole))]
