"""What the converted cases import in place of Python 2's modules: bytes are strings of Latin-1 characters to them."""

from __future__ import annotations

import binascii as _binascii
from typing import Any

from autobahn.websocket.utf8validator import Utf8Validator as _Utf8Validator


def to_bytes(value: str | bytes) -> bytes:
    """The bytes that a string stands for."""
    return value.encode("latin-1") if isinstance(value, str) else value


class binascii:  # stands for the module of this name
    """Between bytes and their digits."""

    @staticmethod
    def b2a_hex(data: str) -> str:
        """Digits."""
        return _binascii.b2a_hex(to_bytes(data)).decode()

    @staticmethod
    def a2b_hex(digits: str) -> str:
        """Bytes."""
        return _binascii.a2b_hex(digits).decode("latin-1")


class Utf8Validator(_Utf8Validator):
    """Looks at bytes."""

    def validate(self, data: str) -> Any:
        """See the library."""
        return super().validate(to_bytes(data))
