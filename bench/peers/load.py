"""Load on one gateway: greetings, requests of each size and era, and wrk, which fires them and looks at each answer."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

HERE = Path(__file__).resolve().parent
MODERN, LEGACY = "2026-07-28", "2025-06-18"
_META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
}
_JSON = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
_FIGURES = re.compile(r"FIGURES (\S+) (\S+) (\S+) (\S+) (\d+) (\d+) (\d+)")


@frozen
class Case:
    """One kind of request."""

    name: str
    era: str
    connections: tuple[int, ...] = (16,)
    """How many ask at the same time; one measurement for each."""
    text: int = 0
    """Bytes of the argument of `echo`, which come back."""
    blob: int = 0
    """Bytes of the result of `blob`, if that is called."""
    method: str = "tools/call"
    patience: int = 1
    """Above 1: calls take long, so there is one measurement, in the first round, which is so many times as long."""

    @property
    def file(self) -> str:
        """A name for its request's file."""
        return re.sub(r"\W+", "-", self.name) + ".txt"

    def params(self, tool: str) -> dict:
        """Of the request; `tool` is what `echo` is called behind this gateway."""
        if self.method != "tools/call":
            return {}
        if self.blob:
            return {"name": "blob", "arguments": {"size": self.blob}}
        return {"name": tool, "arguments": {"text": "x" * self.text}}


@frozen
class Target:
    """Where the load goes."""

    url: str
    headers: Mapping[str, str]
    """Credentials."""
    tool: str = "echo"
    static: bool = False
    """Whether it serves a file to whoever asks with GET, and knows nothing of messages."""

    @property
    def host(self) -> str:
        """Address and port."""
        return self.url.removeprefix("http://").partition("/")[0]

    @property
    def path(self) -> str:
        """What stands behind them."""
        return "/" + self.url.removeprefix("http://").partition("/")[2]


@frozen
class Sample:
    """What one run of wrk saw."""

    rate: float
    """Calls a second that were answered rightly."""
    p50: float
    """Microseconds."""
    p95: float
    p99: float
    count: int
    """Answers, right or wrong."""
    failed: int
    """Answers with an error's status, without a result, or too short; and connections that broke."""


def _ask(target: Target, message: dict | None, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
    connection = http.client.HTTPConnection(target.host, timeout=30)
    try:
        body = None if message is None else json.dumps(message)
        method = "GET" if message is None else "POST"
        connection.request(method, target.path, body, {**_JSON, **target.headers, **headers})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def _greet(target: Target) -> dict[str, str]:
    """A session's handshake; the headers that its requests carry."""
    hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
    status, headers, body = _ask(target, _message("initialize", hello), {})
    if status != 200:
        raise RuntimeError(f"{target.url} answers initialize with {status}: {body[:300]!r}")
    version = re.search(rb'"protocolVersion":\s*"([^"]+)"', body)
    carried = {"mcp-protocol-version": version.group(1).decode() if version else LEGACY}
    if "mcp-session-id" in headers:
        carried["mcp-session-id"] = headers["mcp-session-id"]
    _ask(target, {"jsonrpc": "2.0", "method": "notifications/initialized"}, carried)
    return carried


def _message(method: str, params: dict) -> dict:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def prepare(target: Target, case: Case, path: Path) -> None:
    """
    Say hello if that is due, try the request once, and write it where wrk finds it.

    The file has a first line with the method, the path and the bytes that an answer has at least, then header lines, an
    empty line, and the body.

    Raises:
        RuntimeError: It is not answered as it should be.
    """
    params, message, headers = case.params(target.tool), None, {}
    if not target.static:
        if case.era == "modern":
            headers = {"mcp-protocol-version": MODERN, "mcp-method": case.method}
            if case.method == "tools/call":
                headers["mcp-name"] = params["name"]
            params["_meta"] = _META
        else:
            headers = _greet(target)
        message = _message(case.method, params)
    status, _, body = _ask(target, message, headers)
    least = max(case.text, case.blob * 9 // 10)
    if status != 200 or b'"result"' not in body or b'"isError":true' in body.replace(b" ", b"") or len(body) < least:
        raise RuntimeError(f"{target.url} answers {case.name} with {status}: {body[:300]!r}")
    lines = [f"{'GET' if message is None else 'POST'} {target.path} {len(body)}"]
    lines += [f"{name}: {value}" for name, value in {**_JSON, **target.headers, **headers}.items()]
    text = "" if message is None else json.dumps(message, separators=(",", ":"))
    path.write_text("\n".join(lines) + "\n\n" + text)


def fire(wrk: list[str], target: Target, request: Path, *, connections: int, seconds: int, cpu: str) -> Sample:
    """So many connections, each of which asks again as soon as it was answered."""
    command = ["taskset", "-c", cpu, *wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s"]
    command += ["-s", str(HERE / "call.lua"), target.url]
    environment = {**os.environ, "BENCH_REQUEST": str(request)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = _FIGURES.search(done.stdout)
    if found is None:
        raise RuntimeError(f"wrk said {done.stdout[-300:]!r} {done.stderr[-300:]!r}")
    spent, p50, p95, p99 = (float(each) for each in found.groups()[:4])
    count, wrong, broken = (int(each) for each in found.groups()[4:])
    return Sample((count - wrong) / spent, p50, p95, p99, count, wrong + broken)
