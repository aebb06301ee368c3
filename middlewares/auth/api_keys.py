"""
API keys as they are kept: who each is for, and a digest in place of the key. Pure; used by the stage and the command.

A key is 256 random bits, so its digest needs no slow hash. HMAC with a pepper that is kept elsewhere makes a stolen
file of digests useless for trying keys, and a look-up by digest gives no hint by its time: nobody without the pepper
can choose which digest a guess has.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final, final

import msgspec
from attrs import frozen

from sluiceway.pipeline.model.session import Caller

PREFIX: Final = "slw_"
"""What every key of ours begins with, so that scanners of repositories and logs find it."""
MAX_KEY: Final = 512
"""Characters of a key, wherever it came from."""
SHAPE: Final = re.compile(rf"[!-+\--~]{{1,{MAX_KEY}}}")
"""Visible ASCII without commas: a comma is what joins two headers."""
MIN_PEPPER: Final = 16
"""Bytes that a pepper has at least."""
MAX_KEYS: Final = 100_000
"""Keys of one file or store."""
_BLOCK: Final = 64
"""Bytes of a block of SHA-256."""
_SCHEME: Final = "hmac-sha256:"


@final
class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One key. Several keys can have the same subject: that is how one is rotated."""

    id: str
    """Names the key in logs, audit and on the command line."""
    digest: str
    """`hmac-sha256:` and the HMAC-SHA-256 of the key under the pepper, in hex."""
    subject: str
    """Who it is for."""
    tenant: str | None = None
    tenants: tuple[str, ...] = ()
    """Tenants it may choose from, beside its own."""
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    expires: datetime | None = None
    """With a time zone; None for never."""
    note: str = ""
    """For people."""

    def caller(self, prefix: str = "") -> Caller:
        """The principal this key stands for."""
        return Caller(
            prefix + self.subject,
            tenant=self.tenant,
            scopes=frozenset(self.scopes),
            how="api_key",
            roles=frozenset(self.roles),
            tenants=frozenset(self.tenants),
            credential=self.id,
        )


@final
class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of keys: JSON, `{"keys": [...]}`."""

    keys: tuple[ApiKey, ...] = ()


@final
@frozen
class Entry:
    """A key as requests find it."""

    caller: Caller
    expires: float
    """Seconds since 1970; infinite for never."""


_file_decoder: Final = msgspec.json.Decoder(KeyFile)
_key_decoder: Final = msgspec.json.Decoder(ApiKey)


def make_key(randomness: str | None = None) -> str:
    """A new key. It is shown once, and kept nowhere. `randomness` is at least 256 bits of it, for what injects it."""
    return PREFIX + (randomness if randomness is not None else secrets.token_urlsafe(32))


def digest_of(pepper: bytes, key: str) -> str:
    """How a key is written down."""
    return _SCHEME + hmac.digest(pepper, key.encode(), "sha256").hex()


def digest_under(pepper: bytes) -> Callable[[bytes], bytes]:
    """
    HMAC-SHA-256 under one pepper, by its definition (RFC 2104): half the time of `hmac.digest`, which looks its hash up
    and pads its key every time.
    """
    block = (hashlib.sha256(pepper).digest() if len(pepper) > _BLOCK else pepper).ljust(_BLOCK, b"\0")
    inner, outer = bytes(byte ^ 0x36 for byte in block), bytes(byte ^ 0x5C for byte in block)
    sha256 = hashlib.sha256
    return lambda key: sha256(outer + sha256(inner + key).digest()).digest()


def check_pepper(text: str) -> bytes:
    """
    The pepper as bytes.

    Raises:
        ValueError: It is too short to keep anybody from guessing it.
    """
    pepper = text.encode()
    if len(pepper) < MIN_PEPPER:
        raise ValueError(f"the pepper has {len(pepper)} bytes; it needs {MIN_PEPPER}, such as: openssl rand -hex 32")
    return pepper


def parse_keys(data: bytes) -> tuple[ApiKey, ...]:
    """
    Read a file of keys.

    Raises:
        ValueError: It is not one, or two keys are the same; the text shows no digest.
    """
    try:
        keys = _file_decoder.decode(data).keys
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a file of keys: {error}") from error
    check_keys(keys)
    return keys


def parse_key(data: bytes) -> ApiKey:
    """
    Read one key of a store.

    Raises:
        ValueError: It is none.
    """
    try:
        key = _key_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a key: {error}") from error
    check_keys([key])
    return key


def render_keys(keys: Iterable[ApiKey]) -> bytes:
    """What `parse_keys` reads back, fit for people and for version control."""
    return msgspec.json.format(msgspec.json.encode(KeyFile(tuple(keys))), indent=2) + b"\n"


def check_keys(keys: Iterable[ApiKey]) -> None:
    """
    Check what JSON cannot say.

    Raises:
        ValueError: With the id of the key that is wrong.
    """
    ids: set[str] = set()
    digests: set[str] = set()
    for key in keys:
        if not key.id or not key.subject:
            raise ValueError(f"key {key.id!r:.80} needs an id and a subject")
        if key.id in ids:
            raise ValueError(f"key {key.id!r:.80} is there twice; each key has an id of its own")
        if not key.digest.startswith(_SCHEME) or len(raw_digest(key)) != 32:
            raise ValueError(f"key {key.id!r:.80}: its digest is not {_SCHEME} and 64 hex digits")
        if key.digest in digests:
            raise ValueError(f"key {key.id!r:.80} is the same as another one; ids and subjects must not share a key")
        if key.expires is not None and key.expires.tzinfo is None:
            raise ValueError(f"key {key.id!r:.80}: expires needs a time zone, such as 2027-01-31T00:00:00Z")
        ids.add(key.id)
        digests.add(key.digest)
    if len(ids) > MAX_KEYS:
        raise ValueError(f"{len(ids)} keys; at most {MAX_KEYS} are kept")


def entry_of(key: ApiKey, prefix: str) -> Entry:
    """A key as requests find it."""
    return Entry(key.caller(prefix), key.expires.timestamp() if key.expires is not None else float("inf"))


def table_of(keys: Iterable[ApiKey], prefix: str) -> Mapping[bytes, Entry]:
    """Entries by raw digest."""
    return {raw_digest(key): entry_of(key, prefix) for key in keys}


def raw_digest(key: ApiKey) -> bytes:
    """The bytes of its digest; empty if it is none."""
    try:
        return bytes.fromhex(key.digest.removeprefix(_SCHEME))
    except ValueError:
        return b""
