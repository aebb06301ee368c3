"""
Content codings of whole answers (RFC 9110, sections 8.4 and 12.5.3). Event streams are never compressed.

Off unless the configuration says otherwise: on one machine it only costs time, and over TLS the length of a compressed
answer tells something about what is in it, if it holds a secret beside what an attacker chose (the BREACH attack).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

import trio

from .media import quality_of

THREAD_FROM: Final = 256 * 1024
"""Bytes from which a body is compressed in a thread: a gzip of a megabyte takes longer than anybody should wait."""
_GZIP: Final = 16 + zlib.MAX_WBITS

Encoder = Callable[[bytes], bytes]


def _gzip(body: bytes) -> bytes:
    encoder = zlib.compressobj(1, wbits=_GZIP)
    return encoder.compress(body) + encoder.flush()


def _optional(module: str, make: Callable[[Any], Encoder]) -> Encoder | None:
    try:
        return make(import_module(module))
    except ImportError:
        return None


def installed_codings() -> Mapping[str, Encoder]:
    """Codings that can be had here, the best first: zstd and br with `sluiceway[compression]`, gzip always."""
    found = {
        "zstd": _optional("backports.zstd", lambda zstd: lambda body: bytes(zstd.compress(body, 3))),
        "br": _optional("brotli", lambda brotli: lambda body: bytes(brotli.compress(body, quality=4))),
        "gzip": _gzip,
    }
    return {name: encoder for name, encoder in found.items() if encoder is not None}


def choose_coding(accept_encoding: str | None, codings: Mapping[str, Encoder]) -> str | None:
    """The coding that the client likes best, of equally liked ones the first; None for no coding at all."""
    best, most = None, 0.0
    for name in codings:
        quality = quality_of(accept_encoding, name)
        if quality > most:
            best, most = name, quality
    return best


async def compress(body: bytes, encode: Encoder) -> bytes:
    """The encoded body."""
    return await trio.to_thread.run_sync(encode, body) if len(body) >= THREAD_FROM else encode(body)
