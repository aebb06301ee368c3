"""Which form a foreign text has, and the JSON that people write: with comments, trailing commas and double keys."""

from __future__ import annotations

import json
import re
from typing import Final, Literal

from ..protocol.messages import Json
from .bridges import Read, read_command_lines
from .clients import has_servers, read_clients, read_fastmcp
from .model import Imported, Notes, NotImportable

Form = Literal["auto", "mcpServers", "supergateway", "mcp-proxy", "fastmcp"]
"""What `--from` offers."""
FORMS: Final[tuple[Form, ...]] = ("mcpServers", "supergateway", "mcp-proxy", "fastmcp")
"""The forms there are, without `auto`."""

_COMMENT: Final = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING: Final = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])', re.DOTALL)


def read_foreign(text: str, *, form: Form = "auto", path: str = "fastmcp.json", read: Read) -> Imported:
    """
    Read another program's configuration. Never raises anything else, whatever the text is.

    Args:
        text: What the file holds.
        form: What it is; `auto` looks at it.
        path: How the file is called; fastmcp is started with it.
        read: Reads further files that it names (`--named-server-config`).

    Raises:
        NotImportable: There is nothing in it that can be used.
    """
    notes = Notes()
    if form in ("supergateway", "mcp-proxy"):
        return read_command_lines(text, form, read, notes)
    try:
        value = load_json(text, notes)
    except ValueError as error:
        if form == "auto" and not text.lstrip().startswith(("{", "[")):
            return read_command_lines(text, None, read, notes)
        raise NotImportable(f"it is not JSON: {error}") from error
    is_project = isinstance(value, dict) and not has_servers(value) and "source" in value
    if isinstance(value, dict) and is_project and form in ("auto", "fastmcp"):
        return read_fastmcp(value, path, notes)
    return read_clients(value, notes)


def load_json(text: str, notes: Notes) -> Json:
    """
    JSON as editors write it. A key that stands twice is noted: the last one counts.

    Raises:
        ValueError: It is none, or is nested too deeply.
    """

    def pairs(found: list[tuple[str, Json]]) -> dict[str, Json]:
        value = dict(found)
        if len(value) < len(found):
            notes.lose("JSON", "a key stands twice in one object; the last one counts, as it does for the client")
        return value

    text = text.removeprefix("\ufeff")
    try:
        try:
            return json.loads(text, object_pairs_hook=pairs)
        except ValueError:
            relaxed = _TRAILING.sub(r"\1", _COMMENT.sub(r"\1", text))
            if relaxed == text:
                raise
            return json.loads(relaxed, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
