"""`sluiceway list`: every component that is installed, the broken ones with what is wrong."""

from __future__ import annotations

from typing import Literal

from ..model.component import ComponentKind
from ..model.registry import Row
from .output import Format, emit_json, first_sentence, table
from .plugins import Plugins, registry_with

Kind = Literal["source", "middleware", "sink", "store"]
"""What a component can be."""


def list_components(
    kind: Kind | None = None,
    /,
    *,
    plugin: Plugins = None,
    format: Format = "text",
) -> None:
    """
    List the components that are installed: built-in ones, those of other distributions, and of plugins.

    Args:
        kind: Only this kind.
        plugin: A module or a ./file.py whose components are listed, too; may be given several times.
        format: `text` for people, `json` for programs.
    """
    registry = registry_with(plugin)
    rows = list(registry.rows(None if kind is None else ComponentKind(kind)))
    if format == "json":
        emit_json([_record(row) for row in rows])
    else:
        table(
            ("kind", "name", "provider", "what it does"),
            [(row.kind, row.name, row.provider, row.error or _summary(row)) for row in rows],
            styles=("dim", "bold"),
        )


def _summary(row: Row) -> str:
    from ..config.schema import summary_of

    return "" if row.cls is None else first_sentence(summary_of(row.cls))


def _record(row: Row) -> dict[str, str | None]:
    return {
        "kind": row.kind,
        "name": row.name,
        "provider": row.provider,
        "summary": _summary(row),
        "error": row.error or None,
    }
