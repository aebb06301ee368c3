"""
A configuration as the engine reads it: every name resolved, every value typed, every reference checked.

Made by `sluiceway.pipeline.config.load`; tests may build it by hand. Values only, no behaviour.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, final

from attrs import Factory, field, frozen

from .alerts import Alerts
from .component import Component, Middleware, Sink, Source
from .options import DAY, HOUR, MIB, MINUTE, SECOND, ConfigPath, Duration, Secret, Size, option
from .store import Store
from .when import When


@frozen(kw_only=True)
class Spec:
    """One component as declared: its class, its options, and where it stands."""

    id: str
    """Unique among components of its kind; stages are unique within their chain."""
    cls: type[Component]
    config: Any
    """An instance of `cls.Config`."""
    path: str = ""
    """For example `pipelines.main.chain[2]`."""
    place: str = ""
    """`file:line:column` of its key; empty when it was not read from a file."""


@final
@frozen(kw_only=True)
class StageSpec(Spec):
    """One stage of a chain."""

    cls: type[Middleware]
    when: When | None = None
    enabled: bool = True


@final
@frozen(kw_only=True)
class SinkSpec(Spec):
    """One sink, with the chain in front of it."""

    cls: type[Sink]
    chain: tuple[StageSpec, ...] = ()
    max_in_flight: int | None = None
    required: bool = True
    sends_to: tuple[str, ...] = ()
    """Ids of the sinks that it or its chain sends to; they open before it, and close after it."""
    routes: bool = False
    """It sends to other sinks itself, and leads to no upstream of its own."""


@final
@frozen(kw_only=True)
class SourceSpec(Spec):
    """One source and the pipeline it feeds."""

    cls: type[Source]
    pipeline: str


@final
@frozen(kw_only=True)
class StoreSpec(Spec):
    """One named store."""

    cls: type[Store]


@final
@frozen(kw_only=True)
class Limits:
    """Limits of a pipeline. One declaration serves parsing, docs and the engine."""

    timeout: Duration = option(
        Duration(30 * SECOND), gt=0, doc="Time an exchange may take, from admission to its last byte."
    )
    timeout_max: Duration = option(
        Duration(10 * MINUTE), gt=0, doc="Longest time an exchange may take when progress keeps resetting its timeout."
    )
    timeout_on_progress: Literal["reset", "keep"] = option(
        "reset", doc="Whether a progress notification starts the timeout anew, up to `timeout_max`."
    )
    max_in_flight: int = option(1000, ge=1, doc="Exchanges inside the chain at the same time.")
    max_waiting: int = option(0, ge=0, doc="Exchanges that may wait for a place; above this they are refused.")
    wait_at_most: Duration = option(
        Duration(1 * SECOND), gt=0, doc="Time an exchange may wait for a place before it is refused."
    )
    max_listeners: int = option(
        1000, ge=0, doc="LISTEN exchanges (`subscriptions/listen`) at the same time; counted apart from the others."
    )


@final
@frozen(kw_only=True)
class PipelineSpec:
    """One pipeline: a chain, a sink, limits."""

    id: str
    chain: tuple[StageSpec, ...] = ()
    sink: str
    """Id of a sink."""
    limits: Limits = Factory(Limits)
    path: str = ""
    place: str = ""


MAX_WORKERS: Final = 256
"""Most processes of one gateway."""


@final
@frozen(kw_only=True)
class Admin:
    """The admin listener: `status` for people and machines, on loopback or a Unix socket, with its own token."""

    bind: str = option("127.0.0.1:9464", doc="`host:port`, or `unix:path`.", example="unix:./sluiceway.sock")
    token: Secret | None = option(
        None, doc="Bearer token that callers must send; needed unless bound to a Unix socket.",
        example={"from_env": "SLUICEWAY_ADMIN_TOKEN"},
    )  # fmt: skip


@final
@frozen(kw_only=True)
class Record:
    """What is written to tapes, and how much of it; see docs/cassettes.md."""

    folder: ConfigPath = option(doc="Folder in which each start of the gateway begins a tape.", example="./tapes")
    compress: bool = option(False, doc="Compress with gzip, to about a tenth of the size.")
    stages: bool = option(False, doc="Also record when each exchange enters and leaves each stage.")
    config: bool = option(
        False, doc="Also write the text of the configuration's files; values of variables are not in it."
    )
    redact: tuple[str, ...] = option(
        (), doc="Names of further keys whose values are masked, as globs without case, `-` and `_`.", example=["*iban*"]
    )
    headers: tuple[str, ...] = option(
        (), doc="Further request headers to keep, as globs. Those that look like credentials never are.",
        example=["x-client-*"],
    )  # fmt: skip
    part_size: Size = option(Size(256 * MIB), gt=0, doc="Size at which another part of the tape begins.")
    part_for: Duration = option(Duration(1 * HOUR), gt=0, doc="Time after which another part of the tape begins.")
    keep_size: Size = option(
        Size(2048 * MIB), gt=0, doc="Size of all complete parts in the folder together, above which the oldest go."
    )
    keep_for: Duration = option(Duration(7 * DAY), gt=0, doc="Age at which a complete part goes.")
    min_free: Size = option(Size(1024 * MIB), ge=0, doc="Room on the disk below which nothing is recorded.")
    max_waiting: Size = option(
        Size(64 * MIB), gt=0, doc="Memory for what waits to be written. What exceeds it is left out, and counted."
    )


@final
@frozen(kw_only=True)
class Run:
    """How the process runs."""

    drain_timeout: Duration = option(
        Duration(25 * SECOND), ge=0, doc="Time in-flight exchanges get to finish when the gateway stops."
    )
    stop_timeout: Duration = option(
        Duration(5 * SECOND), gt=0, doc="Time each component gets to close before it is cancelled."
    )
    on_crash: Literal["stop", "restart"] = option(
        "stop", doc="What a crashed sink means: end the gateway, or reopen the sink with back-off."
    )
    error_codes: Literal["spec", "legacy"] = option(
        "spec",
        doc="Numbers of the gateway's own errors: outside JSON-RPC's reserved range, or those of older gateways.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = option("info", doc="Least severe log lines to write.")
    log_format: Literal["auto", "json", "text"] = option(
        "auto", doc="Form of the log lines on stderr; `auto` is text on a terminal, else JSON."
    )
    workers: int | Literal["auto"] = option(
        1, ge=1, le=MAX_WORKERS,
        doc="Processes that serve; `auto` is one for each processor that the gateway may use. With more than one, a "
        "supervisor starts them, and starts again what dies; see docs/workers.md.",
    )  # fmt: skip
    hang_timeout: Duration = option(
        Duration(30 * SECOND), ge=0,
        doc="Time for which a worker may not answer its supervisor before it is ended and another one takes its place; "
        "0 for any time. One process alone has nobody who asks.",
    )  # fmt: skip
    admin: Admin | None = option(
        None, doc="Where to serve status; off when absent.",
        example={"bind": "127.0.0.1:9464", "token": {"from_env": "SLUICEWAY_ADMIN_TOKEN"}},
    )  # fmt: skip
    alerts: Alerts | None = option(
        None, doc="Watch the gateway's own figures, and say when one is wrong; off when absent.",
        example={"preset": "recommended"},
    )  # fmt: skip
    record: Record | None = option(
        None, doc="Record what passes the gateway's edges; off when absent.", example={"folder": "./tapes"}
    )


@final
@frozen(kw_only=True)
class Document:
    """A whole configuration."""

    sources: Mapping[str, SourceSpec] = Factory(dict)
    pipelines: Mapping[str, PipelineSpec] = Factory(dict)
    sinks: Mapping[str, SinkSpec] = Factory(dict)
    stores: Mapping[str, StoreSpec] = Factory(dict)
    run: Run = Factory(Run)
    files: tuple[Path, ...] = ()
    """Every file that was read, the main one first; `--watch` watches them."""
    includes: tuple[str, ...] = ()
    """The globs they include, as absolute ones; `--watch` also sees a file that comes to match."""
    digest: str = field(default="", repr=False)
    """SHA-256 of what was read, in hexadecimal."""
