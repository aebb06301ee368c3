"""A gateway of several workers, as processes, and clients of it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import h11
import psutil
import pytest
import trio

COMMAND = [sys.executable, "-c", "from sluiceway.pipeline.cli import main; import sys; sys.exit(main())", "run"]
VERSION = "2026-07-28"
PATIENCE_S = 50


class Client:
    """One connection to the gateway; modern by default."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.session: str | None = None
        self._stream: trio.SocketStream | None = None
        self._wire = h11.Connection(h11.CLIENT)
        self._number = 0

    async def __aenter__(self) -> Self:
        self._stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._stream is not None
        await trio.aclose_forcefully(self._stream)

    @property
    def is_over(self) -> bool:
        """Whether the gateway has said that it closes the connection."""
        return self._wire.our_state is h11.MUST_CLOSE

    async def send(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request; status, headers and body of its answer."""
        assert self._stream is not None
        named = {"host": f"127.0.0.1:{self.port}", "content-length": str(len(body)), **headers}
        fields = [(name.replace("_", "-"), value) for name, value in named.items()]
        data = self._wire.send(h11.Request(method=method, target=path, headers=fields)) or b""
        data += self._wire.send(h11.Data(body)) or b"" if body else b""
        await self._stream.send_all(data + (self._wire.send(h11.EndOfMessage()) or b""))
        status, found, received = 0, {}, b""
        while True:
            event = self._wire.next_event()
            if event is h11.NEED_DATA:
                self._wire.receive_data(await self._stream.receive_some())
            elif isinstance(event, h11.Response):
                status = event.status_code
                found = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                received += bytes(event.data)
            else:
                break
        if not isinstance(event, h11.EndOfMessage):
            raise h11.RemoteProtocolError("the gateway hung up")
        with suppress(h11.LocalProtocolError):
            self._wire.start_next_cycle()
        return status, found, received

    async def call(self, tool: str = "echo", **arguments: Any) -> Any:
        """Call a tool; the message that answers."""
        return await self.ask("tools/call", name=tool, arguments=arguments)

    async def ask(self, method: str, **params: Any) -> Any:
        """Ask for something; the message that answers."""
        self._number += 1
        extra: dict[str, str] = {"accept": "application/json, text/event-stream", "content_type": "application/json"}
        if self.session is not None:
            extra |= {"mcp_session_id": self.session, "mcp_protocol_version": "2025-11-25"}
        else:
            meta = {"protocolVersion": VERSION, "clientInfo": {"name": "t", "version": "1"}, "clientCapabilities": {}}
            params["_meta"] = {f"io.modelcontextprotocol/{key}": value for key, value in meta.items()}
            extra |= {"mcp_protocol_version": VERSION, "mcp_method": method}
            if "name" in params:
                extra["mcp_name"] = params["name"]
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        status, _, body = await self.send("POST", "/mcp", json.dumps(message).encode(), **extra)
        return _message(body) if body else status

    async def begin(self) -> str:
        """Open a legacy session on this connection; its id."""
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        headers = {"accept": "application/json, text/event-stream", "content_type": "application/json"}
        _, found, _ = await self.send("POST", "/mcp", json.dumps(message).encode(), **headers)
        self.session = found["mcp-session-id"]
        initialized = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        headers |= {"mcp_session_id": self.session, "mcp_protocol_version": "2025-11-25"}
        status, _, _ = await self.send("POST", "/mcp", json.dumps(initialized).encode(), **headers)
        assert status == 202
        return self.session


def _message(body: bytes) -> Any:
    if body.startswith(b"{"):
        return json.loads(body)
    return json.loads(next(line[5:] for line in reversed(body.splitlines()) if line.startswith(b"data:")))


class Gateway:
    """A running supervisor and its workers."""

    def __init__(self, folder: Path, data: dict[str, Any]) -> None:
        self.file = folder / "gateway.yaml"
        self.folder = folder
        self.data = data
        self.data["run"] = {
            "workers": 2, "log_format": "json", "admin": {"bind": f"unix:{folder}/admin.sock"}, **data.get("run", {})
        }  # fmt: skip
        self.write(self.data)
        self.lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.seen: list[dict[str, Any]] = []
        self.port = 0
        self._process = subprocess.Popen([*COMMAND, str(self.file)], stderr=subprocess.PIPE)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.put(json.loads(line) if line.startswith(b"{") else {"event": line.decode()})
        self.lines.put({"event": "end of the log"})

    def write(self, data: Any) -> None:
        """Change the configuration's file."""
        self.file.write_text(data if isinstance(data, str) else json.dumps(data))

    def await_event(self, event: str, **values: Any) -> dict[str, Any]:
        """The next line of the log that says this."""
        while True:
            line = self.lines.get(timeout=PATIENCE_S)
            self.seen.append(line)
            if line["event"] == event and values.items() <= line.items():
                return line
            assert line["event"] != "end of the log", self.seen

    async def event(self, event: str, **values: Any) -> dict[str, Any]:
        """Likewise, in a thread."""
        return await trio.to_thread.run_sync(lambda: self.await_event(event, **values), abandon_on_cancel=True)

    def signal(self, number: int) -> None:
        """Send the supervisor a signal."""
        self._process.send_signal(number)

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        return self._process.pid

    def workers(self) -> list[psutil.Process]:
        """The worker processes."""
        return [
            each
            for each in psutil.Process(self.pid).children()
            if "sluiceway.pipeline.cli.worker" in each.cmdline() and each.status() != psutil.STATUS_ZOMBIE
        ]

    def family(self) -> list[psutil.Process]:
        """The supervisor and all below it."""
        supervisor = psutil.Process(self.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait(PATIENCE_S)

    async def admin(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """Ask the admin listener; JSON as such, all else as text."""
        stream = await trio.open_unix_socket(f"{self.folder}/admin.sock")
        async with stream:
            content = b"" if body is None else json.dumps(body).encode()
            head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len(content)}"
            await stream.send_all(f"{head}\r\n\r\n".encode() + content)
            wire = h11.Connection(h11.CLIENT)
            wire.send(h11.Request(method=method, target=path, headers=[("host", "localhost"), ("content-length", "0")]))
            wire.send(h11.EndOfMessage())
            found, kind = b"", ""
            while not isinstance(event := wire.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    wire.receive_data(await stream.receive_some())
                elif isinstance(event, h11.Response):
                    kind = dict(event.headers)[b"content-type"].decode()
                elif isinstance(event, h11.Data):
                    found += bytes(event.data)
        return json.loads(found) if kind.startswith("application/json") else found.decode()

    def close(self) -> None:
        """End it and everything of it."""
        with suppress(psutil.NoSuchProcess):
            family = self.family() if self._process.poll() is None else []
            self._process.terminate()
            try:
                self._process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                for each in family:
                    with suppress(psutil.NoSuchProcess):
                        each.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()


async def gone(processes: list[psutil.Process]) -> None:
    """Wait until they are, or are zombies that somebody else has to reap."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110  # nobody tells
                await trio.sleep(0.01)


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """A function that starts a gateway and waits until it is ready; a context manager."""

    @contextmanager
    def started(data: dict[str, Any] | None = None) -> Iterator[Gateway]:
        gateway = Gateway(tmp_path, data or tools())
        try:
            ready = gateway.await_event("gateway ready")
            gateway.port = int(ready["web"][0].rpartition(":")[2])
            yield gateway
        finally:
            gateway.close()

    return started


@pytest.fixture
def client() -> type[Client]:
    """The class of clients."""
    return Client


def tools(**run: Any) -> dict[str, Any]:
    """A gateway in front of an embedded server with the tools of the demo."""
    return {
        "version": 1,
        "sources": {"web": {"http": {"bind": "127.0.0.1:0"}}},
        "pipelines": {"main": {"chain": ["request_id"], "sink": "demo"}},
        "sinks": {"demo": {"embedded": {}}},
        "run": run,
    }


def kill(process: psutil.Process) -> None:
    """As hard as can be."""
    os.kill(process.pid, signal.SIGKILL)
