"""
Whether the files of a configuration differ from what was loaded, and loading it again when they do.

A change is one of a file's content, of which files an include glob matches, or a file that is gone. Who replaces a file
by itself, or touches it, changes nothing.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final, final

from ..model.document import Document

WATCH_LATENCY_MS: Final = 250
"""How long a stop may be held up by the file watcher, in milliseconds (it looks up only that often)."""
_Print = tuple[str, frozenset[tuple[Path, bytes]]]


@final
class Watched:
    """
    The files of a document as they were when it was read, and the folders in which something may happen to them.

    Args:
        document: What is served.
        before: What was watched until now. If its latest state did not lead to this document (a reload was refused),
            that state is not tried again.
    """

    def __init__(self, document: Document, before: Watched | None = None) -> None:
        self._document: Document = document
        self._files = document.files
        self._globs = document.includes
        self._seen: _Print = (document.digest, frozenset())
        if before is not None and before._document is document:
            self._seen = before._seen

    def folders(self) -> list[Path]:
        """
        The folders to watch, those of include globs among them. Not the files: an atomic replace takes a watched file
        away.
        """
        found = {file.parent for file in self._files}
        for pattern in self._globs:
            folder = pattern.rpartition("/")[0] or "/"
            found |= {Path(name) for name in glob.glob(folder, recursive=True)}
            while glob.has_magic(folder):  # where a further folder may come to match
                folder = folder.rpartition("/")[0] or "/"
            found.add(Path(folder))
        return sorted(folder.resolve() for folder in found if folder.is_dir())

    def differs(self) -> bool:
        """Whether what is there now is not what was loaded, or tried, last."""
        return self._now() != self._seen

    def take(self) -> bool:
        """Take what is there now as tried; whether it differs from before."""
        seen, self._seen = self._seen, self._now()
        return seen != self._seen

    def _now(self) -> _Print:
        """The digest as a document has it, and what was not there when it was made."""
        contents = [_content(file) for file in self._files]
        matches = {Path(name).resolve() for pattern in self._globs for name in glob.glob(pattern, recursive=True)}
        new = {path for path in matches if path.is_file()} - {*self._files}
        found = frozenset((path, hashlib.sha256(_content(path)).digest()) for path in new)
        return hashlib.sha256(b"\0".join([b"", *contents])).hexdigest(), found


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b"(gone)"


async def watch(document: Callable[[], Document], reload: Callable[[], Awaitable[None]]) -> None:
    """
    Load again what differs from what was loaded, or tried, last; until cancelled.

    The first look is taken when the watcher says something for the first time, if only that nothing happened: it
    watches by then, so nothing that happens between loading and watching is missed.

    Args:
        document: Tells what is served.
        reload: Tries to serve what the files say now.
    """
    from watchfiles import awatch

    watched = Watched(document())
    while True:
        folders, looked = watched.folders(), False
        watcher = awatch(*folders, rust_timeout=WATCH_LATENCY_MS, recursive=False, yield_on_timeout=True)
        async with aclosing(watcher) as changes:
            async for changed in changes:
                if (changed or not looked) and (watched.differs() or watched.folders() != folders):
                    break
                looked = True
        if watched.take():
            await reload()
            watched = Watched(document(), watched)
