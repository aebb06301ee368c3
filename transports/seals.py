"""
Words that go out to a client and must come back as they were: cursors, and states of upstreams.

A seal authenticates (keyed BLAKE2b) what it holds, and binds it to a purpose and a caller, so nobody can make an
upstream read what it never wrote. It does not encrypt: what is inside was meant for the client.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final, final

import msgspec

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.options import Secret
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.model.worker import key_of_run
from sluiceway.pipeline.protocol.messages import Json

_DIGEST: Final = 16


class BadSeal(ValueError):
    """Text that is not ours, was changed, or belongs to another purpose or caller."""


def sealing_key(secret: Secret | None, context: Context) -> bytes:
    """
    The key that an option gives, or one of this run where it gives none: the same in every worker.

    Raises:
        LookupError: The secret cannot be resolved.
    """
    text = key_of_run(context) if secret is None else secret.resolve()
    return hashlib.sha256(text.encode()).digest()


@final
class Seals:
    """
    Makes and reads sealed texts.

    Args:
        key: At most 64 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._encode = msgspec.json.Encoder().encode

    def seal(self, purpose: str, caller: Caller, body: bytes) -> str:
        """A text, fit for JSON and urls, that `open` reads back."""
        return urlsafe_b64encode(self._tag(purpose, caller, body) + body).decode().rstrip("=")

    def open(self, purpose: str, caller: Caller, text: Json) -> bytes:
        """
        What is in a sealed text.

        Raises:
            BadSeal: It is not one that `seal` made for this purpose and caller.
        """
        try:
            sealed = urlsafe_b64decode(f"{text}{'=' * (-len(text) % 4)}".encode("ascii"))
        except (TypeError, ValueError, binascii.Error) as error:
            raise BadSeal("not one of ours") from error
        tag, body = sealed[:_DIGEST], sealed[_DIGEST:]
        if not hmac.compare_digest(tag, self._tag(purpose, caller, body)):
            raise BadSeal("not one of ours, or made for something else")
        return body

    def _tag(self, purpose: str, caller: Caller, body: bytes) -> bytes:
        said = self._encode([purpose, caller.subject, caller.tenant]) + body
        return hashlib.blake2b(said, key=self._key, digest_size=_DIGEST).digest()
