"""
A steady load on one gateway, all of it made here: for benches that count, and need the same calls each time.

The upstream over HTTP is a thread of this process, that over stdio a child of the gateway's; both speak both eras
(peers/stdio_server.py). Connections are fixed, each has one call under way, and ids have as many digits each.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
from gateways import BARE, FULL, HTTP, KEY, STDIO_SINK
from idle import port_in
from load import Case, Target, prepare
from stdio_server import answer

HERE = Path(__file__).resolve().parent
CHAINS = {"bare": (BARE, HTTP), "full": (FULL, HTTP), "stdio": (BARE, STDIO_SINK)}
_CONFIG = 'version: 1\nsources: {web: {http: {bind: "127.0.0.1:0"}}}\npipelines:\n  main:\n'
_FIRST_ID = 1_000_000
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_TAKEN = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
_NOT_USED = b"HTTP/1.1 405 Method Not Allowed\r\nallow: POST\r\ncontent-length: 0\r\n\r\n"


@contextmanager
def upstream() -> Iterator[int]:
    """An upstream over HTTP, in a thread for each of its connections; its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        accepting = threading.Thread(target=_accept, args=(listener,))
        accepting.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()


def _accept(listener: socket.socket) -> None:
    threads = []
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # the bench is over, and the gateway has left
            break
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threads.append(threading.Thread(target=_serve, args=(connection,)))
        threads[-1].start()
    for thread in threads:
        thread.join()


def _serve(connection: socket.socket) -> None:
    with connection, connection.makefile("rb") as lines:
        while verb := lines.readline():
            length = 0
            while (line := lines.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            said = answer(lines.read(length)) if verb.startswith(b"POST") else b""
            reply = _TAKEN if said is None else _HEAD % len(said) + said if said else _NOT_USED
            try:
                connection.sendall(reply)
            except OSError:
                return


def configuration(chain: str, port: int) -> str:
    """Of a gateway that is one of `CHAINS`, in front of that port, and takes any for itself."""
    stages, sink = CHAINS[chain]
    stdio = [sys.executable, str(HERE / "peers" / "stdio_server.py")]
    auth, url = HERE.parent / "configs" / "auth", f"http://127.0.0.1:{port}/mcp"
    return _CONFIG + (stages + sink).format(auth=auth, upstream=url, stdio=stdio) + "run: {log_level: info}\n"


class Gateway:
    """A gateway that is up, in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
        self.process = process
        self._address = ("127.0.0.1", port)
        self._folder = folder

    def request(self, chain: str, era: str) -> tuple[bytes, bytes]:
        """The bytes of a small call before and behind its id, after whatever greetings the era wants."""
        path = self._folder / "request.txt"
        headers = {"x-api-key": KEY} if chain == "full" else {}
        target = Target(f"http://{self._address[0]}:{self._address[1]}/mcp", headers)
        prepare(target, Case(era, era, text=96), path)
        _, _, rest = path.read_text().partition("\n")
        head, _, body = rest.partition("\n\n")
        before, _, after = body.partition('"id":1,')
        body = f'{before}"id":{_FIRST_ID},{after}'
        lines = [f"POST {target.path} HTTP/1.1", f"Host: {target.host}", *head.split("\n")]
        whole = "\r\n".join([*lines, f"Content-Length: {len(body)}"]) + "\r\n\r\n" + body
        before, _, after = whole.partition(str(_FIRST_ID))
        return before.encode(), after.encode()

    def load(self, request: tuple[bytes, bytes], connections: int) -> Load:
        """Clients of it; close them with `Load.close`."""
        return Load([socket.create_connection(self._address, 60) for _ in range(connections)], request)


class Load:
    """Clients, each with a connection that stays."""

    def __init__(self, sockets: Sequence[socket.socket], request: tuple[bytes, bytes]) -> None:
        self._sockets, (self._before, self._after) = sockets, request
        self._next = _FIRST_ID
        self._ready = selectors.DefaultSelector()
        for each in sockets:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ready.register(each, selectors.EVENT_READ, bytearray())

    def call(self, count: int) -> None:
        """
        So many calls, each connection's next as soon as its last was answered.

        Raises:
            RuntimeError: An answer is not a result.
        """
        sent = answered = 0
        for each in self._sockets[:count]:
            self._send(each)
            sent += 1
        while answered < count:
            for key, _ in self._ready.select(60):
                if not _is_whole(key.data, key.fileobj):
                    continue
                key.data.clear()
                answered += 1
                if sent < count:
                    self._send(key.fileobj)
                    sent += 1

    def _send(self, connection: socket.socket) -> None:
        self._next += 1
        connection.sendall(b"%b%d%b" % (self._before, self._next, self._after))

    def close(self) -> None:
        """Hang up."""
        self._ready.close()
        for each in self._sockets:
            each.close()


def _is_whole(taken: bytearray, connection: socket.socket) -> bool:
    piece = connection.recv(65536)
    taken += piece
    head, end, body = taken.partition(b"\r\n\r\n")
    if not piece or (end and (b" 200 " not in head[:16] or (body and b'"jsonrpc"' not in body[:32]))):
        raise RuntimeError(f"no result: {bytes(taken[:400])!r}")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    if not end or len(body) < int(length):
        return False
    if b'"result"' not in body:
        raise RuntimeError(f"no result: {bytes(taken[:400])!r}")
    return True


@contextmanager
def gateway(command: Sequence[str], config: str, folder: Path) -> Iterator[Gateway]:
    """Start `command` with a configuration behind it, and wait until it is ready; its standard output is a pipe."""
    path, log = folder / "gateway.yaml", folder / "log"
    path.write_text(config)
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE_"))}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*command, str(path)], stdout=subprocess.PIPE, stderr=errors, env={**quiet, "PYTHONHASHSEED": "0"}
        )
    try:
        yield Gateway(process, port_in(log, process, 120), folder)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
