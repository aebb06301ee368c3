"""
What stands between the suite and a fixture: the legs of a run, and the configuration of each.

A new stage goes into `EVERY_STAGE` or `EVERY_SINK_STAGE`, a new transport or arrangement into `WAYS`; nothing else
needs to know.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from certificates import write_certificate

from sluiceway.pipeline.model.component import ComponentKind
from sluiceway.pipeline.model.registry import BUILT_IN

Document = dict[str, Any]
"""A configuration, or a part of it."""

DATA: Final = Path(__file__).resolve().parent.parent / "data" / "auth"
LOCK: Final = "tools.lock.json"
"""Name of the lock file of the stage `pin`, in the folder of a leg."""

EVERY_STAGE: Final[list[Any]] = [
    "request_id",
    "trace",
    "metrics",
    "log",
    "audit",  # into a file of the leg
    # the suite cannot authenticate: whoever shows no credential is left to the last of these
    {"auth_mtls": {"holders": [{"name": ["*"]}], "optional": True}},
    {
        "auth_api_key": {
            "pepper": {"from_file": str(DATA / "pepper")},
            "file": str(DATA / "keys.json"),
            "optional": True,
        }
    },
    {
        "auth_bearer": {
            "issuer": "https://id.example.com",
            "resource": "https://gateway.example.com/mcp",
            "jwks": {"from_file": str(DATA / "jwks.json")},
            "optional": True,
        }
    },
    {"auth_anonymous": {"subject": "suite", "tenant": "conformance"}},
    "headers",
    "tenant",
    {"access": {"rules": [{"allow": ["*", "methods:*"]}]}},
    {"rate_limit": {"rate": "6000/min", "burst": 1000}},
    {"load_shed": {"max_in_flight": 64}},
    {"concurrency_limit": {"max_in_flight": 64}},
    {"validate": {"arguments": "log"}},  # the suite sends null where its own schema wants a boolean
    "pin",  # with the lock file that `sluiceway lock` makes for the leg
    {"redact": {"keys": ["password"], "paths": ["params.arguments.password"]}},
    {"timeout": {"after": "20s"}},
    "dedup",
    "cache",
]
"""Every stage that may stand in front of any sink, in an order that `check` has nothing against."""
EVERY_SINK_STAGE: Final[list[Any]] = [
    {"fallback": {"empty_lists": True}},
    "retry",
    "hedge",
    "circuit_breaker",
    {"fault": {"faults": [{"effect": "refuse", "skip": 1_000_000}]}},
]
"""Every stage that belongs in front of one upstream."""
CHAINS: Final[Mapping[str, tuple[list[Any], list[Any]]]] = {
    "plain": ([], []),
    "every-stage": (EVERY_STAGE, EVERY_SINK_STAGE),
}
"""What stands in the pipeline, and in front of the upstream."""

PREFIX: Final = "up."
"""What names begin with where the fixture has a prefix."""
SCRIPTS: Final = Path(sys.executable).parent


@frozen
class Place:
    """Where a gateway is set up."""

    chain: list[Any]
    upstream: Document
    """The sink whose server is behind everything, with its chain."""
    port: int
    folder: Path
    """For files of its own."""


def _document(place: Place, sinks: Document, chain: list[Any] | None = None, port: int | None = None) -> Document:
    pipeline = {"chain": place.chain if chain is None else chain, "sink": "first"}
    bind = f"127.0.0.1:{place.port if port is None else port}"
    return {
        "version": 1,
        "sources": {"front": {"http": {"bind": bind, "path": "/mcp"}, "pipeline": "main"}},
        "pipelines": {"main": pipeline},
        "sinks": sinks,
    }


def _alone(place: Place) -> Document:
    """The fixture is the only sink."""
    return _document(place, {"first": place.upstream})


def _routed(place: Place) -> Document:
    """A route with one upstream, whose names stay as they are."""
    return _document(place, {"first": {"route": {"to": ["up"], "prefixes": "never"}}, "up": place.upstream})


def _prefixed(place: Place) -> Document:
    """A route whose upstream's names have a prefix; only for clients that know of it."""
    return _document(place, {"first": {"route": {"to": ["up"]}}, "up": place.upstream})


def _merged(place: Place) -> Document:
    """A route that merges the fixture, whose names stay as they are, with a server whose names have a prefix."""
    route = {"to": {"up": {"prefix": ""}, "notes": {"resources": {"deny": ["*"]}}}}
    return _document(place, {"first": {"route": route}, "up": place.upstream, "notes": {"embedded": {}}})


def _behind_http(place: Place) -> Document:
    """A gateway behind a gateway, over HTTP; both in one process."""
    inner = free_port()
    document = _document(place, {"first": {"http": {"url": f"http://127.0.0.1:{inner}/mcp"}}, "up": place.upstream})
    document["sources"]["inner"] = {"http": {"bind": f"127.0.0.1:{inner}", "path": "/mcp"}, "pipeline": "inner"}
    chain = _told(place.chain, "audit", {"path": str(place.folder / "inner.jsonl")})  # a trail has one writer
    document["pipelines"]["inner"] = {"chain": chain, "sink": "up"}
    return document


def _behind_http2(place: Place) -> Document:
    """A gateway behind a gateway, over HTTP/2 as TLS agrees on it; both in one process."""
    cert, key = write_certificate(place.folder)
    document = _behind_http(place)
    inner = document["sources"]["inner"]["http"]
    inner["tls"] = {"cert": cert, "key": key}
    document["sinks"]["first"] = {"http": {"url": f"https://{inner['bind']}/mcp", "http2": "auto", "tls": {"ca": cert}}}
    return document


def _behind_http_websocket(place: Place) -> Document:
    """A gateway behind a gateway, over a WebSocket on the listener that also speaks HTTP; both in one process."""
    document = _behind_http(place)
    inner = document["sources"]["inner"]["http"]
    inner["websocket"] = {}
    document["sinks"]["first"] = {"websocket": {"url": f"ws://{inner['bind']}/mcp"}}
    return document


def _behind_websocket(place: Place) -> Document:
    """A gateway behind a gateway, over a WebSocket; both in one process."""
    inner = free_port()
    first = {"first": {"websocket": {"url": f"ws://127.0.0.1:{inner}/mcp"}}, "up": place.upstream}
    document = _document(place, first)
    document["sources"]["inner"] = {"websocket": {"bind": f"127.0.0.1:{inner}"}, "pipeline": "inner"}
    chain = _told(place.chain, "audit", {"path": str(place.folder / "inner.jsonl")})  # a trail has one writer
    document["pipelines"]["inner"] = {"chain": chain, "sink": "up"}
    return document


def _behind_sse(place: Place) -> Document:
    """A gateway behind a gateway, over HTTP+SSE of 2024-11-05; both in one process."""
    inner = free_port()
    document = _document(place, {"first": {"sse": {"url": f"http://127.0.0.1:{inner}/sse"}}, "up": place.upstream})
    document["sources"]["inner"] = {"http": {"bind": f"127.0.0.1:{inner}", "sse": {}}, "pipeline": "inner"}
    chain = _told(place.chain, "audit", {"path": str(place.folder / "inner.jsonl")})  # a trail has one writer
    document["pipelines"]["inner"] = {"chain": chain, "sink": "up"}
    return document


def _behind_stdio(place: Place) -> Document:
    """A gateway behind a gateway, which starts it as its child."""
    inner = place.folder / "inner.yaml"
    document = _alone(place)
    del document["sources"]
    inner.write_text(json.dumps(document), encoding="utf-8")
    command = [str(SCRIPTS / "sluiceway"), "run", "--stdio", str(inner)]
    return _document(place, {"first": {"stdio": {"command": command}}})


WAYS: Final[Mapping[str, Callable[[Place], Document]]] = {
    "alone": _alone,
    "routed": _routed,
    "prefixed": _prefixed,
    "merged": _merged,
    "behind-http": _behind_http,
    "behind-http2": _behind_http2,
    "behind-http-websocket": _behind_http_websocket,
    "behind-websocket": _behind_websocket,
    "behind-sse": _behind_sse,
    "behind-stdio": _behind_stdio,
}
"""How the gateway, or two of them, reach the fixture."""
LEGACY_WAYS: Final = frozenset({"behind-sse"})
"""Those that carry revisions with a handshake only."""


@frozen
class Setup:
    """One leg of the run, but for the revision."""

    upstream: str
    """
    The fixture: `embedded`, or the SDK's on `stdio` or `http`, with `legacy-` or `modern-` before that if it speaks one
    era alone, which is not the suite's; `suite` where the suite itself is the server.
    """
    way: str
    """A key of `WAYS`."""
    server: str
    """What runs the gateway: `run`, `hypercorn`, or the client's own process, `driver`."""
    chain: str
    """A key of `CHAINS`."""

    def carries(self, revision: str) -> bool:
        """Whether the leg is run for a revision."""
        if self.era is not None:
            return self.era != ("legacy" if revision < "2026" else "modern")
        return self.way not in LEGACY_WAYS or revision < "2026"

    @property
    def era(self) -> str | None:
        """The one era of the fixture; None if it speaks both."""
        era, _, transport = self.upstream.partition("-")
        return era if transport else None

    @property
    def transport(self) -> str:
        """How the gateway reaches the fixture."""
        return self.upstream.rpartition("-")[2]

    @property
    def title(self) -> str:
        """For the table, for folders, and to choose legs by."""
        return f"{self.upstream}, {self.way}, {self.server}, {self.chain}"

    def document(self, upstream: Document, port: int, folder: Path) -> Document:
        """
        The gateway's configuration.

        Args:
            upstream: The sink of the fixture.
            port: Where the gateway listens.
            folder: For further files.
        """
        pin: Document = {"lock": str(folder / LOCK)}
        audit = {"path": str(folder / "audit.jsonl")}
        if self.server == "driver":  # the suite's servers have other tools in each scenario
            (folder / LOCK).write_text('{"version": 1, "tools": {}}', encoding="utf-8")
            pin["unknown"] = "allow"
        chain, before_sink = CHAINS[self.chain]
        chain = _told(_told(chain, "pin", pin), "audit", audit)
        return WAYS[self.way](Place(chain, {**upstream, "chain": before_sink}, port, folder))

    def to_lock(self, upstream: Document, folder: Path) -> Document | None:
        """What `sluiceway lock` needs to write the lock file of the stage `pin`; None if there is no such stage."""
        if "pin" not in map(_name, CHAINS[self.chain][0]):
            return None
        return _alone(Place([{"pin": {"lock": str(folder / LOCK)}}], upstream, free_port(), folder))


SERVER_LEGS: Final = (
    Setup("embedded", "alone", "run", "plain"),
    Setup("embedded", "alone", "hypercorn", "every-stage"),
    Setup("stdio", "alone", "run", "plain"),
    Setup("stdio", "alone", "hypercorn", "every-stage"),
    Setup("http", "alone", "run", "plain"),
    Setup("http", "alone", "hypercorn", "every-stage"),
    Setup("http", "routed", "run", "every-stage"),
    Setup("http", "merged", "run", "plain"),
    Setup("http", "behind-http", "run", "every-stage"),
    Setup("http", "behind-http2", "run", "every-stage"),
    Setup("http", "behind-http-websocket", "run", "plain"),
    Setup("http", "behind-websocket", "run", "every-stage"),
    Setup("http", "behind-sse", "run", "plain"),
    Setup("stdio", "behind-stdio", "run", "plain"),
    Setup("http", "behind-stdio", "run", "plain"),
    Setup("legacy-http", "alone", "run", "plain"),
    Setup("legacy-stdio", "behind-stdio", "run", "plain"),
    Setup("modern-http", "alone", "run", "plain"),
    Setup("modern-stdio", "alone", "run", "plain"),
)
CLIENT_LEGS: Final = (
    Setup("suite", "alone", "driver", "plain"),
    Setup("suite", "alone", "driver", "every-stage"),
    Setup("suite", "prefixed", "driver", "plain"),
    Setup("suite", "behind-http", "driver", "plain"),
    Setup("suite", "behind-http2", "driver", "plain"),
    Setup("suite", "behind-http-websocket", "driver", "plain"),
    Setup("suite", "behind-websocket", "driver", "plain"),
    Setup("suite", "behind-sse", "driver", "plain"),
)


def _name(stage: Any) -> str:
    """Of a stage as it stands in a chain."""
    return stage if isinstance(stage, str) else str(next(iter(stage)))


def _told(chain: list[Any], stage: str, options: Document) -> list[Any]:
    """A chain in which one stage, if it is there, has other options."""
    return [{stage: options} if _name(each) == stage else each for each in chain]


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def stages_left_out() -> list[str]:
    """Names of the stages that ship and are in no leg."""
    used = set(map(_name, (*EVERY_STAGE, *EVERY_SINK_STAGE)))
    return sorted(set(BUILT_IN[ComponentKind.MIDDLEWARE]) - used)
