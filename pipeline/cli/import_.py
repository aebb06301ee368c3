"""`sluiceway import`: another program's configuration as one of ours. `pipeline.imports` does the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from ..imports import Form, NotImportable, read_foreign, render
from .exits import Exit, Failure, usage
from .output import emit, printable, say

MAX_BYTES: Final = 16 * 1024 * 1024
"""Largest file that is read, in bytes; some clients keep their whole history beside their servers."""


def import_(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    from_: Annotated[Form, Parameter(name="--from")] = "auto",
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
) -> int:
    """
    Turn another program's configuration into one for Sluiceway.

    Reads a client's `mcpServers` (or VS Code's `servers`), fastmcp.json, and command lines of supergateway and
    mcp-proxy. What cannot be carried over is said on stderr with the reason. Values that look secret are not copied:
    they become variables to set.

    Args:
        file: The file; `-` reads standard input.
        from_: What it is; `auto` looks at it.
        output: Write here instead of to stdout. A file that exists is never overwritten.
    """
    if output is not None and output.exists():
        raise usage(f"{output} exists; nothing was written")
    text = _text(file)
    folder = Path() if str(file) == "-" else file.parent

    def read(name: str) -> str:
        path = Path(name)
        return _read(path if path.exists() else folder / path)

    try:
        imported = read_foreign(text, form=from_, path=str(file), read=read)
    except NotImportable as error:
        raise Failure(printable(f"{file} cannot be imported: {error}")) from error
    yaml = render(imported, "standard input" if str(file) == "-" else file.name)
    for loss in imported.lost:
        say(printable(f"  not carried over: {loss}"))
    for name, purpose in imported.variables.items():
        say(printable(f"  set {name}: {purpose}"))
    if output is None:
        emit(yaml)
    else:
        try:
            output.write_text(yaml, encoding="utf-8")
        except OSError as error:
            raise usage(f"{output} cannot be written: {error.strerror}") from error
        say(f"{output} written; next: sluiceway check {output}")
    count = len(imported.upstreams)
    say(f"{count} {'server' if count == 1 else 'servers'}; {len(imported.lost)} not carried over")
    return Exit.OK


def _text(file: Path) -> str:
    try:
        return sys.stdin.read(MAX_BYTES) if str(file) == "-" else _read(file)
    except (OSError, ValueError) as error:
        raise usage(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _read(path: Path) -> str:
    """
    A file's text.

    Raises:
        OSError: It cannot be read.
        ValueError: It is too large, or is not UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES // 2**20} MiB")
    return content.decode("utf-8-sig")
