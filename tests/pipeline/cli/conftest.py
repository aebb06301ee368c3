"""The command line in this process, as a process of its own, and a gateway for it to talk to."""

import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from sluiceway.pipeline.cli import main


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Gateway(NamedTuple):
    """A gateway that runs as a process."""

    url: str
    config: Path
    process: subprocess.Popen[bytes]


CONFIG = """\
version: 1
sources:
  local:
    http: {{bind: "127.0.0.1:{port}"}}
    pipeline: main
pipelines:
  main:
    chain: [request_id]
    sink: demo
sinks:
  demo:
    embedded: {{}}
run:
  admin: {{bind: "unix:{socket}"}}
"""


@pytest.fixture
def sluiceway(capsys, monkeypatch):
    """Run a command in this process; returns its exit code and what it wrote."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def program():
    """Run a command as a process of its own; returns its exit code and what it wrote."""

    def run(*words, **options):
        command = [sys.executable, "-c", "import sys; from sluiceway.pipeline.cli import main; sys.exit(main())"]
        done = subprocess.run(
            [*command, *map(str, words)], capture_output=True, text=True, timeout=30, check=False, **options
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def gateway(tmp_path_factory):
    """A gateway with the demo server and an admin socket, as a process; has `url`, `config` and `process`."""
    folder = tmp_path_factory.mktemp("gateway")
    port = free_port()
    config = folder / "gateway.yaml"
    config.write_text(CONFIG.format(port=port, socket=folder / "admin.sock"))
    code = "import sys; from sluiceway.pipeline.cli import main; sys.exit(main())"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", code, "run", str(config)], stderr=log)
    for _ in range(1000):
        if "gateway ready" in (folder / "log").read_text():
            break
        assert process.poll() is None
        time.sleep(0.01)
    else:
        raise AssertionError("the gateway is not ready after ten seconds")
    yield Gateway(f"http://127.0.0.1:{port}/mcp", config, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file into a folder that is the working directory; returns its path."""
    monkeypatch.chdir(tmp_path)

    def write_file(name, text):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_file


GOOD = """\
version: 1
sources:
  local:
    http: {bind: "127.0.0.1:0"}
    pipeline: main
pipelines:
  main:
    chain: [request_id]
    sink: demo
sinks:
  demo:
    embedded: {}
"""


@pytest.fixture
def good():
    """A configuration without findings."""
    return GOOD


@pytest.fixture
def answering():
    """A server that gives one answer to everything; see `_answering`."""
    return _answering


@contextmanager
def _answering(status, body):
    """A server that gives one answer and remembers the request; yields its address and what it remembers."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            seen.append((self.path, self.headers.get("authorization")))
            if status == 0:
                self.connection.close()
                return
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_words):
            """Nobody wants to know."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()
