"""
The matrix of malformed HTTP/1.1 (reliability section 3.3), over real sockets, in the clear and over TLS.

`test_edge.py` has each input as a case of its own, in memory. Here all go through everything that a deployed gateway
has between the network and an endpoint, and are counted: at most 30 of about 106 may be accepted, and none may smuggle.
"""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from sluiceway.pipeline.model.options import ConfigPath
from sluiceway.transports.server_tls import ServerTlsConfig

_SPEC = importlib.util.spec_from_file_location("edge_inputs", Path(__file__).with_name("test_edge.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
_EDGE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_EDGE)

REFUSED: Final[dict[str, tuple[bytes, int]]] = _EDGE.MATRIX
SOUND: Final[set[str]] = _EDGE.SOUND
ODD: Final[dict[str, bytes]] = _EDGE.ODD
PROBE: Final = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
"""What comes behind each input: seen only if the input was one sound request."""
AT_ONCE: Final = 16
MOST_ACCEPTED: Final = 30


async def verdict(stream: Any, data: bytes) -> tuple[int, int]:
    """The status of the first response to an input, and how many requests behind it were answered."""
    async with stream:
        with suppress(trio.BrokenResourceError):  # refused before it was whole: the answer is there all the same
            await stream.send_all(data)
        answer = b""
        with suppress(trio.BrokenResourceError):  # reset, for there is more that nobody wants to read
            while piece := await stream.receive_some(65536):
                answer += piece
    first, *others = answer.split(b"HTTP/1.1 ")[1:]
    return int(first[:3]), sum(b"alive" in other for other in others)


@pytest.mark.parametrize("face", ["plain", "tls"])
async def test_the_matrix_over_sockets(running: Any, authority: Any, face: str) -> None:
    """Each input has its status, nothing behind a refused one is seen, and few are accepted."""
    options: dict[str, Any] = {}
    if face == "tls":
        cert, key = authority.issue()
        options["tls"] = ServerTlsConfig(cert=ConfigPath(cert), key=key)
    inputs = {**{name: data for name, (data, _) in REFUSED.items()}, **ODD}
    got: dict[str, tuple[int, int]] = {}
    limiter = trio.CapacityLimiter(AT_ONCE)
    async with running(bound=True, **options) as served:
        host, _, port = served.source.addresses[0].rpartition(":")

        async def ask(name: str, data: bytes) -> None:
            async with limiter:
                stream: Any = await trio.open_tcp_stream(host, int(port))
                if face == "tls":
                    context = authority.trusted()
                    stream = trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=True)
                got[name] = await verdict(stream, data if name == "endless target" else data + PROBE)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for name, data in inputs.items():
                    nursery.start_soon(ask, name, data)
        contained = served.source.server.contained
    wanted = {name: (status, int(name in SOUND)) for name, (_, status) in REFUSED.items()}
    wanted |= {name: (200, int(name != "http/1.0")) for name in ODD}

    assert wanted == got
    assert sum(status < 400 for status, _ in got.values()) <= MOST_ACCEPTED
    assert len(got) >= 106
    assert contained == 0
