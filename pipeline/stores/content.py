"""
Content by its hash: equal content is held once, however many ask for it to be kept.

For whoever keeps many answers of which most are equal: the list of tools is the same for a thousand principals.
Memory only, and no clock: how long something is kept is its owner's affair, who counts in with `keep` and out with
`release`.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final, final

from ..model.keys import canonical
from ..model.options import MIB
from ..protocol.errors import CapacityExceeded
from ..protocol.messages import Json, decode_json


@final
class Missing:
    """There is no such content. A type of its own, because `None`, `0` and `""` are content."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()
"""What `retrieve` says of a hash it does not know."""


@final
class ContentStore:
    """
    Equal content once, by the SHA-256 of its bytes in hex, with a count of those who keep it.

    Args:
        max_bytes: Bytes of all content together.
    """

    def __init__(self, max_bytes: int = 64 * MIB) -> None:
        self._max_bytes = max_bytes
        self._content: dict[str, bytes] = {}
        self._count: dict[str, int] = {}
        self.bytes = 0
        """Bytes held now."""
        self.stored = 0
        """Contents that were new, since it was made."""
        self.duplicates = 0
        """Contents that were there already."""

    def __len__(self) -> int:
        return len(self._content)

    def keep(self, content: bytes) -> str:
        """
        Hold some bytes until they are released as often as they were kept.

        Returns:
            Their hash.

        Raises:
            CapacityExceeded: They are new, and do not fit.
        """
        name = sha256(content).hexdigest()
        if name in self._content:
            self.duplicates += 1
        else:
            if self.bytes + len(content) > self._max_bytes:
                raise CapacityExceeded(f"{len(content)} bytes more than max_bytes of {self._max_bytes} leaves room for")
            self._content[name] = content
            self.bytes += len(content)
            self.stored += 1
        self._count[name] = self._count.get(name, 0) + 1
        return name

    def get(self, name: str) -> bytes | None:
        """The bytes of a hash, or None."""
        return self._content.get(name)

    def release(self, name: str) -> None:
        """One keeper less; without any the content is forgotten. Harmless for what is not there."""
        left = self._count.get(name, 0) - 1
        if left > 0:
            self._count[name] = left
        elif left == 0:
            del self._count[name]
            self.bytes -= len(self._content.pop(name))

    def store(self, value: Json) -> str:
        """Hold a JSON value in canonical form: the order of members makes no difference to its hash. As `keep`."""
        return self.keep(canonical(value))

    def retrieve(self, name: str) -> Json | Missing:
        """The JSON value of a hash, whatever it is, or `MISSING`."""
        content = self._content.get(name)
        return MISSING if content is None else decode_json(content)
