"""
Names to component classes: built-ins, entry points, and modules of the user's own.

Only what a configuration mentions is imported. Two providers of one name are an error that names both.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Final, TypeGuard

from attrs import define, field, frozen

from .component import API_VERSION, Component, ComponentKind

GROUPS: Final[Mapping[ComponentKind, str]] = {
    ComponentKind.SOURCE: "sluiceway.sources",
    ComponentKind.MIDDLEWARE: "sluiceway.middlewares",
    ComponentKind.SINK: "sluiceway.sinks",
    ComponentKind.STORE: "sluiceway.stores",
}
"""Entry-point group of each kind."""

BUILT_IN: Final[Mapping[ComponentKind, Mapping[str, str]]] = {
    ComponentKind.SOURCE: {
        "http": "sluiceway.transports.http_source.source:HttpSource",
        "stdio": "sluiceway.transports.stdio_source:StdioSource",
        "websocket": "sluiceway.transports.websocket_source:WebSocketSource",
    },
    ComponentKind.MIDDLEWARE: {
        "auth_anonymous": "sluiceway.middlewares.auth_anonymous:AuthAnonymous",
        "auth_api_key": "sluiceway.middlewares.auth_api_key:AuthApiKey",
        "auth_bearer": "sluiceway.middlewares.auth_bearer:AuthBearer",
        "auth_mtls": "sluiceway.middlewares.auth_mtls:AuthMtls",
        "audit": "sluiceway.middlewares.audit.stage:Audit",
        "access": "sluiceway.middlewares.access.stage:Access",
        "circuit_breaker": "sluiceway.middlewares.circuit_breaker:CircuitBreaker",
        "cache": "sluiceway.middlewares.cache.stage:Cache",
        "concurrency_limit": "sluiceway.middlewares.concurrency_limit:ConcurrencyLimit",
        "dedup": "sluiceway.middlewares.dedup:Dedup",
        "fallback": "sluiceway.middlewares.fallback:Fallback",
        "fault": "sluiceway.middlewares.fault:FaultStage",
        "headers": "sluiceway.middlewares.headers:Headers",
        "hedge": "sluiceway.middlewares.hedge:Hedge",
        "load_shed": "sluiceway.middlewares.load_shed.stage:LoadShed",
        "log": "sluiceway.middlewares.log:Log",
        "metrics": "sluiceway.middlewares.metrics:Metrics",
        "pin": "sluiceway.middlewares.pin:Pin",
        "rate_limit": "sluiceway.middlewares.rate_limit.stage:RateLimit",
        "redact": "sluiceway.middlewares.redact:Redact",
        "request_id": "sluiceway.middlewares.request_id:RequestId",
        "retry": "sluiceway.middlewares.retry:Retry",
        "tenant": "sluiceway.middlewares.tenant:TenantStage",
        "timeout": "sluiceway.middlewares.timeout:Timeout",
        "trace": "sluiceway.middlewares.trace:Trace",
        "validate": "sluiceway.middlewares.validate.stage:Validate",
    },
    ComponentKind.SINK: {
        "audit_trail": "sluiceway.transports.audit_trail:AuditTrail",
        "balance": "sluiceway.transports.balance.sink:BalanceSink",
        "embedded": "sluiceway.transports.embedded.sink:EmbeddedSink",
        "http": "sluiceway.transports.http_sink:HttpSink",
        "route": "sluiceway.transports.route.sink:RouteSink",
        "sse": "sluiceway.transports.sse_sink:SseSink",
        "stdio": "sluiceway.transports.stdio_sink:StdioSink",
        "websocket": "sluiceway.transports.websocket_sink:WebSocketSink",
    },
    ComponentKind.STORE: {
        "memory": "sluiceway.pipeline.stores.memory:MemoryStore",
        "sqlite": "sluiceway.pipeline.stores.sqlite:SqliteStore",
    },
}
"""What ships with the package: name -> `module:Class`, imported when mentioned."""


class RegistryError(Exception):
    """A name cannot be turned into a component class; the text says why and what would help."""


class UnknownName(RegistryError):
    """No provider has this name."""

    def __init__(self, kind: ComponentKind, name: str, known: list[str]) -> None:
        super().__init__(f"unknown {kind} {name!r}")
        self.kind = kind
        self.name = name
        self.known = known
        """The names there are, sorted; for a suggestion."""


@frozen
class Row:
    """One line of `sluiceway list`."""

    kind: ComponentKind
    name: str
    provider: str
    """`built-in`, a distribution's name and version, or a plugin's module."""
    cls: type[Component] | None
    error: str = ""
    """Why it cannot be loaded; empty if it can."""


@define
class Registry:
    """Looks names up. One per loaded configuration, because `plugins:` belong to it."""

    _plugins: dict[tuple[ComponentKind, str], tuple[str, type[Component]]] = field(factory=dict)

    def load_plugin(self, reference: str, base: Path) -> ModuleType:
        """
        Import a module (`my.stages`) or a file (`./stages/mask.py`, relative to `base`) and take its components.

        Raises:
            RegistryError: It cannot be found or imported, or brings a name that is taken.
        """
        try:
            with redirect_stdout(sys.stderr):  # stdout is the product of a verb, or the wire of a stdio client
                is_file = reference.endswith(".py")
                module = _import_file(reference, base) if is_file else importlib.import_module(reference)
        except RegistryError:
            raise
        except (Exception, SystemExit) as error:  # a user's module may raise anything while it is imported
            raise RegistryError(f"plugin {reference!r} cannot be imported: {type(error).__name__}: {error}") from error
        found = [value for value in vars(module).values() if _is_own(value, module)]
        if not found:
            raise RegistryError(f"plugin {reference!r} has no components; decorate them with @middleware, @sink, ...")
        for cls in found:
            self._add(cls.kind, cls.name, reference, cls)
        return module

    def _add(self, kind: ComponentKind, name: str, provider: str, cls: type[Component]) -> None:
        _check_api(kind, name, cls)
        taken = self._provider_of(kind, name)
        if taken is not None and self._plugins.get((kind, name), ("", None))[1] is not cls:
            raise RegistryError(f"{kind} {name!r} is provided twice: by {taken} and by {provider}")
        self._plugins[kind, name] = (provider, cls)

    def _provider_of(self, kind: ComponentKind, name: str) -> str | None:
        if (kind, name) in self._plugins:
            return self._plugins[kind, name][0]
        if name in BUILT_IN[kind]:
            return "built-in"
        points = _points(kind).get(name)
        return _provider(points[0]) if points else None

    def names(self, kind: ComponentKind) -> list[str]:
        """Every known name of a kind, sorted; nothing is imported."""
        return sorted({*BUILT_IN[kind], *_points(kind), *(n for k, n in self._plugins if k is kind)})

    def find(self, kind: ComponentKind, name: str) -> type[Component]:
        """
        The class behind a name. A name with a colon is a `module:Class` of its own.

        Raises:
            UnknownName: Nobody provides it.
            RegistryError: Two distributions provide it, it cannot be imported, or it is not what it claims.
        """
        if (kind, name) in self._plugins:
            return self._plugins[kind, name][1]
        if ":" in name:
            return _load(kind, name, name)
        points = _points(kind).get(name, [])
        providers = (["built-in"] if name in BUILT_IN[kind] else []) + [_provider(p) for p in points]
        if len(providers) > 1:
            raise RegistryError(f"{kind} {name!r} is provided twice: by {' and by '.join(providers)}")
        if not providers:
            raise UnknownName(kind, name, self.names(kind))
        return _load(kind, name, BUILT_IN[kind].get(name) or points[0].value)

    def rows(self, kind: ComponentKind | None = None) -> Iterator[Row]:
        """Load everything of a kind, or of all; what cannot be loaded is a row that says why."""
        for each in ComponentKind if kind is None else (kind,):
            for name in self.names(each):
                provider = self._provider_of(each, name) or "?"
                try:
                    yield Row(each, name, provider, self.find(each, name))
                except RegistryError as error:
                    yield Row(each, name, provider, None, str(error))


@cache
def _points(kind: ComponentKind) -> dict[str, list[EntryPoint]]:
    """What installed distributions provide. Read once: it costs milliseconds, and does not change while we run."""
    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUPS[kind]):
        points.setdefault(point.name, []).append(point)
    return points


def _provider(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _load(kind: ComponentKind, name: str, target: str) -> type[Component]:
    module_name, _, class_name = target.partition(":")
    try:
        with redirect_stdout(sys.stderr):
            cls = getattr(importlib.import_module(module_name), class_name)
    except AttributeError as error:
        raise RegistryError(f"{kind} {name!r}: {module_name} has no {class_name!r}") from error
    except (Exception, SystemExit) as error:  # a user's module may raise anything while it is imported
        raise RegistryError(f"{kind} {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Component)):
        raise RegistryError(f"{kind} {name!r}: {target} is not a component class")
    if cls.kind is not kind:
        raise RegistryError(f"{name!r} is a {cls.kind}, not a {kind}")
    _check_api(kind, name, cls)
    return cls


def _check_api(kind: ComponentKind, name: str, cls: type[Component]) -> None:
    if cls.api != API_VERSION:
        raise RegistryError(f"{kind} {name!r} speaks component API {cls.api}; this Sluiceway speaks {API_VERSION}")


def _is_own(value: object, module: ModuleType) -> TypeGuard[type[Component]]:
    """Whether a name of a module is a component of that module, or of a package's own submodule."""
    if not (isinstance(value, type) and issubclass(value, Component) and value.name):
        return False
    return value.__module__ == module.__name__ or value.__module__.startswith(f"{module.__name__}.")


def _import_file(reference: str, base: Path) -> ModuleType:
    path = (base / reference).resolve()
    name = f"sluiceway_plugin_{path.stem}_{abs(hash(str(path))):x}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise RegistryError(f"plugin file {reference!r} does not exist")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
