"""
What a call over HTTP/2 and TLS costs a gateway: CPU per call, with one stream after the other and with 16 at once.

    python bench/http2.py --json bench/results/http2.json

The client is python's h2 in this process, which is slower than the gateway is: what counts is the CPU of the gateway's
process, in front of an upstream over HTTP/1.1 (large.py).
"""

from __future__ import annotations

import argparse
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from figures import report
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded
from idle import COMMAND, port_in
from large import META, VERSION, Upstream

CALLS = 800
HTTP2 = "HTTP/2 over TLS, 16 streams: CPU us per call"
BOUNDS = {HTTP2: 700.0}
CONFIG = """version: 1
sources: {web: {http: {bind: "127.0.0.1:0", tls: {cert: "%s", key: "%s"}}}}
pipelines: {main: {chain: [], sink: up}}
sinks: {up: {http: {url: "http://127.0.0.1:%d/mcp"}}}
run: {log_level: info}
"""


class Client:
    """One connection with many streams."""

    def __init__(self, port: int) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the bench's own certificate
        context.set_alpn_protocols(["h2"])
        self._socket = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._h2.initiate_connection()
        params = {"name": "echo", "arguments": {"text": "x" * 96}, "_meta": META}
        self._body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        self._head = [
            (":method", "POST"), (":scheme", "https"), (":authority", f"127.0.0.1:{port}"), (":path", "/mcp"),
            ("content-type", "application/json"), ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", VERSION), ("mcp-method", "tools/call"), ("mcp-name", "echo"),
            ("content-length", str(len(self._body))),
        ]  # fmt: skip

    def call(self, calls: int, at_once: int) -> None:
        """
        So many calls, of which so many are under way at a time.

        Raises:
            RuntimeError: One was not answered with a result.
        """
        asked, answered, streams = 0, 0, dict[int, bytes]()
        while answered < calls:
            while asked < calls and len(streams) < at_once:
                stream = self._h2.get_next_available_stream_id()
                self._h2.send_headers(stream, self._head)
                self._h2.send_data(stream, self._body, end_stream=True)
                streams[stream], asked = b"", asked + 1
            self._socket.sendall(self._h2.data_to_send())
            answered += self._read(streams)

    def _read(self, streams: dict[int, bytes]) -> int:
        data, ended = self._socket.recv(65536), 0
        if not data:
            raise RuntimeError("the gateway has closed the connection")
        for event in self._h2.receive_data(data):
            match event:
                case ResponseReceived(headers=headers) if dict(headers)[":status"] != "200":
                    raise RuntimeError(f"not answered: {headers}")
                case DataReceived(data=piece, stream_id=stream, flow_controlled_length=length):
                    self._h2.acknowledge_received_data(length, stream)
                    streams[stream] += piece
                case StreamEnded(stream_id=stream):
                    ended += 1
                    if b'"result"' not in streams.pop(stream):
                        raise RuntimeError("no result")
        return ended


@contextmanager
def gateway(upstream: int) -> Iterator[tuple[int, int]]:
    """`sluiceway run` with TLS; its process id and its port."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cert, key, log = folder / "cert.pem", folder / "key.pem", folder / "log"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
            check=True, capture_output=True,
        )  # fmt: skip
        config = folder / "gateway.yaml"
        config.write_text(CONFIG % (cert, key, upstream))
        with log.open("wb") as output:
            process = subprocess.Popen([*COMMAND, str(config)], stderr=output)
        try:
            yield process.pid, port_in(log)
        finally:
            process.terminate()
            process.wait(60)


def main() -> int:
    """Measure, and say whether it is over its bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    upstream, figures = Upstream(), {}
    upstream.result({})
    with gateway(upstream.port) as (pid, port):
        clock = (~pid << 3) | 2  # what the process was on a processor for (clock_getcpuclockid(3))
        client = Client(port)
        client.call(CALLS, 16)
        for title, at_once in (("HTTP/2 over TLS, one stream: CPU us per call", 1), (HTTP2, 16)):
            costs = []
            for _ in range(3):
                before = time.clock_gettime(clock)
                client.call(CALLS, at_once)
                costs.append((time.clock_gettime(clock) - before) / CALLS * 1e6)
            figures[title] = min(costs)
    return report(figures, BOUNDS, options.json)


if __name__ == "__main__":
    sys.exit(main())
