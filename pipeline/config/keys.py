"""
The keys of a configuration that belong to no component, declared like components' options: parser, schema and docs
read the same declarations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

from attrs import frozen

from ..model.component import ComponentKind
from ..model.document import Limits, Run
from ..model.options import ConfigPath, option
from ..model.when import When
from .declarations import options_of


@final
@frozen
class StageKeys:
    """Keys inside every stage's mapping, beside its options."""

    id: str | None = option(
        None, doc="Name of the stage in status, logs and `explain`; its component's name if absent.", example="bulk"
    )
    when: When | None = option(
        None,
        doc="Which exchanges the stage sees; all if absent. Every key must match.",
        example={"method": ["tools/*"]},
    )
    enabled: bool = option(True, doc="False takes the stage out of its chain, while it is still checked.")


@final
@frozen
class SourceKeys:
    """Keys beside the transport of a source."""

    pipeline: str | None = option(
        None, doc="Pipeline it feeds; may be left out if there is exactly one.", example="main", refers="pipeline"
    )


@final
@frozen
class SinkKeys:
    """Keys beside the transport of a sink; `chain` is read apart."""

    max_in_flight: int | None = option(
        None, ge=1, doc="Exchanges inside the sink at the same time; more are refused. Unbounded if absent.", example=16
    )
    required: bool = option(True, doc="Whether the gateway is ready only while this sink is.")


@final
@frozen
class PipelineKeys:
    """Keys of a pipeline beside its limits; `chain` is read apart."""

    sink: str | None = option(
        None,
        doc="Sink at the end of the chain; may be left out if there is exactly one.",
        example="files",
        refers="sink",
    )


@final
@frozen
class StoreKeys:
    """A store has no keys beside its transport."""


@final
@frozen(kw_only=True)
class SuiteKeys:
    """The keys of a file of tests beside `tests`."""

    config: ConfigPath | None = option(
        None, doc="The configuration; the one beside it, of the same name without `_test`, if absent.",
        example="./gateway.yaml",
    )  # fmt: skip
    env: Mapping[str, str] = option(
        factory=dict,
        doc="Environment variables for the configuration. `${TEST_DIR}` is a directory that is empty for each test.",
        example={"STATE_DIR": "${TEST_DIR}"},
    )


CHAIN_DOC: Final = "Stages, outermost first. The order written is the order of execution."
TOP_KEYS: Final[Mapping[str, str]] = {
    "version": "Version of this format: 1.",
    "include": "Globs of further files, relative to this one; their maps are merged by id.",
    "plugins": "Modules, or files relative to this one, whose components can be named here.",
    "stores": "Named state, for components that ask for a store.",
    "sources": "Where exchanges come from.",
    "pipelines": "Chains of stages, each with a sink and limits.",
    "sinks": "Where exchanges end: upstream servers, or the server inside the gateway.",
    "run": "How the process runs.",
    "tests": "What the configuration is expected to do; `sluiceway test` tries it.",
}
"""Every top-level key, with its doc. Keys that start with `x-` are ignored: a home for anchors."""
COMPONENT_KEYS: Final[Mapping[ComponentKind, tuple[str, type]]] = {
    ComponentKind.STORE: ("stores", StoreKeys),
    ComponentKind.SOURCE: ("sources", SourceKeys),
    ComponentKind.SINK: ("sinks", SinkKeys),
}
"""Section and common keys of each kind that is declared by id."""
STAGE_KEYS: Final = tuple(option.name for option in options_of(StageKeys))
PIPELINE_KEYS: Final = ("chain", *(option.name for option in options_of(PipelineKeys)))
LIMIT_KEYS: Final = tuple(option.name for option in options_of(Limits))
RUN_KEYS: Final = tuple(option.name for option in options_of(Run))


def common_keys(kind: ComponentKind) -> tuple[str, ...]:
    """The keys beside the transport of a store, source or sink."""
    names = tuple(option.name for option in options_of(COMPONENT_KEYS[kind][1]))
    return ("chain", *names) if kind is ComponentKind.SINK else names
