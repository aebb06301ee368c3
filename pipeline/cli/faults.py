"""What can be wrong with an upstream, by what it leads to: the fault's name and the remedy. Pure."""

from __future__ import annotations

import re
from typing import Final, final
from urllib.parse import urlsplit

from attrs import frozen


@final
@frozen
class Finding:
    """One thing about an upstream."""

    sink: str
    """Its id; several ids with commas where it is about all of them."""
    fault: str
    """Stable name, for example `http/wrong-path`."""
    message: str
    """What was seen."""
    remedy: str = ""
    is_fault: bool = True
    """False for what is only good to know."""
    details: tuple[str, ...] = ()
    """The last lines of the server's standard error."""


_SIGNS: Final = (
    ("config/secret", r"environment variable \S+ is not set|secret file",
     "set it where doctor runs, and where the gateway will"),
    ("command/not-found", r"was not found|No such file", "install it, or write its full path"),
    ("command/not-started", r"cannot be started", "start the command by hand with the same user and folder"),
    ("command/exits", r"the server .*before it answered|restart|quarantine",
     "start the command by hand; its last words usually name a missing argument or variable"),
    ("net/name", r"name cannot be resolved", "check the host in url, and the DNS of this machine"),
    ("net/private", r"private address", "set allow_private: true if that address is meant"),
    ("net/timeout", r"no connection within", "check the host in url and the firewall; if it is slow: connect_timeout"),
    ("net/tls", r"TLS|tls|certificat",
     "name the certificate authority under tls: {ca: FILE}, or use the host it is made for; if the server has no TLS, "
     "write http://"),
    ("net/refused", r"cannot be connected to|the proxy", "check host and port in url, and that the server runs"),
    ("http/credential", r"HTTP (?:401|403)|authorization server",
     "set or renew the credential: headers: {authorization: {from_env: NAME}}, or oauth"),
    ("http/redirect", r"redirects", "put the address it names into url"),
    ("http/busy", r"HTTP (?:429|503)", "try again later"),
    ("http/wrong-path", r"HTTP (?:404|405|410)", ""),
    ("http/failed", r"HTTP 5\d\d", "look into the server's log"),
    ("http/not-mcp", r"content type|without a JSON-RPC|not HTTP/1\.1",
     "url leads to something else, such as a web page or a proxy; write the address of the MCP endpoint"),
    ("mcp/silent", r"no answer within", "start it by hand and send it a request; clients would wait as long"),
    ("net/closed", r"closed the connection|ended its answer",
     "look into the server's log; url may lead to another protocol"),
)  # fmt: skip
"""Fault, what its message has, and the remedy; the first that fits counts."""


def diagnose(sink: str, message: str, *, url: str = "", stderr: tuple[str, ...] = ()) -> Finding:
    """
    The fault behind an error.

    Args:
        sink: The upstream's id.
        message: The error's text.
        url: The upstream's address, for the remedy of a wrong path.
        stderr: The last lines of its standard error.
    """
    message = message.removeprefix(f"sinks.{sink}: ").removeprefix("open: ")
    for fault, sign, remedy in _SIGNS:
        if re.search(sign, message):
            return Finding(sink, fault, message, remedy or _other_path(url), details=stderr)
    remedy = "the server does not follow MCP; its author should know"
    return Finding(sink, "mcp/failed", message, remedy, details=stderr)


def _other_path(url: str) -> str:
    parts = urlsplit(url)
    base, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    if path.endswith("/sse"):
        old = "/sse is usually HTTP+SSE, the transport of 2024-11-05: use the sse sink for that"
        return f"{old}, or try {base}{path.removesuffix('/sse')}/mcp"
    if path.endswith("/mcp"):
        return f"the path in url is wrong; ask the server's operator, or try the sse sink with {base}/sse"
    return f"the path in url is wrong; try {' or '.join(dict.fromkeys([f'{base}{path}/mcp', f'{base}/mcp']))}"
