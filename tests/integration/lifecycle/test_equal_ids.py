"""
Case 25 of the reliability table, at full size: two principals on one upstream, who always use the same id.

What became of others: CVE-2026-25536, one client's answer given to another one.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from sluiceway.middlewares.auth.api_keys import ApiKey, digest_of, render_keys
from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.protocol.mcp import LATEST, MetaKey
from sluiceway.pipeline.runtime.engine import Engine

SHUFFLER = Path(__file__).parents[2] / "transports" / "children" / "shuffler.py"
CALLS = 10_000
"""Of each principal."""
AT_ONCE = 8
META = {MetaKey.VERSION.value: LATEST, MetaKey.CLIENT_CAPABILITIES.value: {}, "progressToken": "token"}
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Exchanges:
    """Requests or responses on one connection, which have a length or are chunked."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._rest = b""

    async def next(self) -> bytes:
        """The next one's body, empty at the end."""
        while (at := self._rest.find(b"\r\n\r\n") + 4) < 4:
            if not await self._more():
                return b""
        found = LENGTH.search(self._rest, 0, at)
        if found is not None:
            end = at + int(found[1])
            while len(self._rest) < end:
                assert await self._more()
        else:
            while (end := self._rest.find(b"\r\n0\r\n\r\n", at - 2) + 7) < 7:
                assert await self._more()
        body, self._rest = self._rest[at:end], self._rest[end:]
        return body

    async def _more(self) -> bool:
        data = await self._stream.receive_some(65536)
        self._rest += data
        return bool(data)


async def upstream(stream: trio.SocketStream) -> None:
    """A modern server that answers each request with what it asked, some sooner and some later."""
    chance = random.Random(25)
    requests = Exchanges(stream)
    async with stream:
        with suppress(trio.BrokenResourceError):
            while body := await requests.next():
                request = json.loads(body)
                for _ in range(chance.randrange(5)):
                    await trio.lowlevel.checkpoint()
                result = {"resultType": "complete", "content": [], "of": request["params"]["arguments"]}
                answer = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()
                head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer)
                await stream.send_all(head + answer)


@asynccontextmanager
async def gateway(sink: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """One that knows both principals by their keys; yields its port."""
    monkeypatch.setenv("PEPPER", "a-pepper-of-some-length")
    keys = [
        ApiKey(id=who, digest=digest_of(b"a-pepper-of-some-length", f"key-{who}"), subject=who)
        for who in ("ana", "bob")
    ]
    (folder / "keys.json").write_bytes(render_keys(keys))
    auth = {"pepper": {"from_env": "PEPPER"}, "file": str(folder / "keys.json")}
    data = {
        "version": 1,
        "sources": {"web": {"http": {"bind": "127.0.0.1:0"}}},
        "pipelines": {"main": {"chain": [{"auth_api_key": auth}], "sink": "up"}},
        "sinks": {"up": sink},
    }
    engine = Engine(from_data(data))
    async with engine.running():
        yield int(str(engine.sources["web"].addresses[0]).rpartition(":")[2])  # type: ignore[attr-defined]  # an HTTP source


async def calls(port: int, who: str, numbers: range, crossed: list[Any], served: Counter[str]) -> None:
    """Call again and again over one connection, always with id 1 and the same token."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        answers = Exchanges(stream)
        for number in numbers:
            arguments = {"who": who, "n": number}
            call = {"name": "echo", "arguments": arguments, "_meta": META}
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}).encode()
            await stream.send_all(
                b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nx-api-key: key-%b\r\ncontent-type: application/json\r\n"
                b"accept: application/json, text/event-stream\r\nmcp-protocol-version: %b\r\nmcp-method: tools/call\r\n"
                b"mcp-name: echo\r\ncontent-length: %d\r\n\r\n%b"
                % (port, who.encode(), LATEST.encode(), len(body), body)
            )
            answer = await answers.next()
            served[who] += 1
            told = [json.loads(each) for each in re.findall(rb'\{"jsonrpc".*\}', answer)]
            interim, last = told[:-1], told[-1]
            if last.get("result", {}).get("of") != arguments or last["id"] != 1:
                crossed.append((arguments, last))
            if any(each["params"]["message"] != who or each["params"]["progressToken"] != "token" for each in interim):
                crossed.append((arguments, interim))


@pytest.mark.real
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["http", "stdio"])
async def test_ten_thousand_equal_ids_of_each_of_two_principals_never_cross(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gets its own answers and its own progress, through the whole gateway and real sockets."""
    crossed: list[Any] = []
    served: Counter[str] = Counter()
    with trio.fail_after(280):
        async with trio.open_nursery() as servers:
            sink: Any = {"stdio": {"command": [sys.executable, "-S", str(SHUFFLER)], "era": "modern"}}
            if kind == "http":
                listeners = await servers.start(trio.serve_tcp, upstream, 0)
                port = listeners[0].socket.getsockname()[1]
                sink = {"http": {"url": f"http://127.0.0.1:{port}/mcp", "era": "modern", "max_connections": 12}}
            async with gateway(sink, tmp_path, monkeypatch) as port, trio.open_nursery() as clients:
                for who in ("ana", "bob"):
                    for first in range(AT_ONCE):
                        clients.start_soon(calls, port, who, range(first, CALLS, AT_ONCE), crossed, served)
            servers.cancel_scope.cancel()

    assert served == {"ana": CALLS, "bob": CALLS}
    assert [] == crossed
