"""Stores: what must outlive an exchange, a reload or the process."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

from .component import Component, ComponentKind, named

_C = TypeVar("_C", bound=type[Component])


class Store(Component):
    """
    Bytes by key, for what must outlive an exchange, a reload or the process. Bounded.

    Keys are text, namespaced by their user with the component id. Expiry is in seconds of the injected clock.
    """

    kind = ComponentKind.STORE
    shared: ClassVar[bool] = False
    """Whether what one process puts there, another one with the same options finds: a file, or a server."""

    async def get(self, key: str) -> bytes | None:
        """The live value of a key, or None."""
        raise TypeError(f"{type(self).__name__} does not implement get")

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        """Store a value, replacing what was there; gone after `ttl_s` seconds, or never."""
        raise TypeError(f"{type(self).__name__} does not implement put")

    async def swap(self, key: str, expected: bytes | None, value: bytes, *, ttl_s: float | None = None) -> bool:
        """
        Store a value if the key still holds `expected` (None: nothing), atomically for everybody who shares the store.

        The one primitive that limits and idempotency keys need: read, decide, swap, and again if somebody was faster.

        Returns:
            Whether it was stored.
        """
        raise TypeError(f"{type(self).__name__} does not implement swap")

    async def delete(self, key: str) -> bool:
        """Remove a key; whether it was there."""
        raise TypeError(f"{type(self).__name__} does not implement delete")

    async def keys(self, prefix: str = "") -> list[str]:
        """The live keys that start with `prefix`, sorted."""
        raise TypeError(f"{type(self).__name__} does not implement keys")

    def size(self) -> int:
        """How many entries it holds, expired ones not yet removed included; for status and the leak oracle."""
        raise TypeError(f"{type(self).__name__} does not implement size")


def store(name: str) -> Callable[[_C], _C]:
    """Name a `Store` class: its key under `stores.<id>`."""
    return named(name, Store)
