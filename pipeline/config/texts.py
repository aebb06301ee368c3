"""The texts of a configuration at one moment, for whoever must load the same again when its files may have changed."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from ..model.document import Document


@frozen
class Texts:
    """The files of a configuration as they were at one moment."""

    contents: Mapping[Path, bytes]
    """By absolute path."""
    matches: Mapping[str, tuple[Path, ...]]
    """Files that each include glob matched, by the absolute glob."""


def texts_of(document: Document) -> Texts | None:
    """
    The files of a document, as they were when it was read; None if they have changed since.

    Raises:
        OSError: One of them is gone.
    """
    contents = {path: path.read_bytes() for path in document.files}
    digest = hashlib.sha256(b"\0".join([b"", *contents.values()])).hexdigest()
    matches = {
        pattern: tuple(path for name in sorted(glob.glob(pattern, recursive=True)) if (path := Path(name)).is_file())
        for pattern in document.includes
    }
    known = all(path.resolve() in contents for paths in matches.values() for path in paths)
    return Texts(contents, matches) if known and digest == document.digest else None
