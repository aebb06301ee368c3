"""What is wrong with several workers: sources that serve one process, and state that each worker has for itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

from ..model.document import Document, StageSpec
from ..model.worker import Shareable
from .components import Components
from .declarations import options_of
from .nodes import node_at, place_of
from .problems import Span
from .references import components_of

_ALONE: Final[Mapping[str, tuple[Literal["warning", "info"], str]]] = {
    "rate_limit": ("warning", "each worker counts by itself: clients get up to so many times the rate"),
    "dedup": ("warning", "equal calls are shared within a worker only: in two workers they are made twice"),
    "cache": ("info", "each worker keeps answers of its own, which takes so many times the memory"),
    "circuit_breaker": ("info", "each worker finds out by itself that an upstream fails"),
    "concurrency_limit": ("info", "each worker lets in as many: together they let in so many times the limit"),
    "load_shed": ("info", "each worker judges by its own queue: together they let in so many times as much"),
}
"""What it means that a stage of this role knows its own worker only."""
_ANY: Final = ("warning", "what one worker knows, the others do not")


def lint_workers(document: Document, components: Components) -> None:
    """Report it, where the configuration asks for more than one worker."""
    if document.run.workers == 1:
        return
    for source in document.sources.values():
        if not isinstance(source.cls, Shareable):
            components.report(
                "workers/source", f"source {source.id} ({source.cls.name}) serves one process",
                components.spans[source.path],
                reason="several workers cannot share it", fix="set run: {workers: 1}, or give it a gateway of its own",
            )  # fmt: skip
    for stage in components_of(document):
        if isinstance(stage, StageSpec) and stage.enabled:
            _lint_stage(document, components, stage)


def _lint_stage(document: Document, components: Components, stage: StageSpec) -> None:
    role = stage.cls.role or stage.cls.name
    level, reason = _ALONE.get(role, _ANY)
    stores = dict(_stores_of(stage))
    if not stores and role not in _ALONE:
        return
    named = [id_ for ids in stores.values() for id_ in ids]
    apart = [id_ for id_ in named if id_ in document.stores and not document.stores[id_].cls.shared]
    if named and not apart:
        return
    what = f"keeps its state in store {apart[0]!r}, of which" if apart else "keeps its state in memory, of which"
    components.report(
        "workers/memory", f"{stage.id!r} {what} each worker has its own", _place(components, stage, stores),
        level=level, reason=reason,
        fix="give it a store that workers share, such as sqlite, or reckon with it" if stores
        else "reckon with it: divide its limits by the number of workers, or set them in one gateway in front",
    )  # fmt: skip


def _stores_of(stage: StageSpec) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The options that name stores, and which they name."""
    cls: type = type(stage.config)
    for option in options_of(cls):
        value = getattr(stage.config, option.name)
        if option.info.refers == "store" or option.name == "store" or option.name.endswith("_store"):
            yield option.name, (value,) if isinstance(value, str) else tuple(value or ())


def _place(components: Components, stage: StageSpec, options: Mapping[str, object]) -> Span:
    node = components.nodes.get(stage.path)
    for name in options:
        if node is not None and node_at(node, (name,)) is not None:
            return place_of(node, (name,))
    return components.spans[stage.path]
