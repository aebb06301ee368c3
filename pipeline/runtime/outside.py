"""
What a component's options point to outside of the configuration: secrets, and files such as certificates.

A reload keeps a sink whose options did not change. That is right only if what they point to did not change either: a
rotated secret must take effect. So each sink remembers a digest of it from the moment it opened.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from ..model.options import MIB, Secret

_KEY: Final = secrets.token_bytes(32)
"""Of this process: a digest tells nobody else anything about a secret with few possible values."""
_MAX_FILE: Final = 4 * MIB
"""Bytes of a file that are looked at; certificates, keys and lists of them are smaller."""


def digest_outside(config: Any) -> bytes:
    """A digest of every secret's value and every small file that the options in `config` name, as they are now."""
    digest = hashlib.blake2b(key=_KEY, digest_size=32)
    for part in _parts(config):
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, Secret):
        try:
            yield value.resolve().encode("utf-8", "surrogateescape")
        except LookupError:
            yield b"missing"
    elif isinstance(value, Path):
        yield _content(value)
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from _parts(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _parts(item)
    elif isinstance(value, tuple | list | frozenset):
        for item in value:
            yield from _parts(item)


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():  # a directory, for one, to run in
            return b"no file"
        with path.open("rb") as file:
            return file.read(_MAX_FILE)
    except OSError:
        return b"missing"
