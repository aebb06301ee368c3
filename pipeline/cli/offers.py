"""What is wrong with what an upstream offers: its tools, as it lists them. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from ..protocol.messages import Json
from .faults import Finding

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
"""MCP 2025-11-25, server/tools, tool names."""
_INVISIBLE: Final[dict[int, None]] = dict.fromkeys((0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0x00AD))
_SHOWN: Final = 5
"""Names that a message quotes."""


def folded(name: str) -> str:
    """What a name looks like to people: without what cannot be seen, case and Unicode's other forms (NFKC)."""
    return unicodedata.normalize("NFKC", name.translate(_INVISIBLE)).casefold()


def inspect_tools(sink: str, tools: Sequence[Json]) -> Iterator[Finding]:
    """What is wrong with the tools of one upstream."""
    sound = [tool for tool in tools if isinstance(tool, dict) and isinstance(tool.get("name"), str)]
    if len(sound) < len(tools):
        yield Finding(sink, "tools/shape", f"{len(tools) - len(sound)} tools have no name", "give each a name")
    names = [str(tool["name"]) for tool in sound]
    if odd := [name for name in names if not _NAME.fullmatch(name)]:
        yield Finding(sink, "tools/name", f"names that clients may refuse: {_quoted(odd)}",
                      "use 1 to 128 letters, digits, dots, dashes and underscores")  # fmt: skip
    if same := _alike([(name, sink) for name in names]):
        yield Finding(
            sink, "tools/duplicate", f"names that are, or look, the same: {_quoted(same)}", "rename one of each"
        )
    if mute := [
        name for name, tool in zip(names, sound, strict=True) if not str(tool.get("description") or "").strip()
    ]:
        yield Finding(sink, "tools/description", f"tools without a description: {_quoted(mute)}",
                      "describe them; models choose tools by that")  # fmt: skip
    for tool in sound:
        for key in ("inputSchema", "outputSchema"):
            if (reason := _schema_fault(tool, key)) is not None:
                yield Finding(
                    sink, "tools/schema", f"{tool['name']}.{key} is no JSON Schema: {reason}", "correct the schema"
                )


def inspect_all(offered: Mapping[str, Sequence[Json]]) -> Iterator[Finding]:
    """What tools of different upstreams have in common."""
    places: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for sink, tools in offered.items():
        for tool in tools:
            if isinstance(tool, dict) and isinstance(tool.get("name"), str):
                places[folded(tool["name"])].setdefault(sink, tool["name"])
    for where in places.values():
        if len(where) > 1:
            yield Finding(
                ", ".join(where), "tools/shared-name", f"both have {_quoted(dict.fromkeys(where.values()))}",
                "behind one route the upstream's prefix tells them apart, unless it is switched off", is_fault=False,
            )  # fmt: skip


def _alike(names: list[tuple[str, str]]) -> list[str]:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name, _ in names:
        groups[folded(name)].append(name)
    return [name for group in groups.values() if len(group) > 1 for name in group]


def _schema_fault(tool: Mapping[str, Json], key: str) -> str | None:
    """Why a schema does not compile; None if it does. What it refers to elsewhere is not fetched."""
    import jsonschema_rs

    schema = tool.get(key)
    if schema is None:
        return "it is missing" if key == "inputSchema" else None
    if not isinstance(schema, dict):
        return "it is not an object"
    try:
        jsonschema_rs.validator_for(schema, retriever=_refuse)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        return str(error).partition("\n")[0][:200]
    return None


def _refuse(uri: str) -> Json:
    raise ValueError(f"{uri} is not fetched")


def _quoted(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(repr(name) for name in shown[:_SHOWN]) + more
