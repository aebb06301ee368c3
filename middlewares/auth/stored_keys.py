"""API keys in a store: found by digest, remembered for a moment, made and revoked while the gateway runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, final

import msgspec
import trio

from sluiceway.pipeline.model.remembered import Remembered
from sluiceway.pipeline.model.store import Store
from sluiceway.pipeline.protocol.messages import Json

from .api_keys import MAX_KEYS, ApiKey, Entry, check_keys, digest_of, entry_of, make_key, parse_key, raw_digest

_MAX_REMEMBERED: Final = 10_000


@final
class StoredKeys:
    """
    Args:
        store: Where they are.
        namespace: Where in the store.
        pepper: Of the digests.
        prefix: Of subjects.
        remember_s: How long what the store said is believed.
        new_id: Makes 128 unguessable bits.
        log: Structured logger.
    """

    def __init__(
        self,
        store: Store,
        namespace: str,
        pepper: bytes,
        prefix: str,
        *,
        remember_s: float,
        new_id: Callable[[], str],
        log: Any,
    ) -> None:
        self._store = store
        self._namespace = namespace
        self._pepper = pepper
        self._prefix = prefix
        self._remember_s = remember_s
        self._new_id = new_id
        self._log = log
        self._remembered = Remembered[bytes, tuple[float, Entry | None]](_MAX_REMEMBERED)

    async def find(self, digest: bytes) -> Entry | None:
        """
        The entry of a digest. That there is none is remembered, too: guessing does not reach the store twice.

        A checkpoint only if the store is asked.
        """
        now = trio.current_time()
        remembered = self._remembered.get(digest)
        if remembered is not None and now < remembered[0]:
            return remembered[1]
        entry = None
        data = await self._store.get(self._place(digest))
        if data is not None:
            try:
                entry = entry_of(parse_key(data), self._prefix)
            except ValueError as error:
                self._log.error("an entry of the store is no key", error=str(error))
        self._remembered.keep(digest, (now + self._remember_s, entry))
        return entry

    async def issue(self, arguments: Mapping[str, Json]) -> Json:
        """
        Make a key.

        Args:
            arguments: Fields of an `ApiKey`; `id` and `digest` are made.

        Returns:
            What was stored, with the key in place of its digest. It is shown this once.

        Raises:
            ValueError: The arguments are wrong, or there are too many keys.
        """
        key = make_key(self._new_id() + self._new_id())
        wanted = {"id": self._new_id()[:12], **arguments, "digest": digest_of(self._pepper, key)}
        try:
            record = msgspec.convert(wanted, ApiKey)
        except msgspec.ValidationError as error:
            raise ValueError(f"issue: {error}") from error
        check_keys([record])
        keys = await self.all()
        if any(each.id == record.id for each in keys.values()):
            raise ValueError(f"there is a key {record.id!r:.80} already")
        if len(keys) >= MAX_KEYS:
            raise ValueError(f"there are {MAX_KEYS} keys already; revoke some")
        await self._store.put(self._place(raw_digest(record)), msgspec.json.encode(record))
        return {"key": key, **shown(record)}

    async def revoke(self, name: Json) -> Json:
        """
        Revoke the key with this id, at once.

        Raises:
            ValueError: There is none.
        """
        keys = await self.all()
        place = next((place for place, key in keys.items() if key.id == name), None)
        if place is None:
            raise ValueError(f"there is no key {name!r:.80}; the action list names them")
        await self._store.delete(place)
        self._remembered.clear()
        return {"revoked": name}

    async def all(self) -> dict[str, ApiKey]:
        """Every key, by its place in the store."""
        found = {}
        for place in await self._store.keys(f"{self._namespace}."):
            data = await self._store.get(place)
            if data is not None:
                found[place] = parse_key(data)
        return found

    def _place(self, digest: bytes) -> str:
        return f"{self._namespace}.{digest.hex()}"


def shown(key: ApiKey) -> dict[str, Json]:
    """A key for people: without its digest."""
    fields: dict[str, Json] = msgspec.json.decode(msgspec.json.encode(key))
    del fields["digest"]
    return fields
