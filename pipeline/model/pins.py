"""
Lock files: what tools were when somebody approved them.

A tool's contract is everything a model decides by: name, title, description, schemas, annotations. An upstream that
changes one of them after it was approved changes what agents do (a "rug pull"); `sluiceway lock` writes the digests
down, and the stage `pin` holds upstreams to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final

import msgspec

from .keys import canonical
from .tools import Tool

FORMAT: Final = 1
"""Version of the file's format."""
NOT_PINNED: Final = frozenset({"_meta", "icons"})
"""Members of a tool that no model decides by."""
_SHOWN_CHARS: Final = 120


def contract_digest(tool: Tool) -> str:
    """The digest of a tool's contract: `sha256:` and 64 hex digits, whatever the order of its members."""
    contract = {key: value for key, value in tool.definition.items() if key not in NOT_PINNED}
    return f"sha256:{sha256(canonical(contract)).hexdigest()}"


def read_lock(content: bytes) -> dict[str, str]:
    """
    The digests of a lock file, by tool name.

    Raises:
        ValueError: It is no lock file of this format; the text says what is wrong.
    """
    try:
        lock = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    if not isinstance(lock, dict) or lock.get("version") != FORMAT or not isinstance(lock.get("tools"), dict):
        raise ValueError(f"it is no lock file of version {FORMAT}")
    digests = {}
    for name, entry in lock["tools"].items():
        if not isinstance(entry, dict) or not isinstance(entry.get("digest"), str):
            raise ValueError(f"tool {name!r} has no digest")
        digests[name] = entry["digest"]
    return digests


def write_lock(tools: Iterable[Tool]) -> bytes:
    """A lock file of some tools as they are now; sorted, so that versions of it can be compared."""
    return merge_lock(msgspec.json.encode({"version": FORMAT, "tools": {}}), tools)


def merge_lock(content: bytes, tools: Iterable[Tool]) -> bytes:
    """
    A lock file with some tools as they are now; what it says of others stays.

    Raises:
        ValueError: `content` is no lock file.
    """
    read_lock(content)
    entries = msgspec.json.decode(content)["tools"]
    entries |= {tool.name: {"digest": contract_digest(tool), "description": _shown(tool)} for tool in tools}
    lock = {"version": FORMAT, "tools": dict(sorted(entries.items()))}
    return msgspec.json.format(msgspec.json.encode(lock), indent=2) + b"\n"


def _shown(tool: Tool) -> str:
    """The beginning of a description, for people who read the file; nothing is checked against it."""
    text = tool.definition.get("description")
    return " ".join(text.split())[:_SHOWN_CHARS] if isinstance(text, str) else ""


def changes_between(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, list[str]]:
    """What became of tools between two sets of digests: names that were `added`, `changed` and `removed`, sorted."""
    return {
        "added": sorted(new.keys() - old.keys()),
        "changed": sorted(name for name in new.keys() & old.keys() if new[name] != old[name]),
        "removed": sorted(old.keys() - new.keys()),
    }
