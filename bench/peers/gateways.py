"""The gateways that are compared: how each is started, and what it can be asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import frozen
from load import MODERN
from setup import FOLDER, ROOT, command_of, debian, python_of

HERE = Path(__file__).resolve().parent
KEY = "slw_the-key-of-the-sample-change-it"
STDIO = ["taskset", "-c", "1", sys.executable, str(HERE / "stdio_server.py")]
SLUICEWAY = shutil.which("sluiceway", path=Path(sys.executable).parent) or "sluiceway"

BARE = "    chain: []\n    sink: up\nsinks:\n  up:\n"
FULL = """    timeout: 30s
    chain:
      - request_id
      - trace: {{sample: 0%}}
      - metrics
      - auth_api_key: {{pepper: {{from_file: {auth}/pepper}}, file: {auth}/keys.json}}
      - rate_limit: {{rate: 1000000/s}}
      - dedup
      - cache
    sink: up
sinks:
  up:
    chain: [retry, circuit_breaker]
"""
HTTP = '    http: {{url: "{upstream}"}}\n'
STDIO_SINK = "    stdio: {{command: {stdio}}}\n"
_NGINX = """user root; worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; client_max_body_size 16m; client_body_buffer_size 2m;
 client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
 scgi_temp_path {folder}/s; proxy_buffers 16 128k; proxy_buffer_size 128k; proxy_busy_buffers_size 256k;
 proxy_max_temp_file_size 0;
 upstream up {{ server {address}; keepalive 64; keepalive_requests 100000000; }}
 server {{ listen 127.0.0.1:{port};
  location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; }} }} }}
"""
_STATIC = """user root; worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; open_file_cache max=10; default_type application/json;
 client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
 scgi_temp_path {folder}/s;
 server {{ listen 127.0.0.1:{port}; root {folder}; }} }}
"""
_FORGE = {
    "JWT_SECRET_KEY": "a-key-of-the-bench-that-is-long-enough-0123456789", "AUTH_REQUIRED": "true",
    "MCP_CLIENT_AUTH_ENABLED": "true", "EMAIL_AUTH_ENABLED": "true", "PLATFORM_ADMIN_EMAIL": "admin@example.com",
    "PASSWORD_CHANGE_ENFORCEMENT_ENABLED": "false", "ADMIN_REQUIRE_PASSWORD_CHANGE_ON_BOOTSTRAP": "false",
    "CACHE_TYPE": "memory", "LOG_LEVEL": "ERROR", "SSRF_PROTECTION_ENABLED": "false", "PLUGINS_ENABLED": "false",
    "RATE_LIMITING_ENABLED": "false", "TOOL_RATE_LIMIT": "100000000", "MCPGATEWAY_UI_ENABLED": "false",
    "AUTH_ENCRYPTION_SECRET": "another-of-the-bench-long-enough-0123456789", "REQUIRE_STRONG_SECRETS": "false",
    "BASIC_AUTH_PASSWORD": "Bench-0123-Long-1", "PLATFORM_ADMIN_PASSWORD": "Bench-0123-Long-1",
    "DEFAULT_USER_PASSWORD": "Bench-0123-Long-1",
}  # fmt: skip


@frozen
class Place:
    """What a gateway is told."""

    port: int
    upstream: str
    folder: Path
    """For its files."""

    def write(self, name: str, text: str) -> Path:
        """A file of its own."""
        path = self.folder / name
        path.write_text(text)
        return path


@frozen
class Gateway:
    """One of the compared."""

    name: str
    command: Callable[[Place], Sequence[str]] | None
    """What starts it; None for the upstream itself, asked directly."""
    path: str = "/mcp"
    eras: tuple[str, ...] = ("legacy",)
    headers: Mapping[str, str] = {}
    environment: Mapping[str, str] = {}
    slow: bool = False
    """Whether a call takes tens of milliseconds: no long bodies, no open loops, one long measurement (`patience`)."""
    static: bool = False
    """Whether all it has is a file, with the list of tools."""
    needs: Path | None = None
    """A file without which it was not installed."""

    @property
    def installed(self) -> bool:
        """Whether it can be started."""
        return self.needs is None or self.needs.exists()


def _configuration(place: Place, chain: str, sink: str) -> str:
    head = f'version: 1\nsources: {{web: {{http: {{bind: "127.0.0.1:{place.port}"}}}}}}\npipelines:\n  main:\n'
    text = (chain + sink).format(auth=ROOT / "configs" / "auth", upstream=place.upstream, stdio=STDIO)
    return str(place.write("sluiceway.yaml", head + text + "run: {log_level: error}\n"))


def sluiceway(chain: str, sink: str) -> Callable[[Place], Sequence[str]]:
    """Ours, as it is run."""
    return lambda place: [SLUICEWAY, "run", _configuration(place, chain, sink)]


def _under_hypercorn(place: Place) -> Sequence[str]:
    configured = f"SLUICEWAY_CONFIG={_configuration(place, FULL, HTTP)}"
    command = str(Path(sys.executable).parent / "hypercorn")
    return ["env", configured, *_hypercorn(command, place), "sluiceway.transports.asgi:app"]


def _hypercorn(command: str, place: Place) -> Sequence[str]:
    """Its worker for Trio, which closes no connection because it was used a thousand times."""
    config = place.write("hypercorn.toml", "keep_alive_max_requests = 1000000000\n")
    return [
        command,
        "-k",
        "trio",
        "-w",
        "1",
        "-c",
        str(config),
        "--log-level",
        "error",
        "-b",
        f"127.0.0.1:{place.port}",
    ]


def _nginx(place: Place) -> Sequence[str]:
    address = place.upstream.removeprefix("http://").partition("/")[0]
    conf = place.write("nginx.conf", _NGINX.format(folder=place.folder, port=place.port, address=address))
    return [str(debian("usr/sbin/nginx")), "-p", str(place.folder), "-c", str(conf)]


def _nginx_static(place: Place) -> Sequence[str]:
    """The answer to a list of tools as a file, to be had with GET: the least that a server can do."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {"content-type": "application/json", "mcp-protocol-version": MODERN}
    asked = urllib.request.Request(place.upstream, json.dumps(message).encode(), headers)  # only ever the bench's own
    with urllib.request.urlopen(asked, timeout=30) as answer:
        place.write("list.json", answer.read().decode())
    conf = place.write("nginx.conf", _STATIC.format(folder=place.folder, port=place.port))
    return [str(debian("usr/sbin/nginx")), "-p", str(place.folder), "-c", str(conf)]


def _naive(place: Place) -> Sequence[str]:
    environment = ["env", f"UPSTREAM={place.upstream}", f"PYTHONPATH={HERE}"]
    return [*environment, *_hypercorn(str(command_of("naive", "hypercorn")), place), "naive:app"]


def _fastmcp(form: str) -> Callable[[Place], Sequence[str]]:
    return lambda place: [
        str(python_of("fastmcp")), str(HERE / "fastmcp_proxy.py"), str(place.port), place.upstream, form
    ]  # fmt: skip


def _mcp_proxy(place: Place) -> Sequence[str]:
    options = ["--port", str(place.port), "--pass-environment", "--log-level", "ERROR"]
    return [str(command_of("mcp-proxy", "mcp-proxy")), *options, "--named-server", "up", " ".join(STDIO)]


def _supergateway(place: Place) -> Sequence[str]:
    options = ["--stdio", " ".join(STDIO), "--outputTransport", "streamableHttp", "--stateful", "--logLevel", "none"]
    return ["node", str(FOLDER / "node/node_modules/.bin/supergateway"), *options, "--port", str(place.port)]


def _forge(place: Place) -> Sequence[str]:
    database = f"DATABASE_URL=sqlite:///{place.folder}/forge.db"
    command = [str(command_of("contextforge", "mcpgateway")), "--host", "127.0.0.1", "--port", str(place.port)]
    return ["env", database, *command, "--log-level", "error", "--no-access-log"]


def forge_token() -> str:
    """A credential for ContextForge."""
    create = [str(python_of("contextforge")), "-m", "mcpgateway.utils.create_jwt_token", "--admin", "--exp", "10080"]
    create += ["--username", _FORGE["PLATFORM_ADMIN_EMAIL"], "--secret", _FORGE["JWT_SECRET_KEY"]]
    made = subprocess.run(
        create, env={**os.environ, **_FORGE}, cwd=FOLDER, capture_output=True, text=True, check=True
    )  # fmt: skip
    return made.stdout.split()[-1]


BOTH = ("modern", "legacy")
GATEWAYS = (
    Gateway("direct, no gateway", None, eras=BOTH),
    Gateway("nginx", _nginx, eras=BOTH, needs=debian("usr/sbin/nginx")),
    Gateway(
        "nginx, static file", _nginx_static, "/list.json", static=True, eras=("modern",), needs=debian("usr/sbin/nginx")
    ),
    Gateway("sluiceway, bare", sluiceway(BARE, HTTP), eras=BOTH),
    Gateway("sluiceway, full chain", sluiceway(FULL, HTTP), eras=BOTH, headers={"x-api-key": KEY}),
    Gateway("sluiceway, bare, to stdio", sluiceway(BARE, STDIO_SINK), eras=BOTH),
    Gateway("sluiceway, full chain, to stdio", sluiceway(FULL, STDIO_SINK), eras=BOTH, headers={"x-api-key": KEY}),
    Gateway("full chain, stock hypercorn", _under_hypercorn, eras=BOTH, headers={"x-api-key": KEY}),
    Gateway("hypercorn + httpx", _naive, eras=BOTH, needs=FOLDER / "naive"),
    Gateway("supergateway, to stdio", _supergateway, needs=FOLDER / "node/node_modules/supergateway"),
    Gateway("mcp-proxy, to stdio", _mcp_proxy, "/servers/up/mcp", needs=FOLDER / "mcp-proxy"),
    Gateway("fastmcp proxy, one client", _fastmcp("shared"), needs=FOLDER / "fastmcp"),
    Gateway("fastmcp proxy", _fastmcp("default"), slow=True, needs=FOLDER / "fastmcp"),
    Gateway(
        "ContextForge", _forge, "/mcp/", slow=True, environment=_FORGE, needs=command_of("contextforge", "mcpgateway")
    ),
)
