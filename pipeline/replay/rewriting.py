"""
A tape in the place of another one, and the configuration that a tape has. Blocks.

What a replay made becomes the tape when it is complete; until then, and if anything fails, the old one is untouched.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final, final

from ..model.document import Document
from .entries import FORMAT, VERSION, Configured, Entry, Header, Trailer
from .index import index_of
from .reading import Tape, TapeError
from .scribe import AT_ONCE
from .writing import Bounds, TapeWriter

_UNBOUNDED: Final = 1 << 62
_LOOKED_THROUGH: Final = 1000
"""Entries at the beginning of a tape among which its configuration stands."""


@final
class Rewriter:
    """
    Args:
        writer: Writes, once it was opened.
    """

    def __init__(self, writer: TapeWriter) -> None:
        self._writer = writer
        self._batch: list[Entry] = []
        self._t = 0.0

    def see(self, entry: Entry) -> None:
        """
        Take an entry of the new tape.

        Raises:
            OSError: It cannot be written.
        """
        self._t = entry.t
        self._batch.append(entry)
        if len(self._batch) == AT_ONCE:
            self._append()

    def _append(self) -> None:
        self._writer.append(self._batch)
        self._batch.clear()

    def end(self) -> None:
        """Write what is left, and the end."""
        self._append()
        self._writer.close([Trailer(t=self._t)])


@contextmanager
def rewriting(tape: Tape, document: Document) -> Iterator[Rewriter]:
    """
    Put a new tape in the place of one, all its parts, when the block is left without an error.

    Args:
        tape: The old one; it can be read meanwhile.
        document: The configuration that the new one is made with.

    Raises:
        OSError: It cannot be written.
    """
    new = tape.path.with_name(f".{secrets.token_hex(4)}.{tape.path.name}")
    bounds = Bounds(
        part_size=_UNBOUNDED, part_for=float("inf"), keep_size=_UNBOUNDED, keep_for=float("inf"), min_free=0
    )
    writer = TapeWriter(new, _header(tape, document), bounds)
    writer.open()
    rewriter, is_whole = Rewriter(writer), False
    try:
        yield rewriter
        rewriter.end()
        is_whole = True
    finally:
        if not is_whole:
            writer.close()
            for path in (new, index_of(new)):
                path.unlink(missing_ok=True)
    index_of(tape.path).unlink(missing_ok=True)
    new.rename(tape.path)
    index_of(new).rename(index_of(tape.path))
    for _, path in tape.parts:
        if path != tape.path:
            path.unlink()
            index_of(path).unlink(missing_ok=True)


def _header(tape: Tape, document: Document) -> Header:
    then = tape.header
    return Header(
        t=0.0,
        format=FORMAT,
        version=VERSION,
        sluiceway=version("sluiceway"),
        recording=secrets.token_hex(8),
        part=1,
        began=then.began,
        epoch=then.epoch,
        digest=document.digest,
        redactions=then.redactions,
    )


def configuration_of(tape: Tape) -> dict[str, str]:
    """Names and texts of the configuration that a tape was made with; empty if it does not have it."""
    for number, entry in enumerate(tape.entries()):
        if isinstance(entry, Configured):
            return entry.files
        if number == _LOOKED_THROUGH:
            break
    return {}


def write_configuration(tape: Tape, folder: Path) -> Path:
    """
    Write the configuration that a tape has into a folder.

    Returns:
        The main file.

    Raises:
        TapeError: The tape has none.
    """
    files = configuration_of(tape)
    if not files:
        raise TapeError(f"{tape.path} does not have its configuration; name one with --config")
    for name, text in files.items():
        (folder / Path(name).name).write_text(text, encoding="utf-8")
    return folder / Path(next(iter(files))).name
