"""
`auth_api_key`: callers who show a key that the gateway has given out.

The gateway keeps digests, never keys. `sluiceway keys` makes them for a file, which is read again when it changes; for
a store the running stage makes and revokes them itself, by its actions. See `docs/auth.md`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import ClassVar, Final, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.component import Context, State, middleware
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.options import MIB, SECOND, ConfigPath, Duration, Secret, option
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import MalformedCredentials, Unauthenticated
from sluiceway.pipeline.protocol.messages import Json
from sluiceway.pipeline.runtime.nursery import open_background_nursery

from .auth.api_keys import MAX_KEY, PREFIX, SHAPE, Entry, check_pepper, digest_under, parse_keys, table_of
from .auth.challenges import render_challenge, split_authorization
from .auth.stage import Admission, AuthStage, optional_option
from .auth.stored_keys import StoredKeys, shown

_MAX_FILE: Final = 64 * MIB
_MAX_SEEN: Final = 10_000
"""Headers with a key of the file that are remembered, until the file is looked at again."""
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@final
@middleware("auth_api_key")
class AuthApiKey(AuthStage):
    """
    Establish callers by API keys: subject, tenant, roles and scopes stand beside the key's digest.

    * Digests are HMAC-SHA-256 under `pepper`; nothing that is kept opens anything. In memory a key of a file that came
      in is remembered until the file is looked at again, so that not every request has to be digested.
    * Two keys of one subject are valid at once, so that a key can be rotated: make the new one, hand it out, revoke
      the old one.
    * Keys come from a `file`, which is read again when it changes (a file that is broken leaves the keys as they
      were, and the stage `degraded`), or from a `store`, which the actions `issue`, `revoke` and `list` write.
    * The key stands in `header`, alone or behind `scheme` (`header: authorization`, `scheme: Bearer`). Where the
      stage is `optional` and the scheme is `Bearer`, what does not begin with `slw_` is left to the next stage as a
      token.

    Raises:
        Unauthenticated: No key, an unknown one, or one that has expired (HTTP 401).
        MalformedCredentials: The header stands twice, or is not a key's (HTTP 400).
        SessionNotFound: The session is another principal's (HTTP 404).
    """

    actions: ClassVar[Mapping[str, str]] = {
        "issue": "Make a key and show it once: subject, and perhaps id, tenant, tenants, roles, scopes, expires, note.",
        "revoke": "Revoke the key with this id.",
        "list": "The keys there are, without what opens anything.",
    }

    @frozen
    class Config:
        """Options of `auth_api_key`."""

        pepper: Secret = option(
            doc="The secret under which digests are made, at least 16 bytes; the same for the command that makes keys.",
            example={"from_env": "SLUICEWAY_KEY_PEPPER"},
        )
        file: ConfigPath | None = option(
            None, doc="File of keys (JSON), as `sluiceway keys` writes it.", example="./keys.json"
        )
        store: str | None = option(None, doc="Store of keys, in place of a file.", example="state")
        namespace: str = option(
            "api_keys", doc="Where in the store its keys are; stages with the same name share them."
        )
        header: str = option("x-api-key", doc="Header in which the key stands.")
        scheme: str | None = option(
            None, doc="Word before the key, such as `Bearer` or `ApiKey` in the header `authorization`.",
            example="ApiKey",
        )  # fmt: skip
        prefix: str = option(
            "", doc="Put in front of every subject, so that no key's subject is that of a token by accident.",
            example="key:",
        )  # fmt: skip
        reload: Duration = option(
            Duration(5 * SECOND), gt=0,
            doc="How often the file is looked at, and how long a key of a store is remembered: a revocation takes "
            "effect within this time.",
        )  # fmt: skip
        optional: bool = optional_option()

        def __attrs_post_init__(self) -> None:
            if (self.file is None) == (self.store is None):
                raise ValueError("keys come from a file or from a store; name one of them")
            if not _NAME.fullmatch(self.header.lower()):
                raise ValueError(f"header: {self.header!r:.60} is not the name of a header")
            if self.scheme is None and self.header.lower() == "authorization":
                raise ValueError("scheme: the header authorization needs one, such as ApiKey or Bearer")
            if self.scheme is not None and not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", self.scheme):
                raise ValueError(f"scheme: {self.scheme!r:.60} is one word, such as ApiKey")

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context, hides=[config.header.lower()])
        self._config = config
        self._header = config.header.lower()
        self._scheme = config.scheme.lower() if config.scheme is not None else None
        self._challenge = render_challenge(config.scheme or "ApiKey", {"realm": "sluiceway"})
        self._now = context.now
        self._pepper = b""
        self._digest = digest_under(b"")
        self._table: Mapping[bytes, Entry] = {}
        self._seen: dict[str, tuple[Admission, float]] = {}
        """Who came with a header, and when its key expires, in seconds since 1970."""
        self._stored: StoredKeys | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Read the pepper and the keys; watch the file while open.

        Raises:
            LookupError: There is no pepper, or no such store.
            ValueError: The pepper is too short, or the file is not one of keys.
            OSError: The file cannot be read.
        """
        self._seen.clear()
        self._pepper = check_pepper(self._config.pepper.resolve())
        self._digest = digest_under(self._pepper)
        if self._config.store is not None:
            self._stored = self._open_store(self._config.store)
            yield
            return
        content = self._read()
        self._table = table_of(parse_keys(content), self._config.prefix)
        async with open_background_nursery() as nursery:
            nursery.start_soon(self._watch, content)
            yield

    # Requests.

    def remembered(self, exchange: Exchange) -> Admission | None:
        """See `AuthStage.remembered`."""
        seen = self._seen.get(exchange.client.headers.get(self._header, ""))
        return seen[0] if seen is not None and seen[1] > self._now() else None

    async def caller_of(self, exchange: Exchange) -> Caller | None:
        """See `AuthStage.caller_of`. A checkpoint only with a store, and only for a key not seen lately."""
        key = exchange.client.headers.get(self._header)
        if key is None:
            return None
        if self._scheme is not None:
            found = split_authorization(key)
            if found is None or found[0] != self._scheme:
                return None
            key = found[1]
            if self._optional and self._scheme == "bearer" and not key.startswith(PREFIX):
                return None  # a token, for the next stage
        digest = self._digest(key.encode("utf-8", "replace"))
        entry = self._table.get(digest) if self._stored is None else await self._stored.find(digest)
        if entry is None and not SHAPE.fullmatch(key):
            raise self.refusal(
                exchange, MalformedCredentials, "malformed",
                f"header {self._header} must hold one key of at most {MAX_KEY} visible ASCII characters",
                self._challenge,
            )  # fmt: skip
        if entry is None:
            raise self.refusal(exchange, Unauthenticated, "unknown key", "this key opens nothing", self._challenge)
        if entry.expires <= self.context.now():
            raise self.refusal(exchange, Unauthenticated, "expired key", "this key has expired", self._challenge)
        if self._stored is None:
            if len(self._seen) >= _MAX_SEEN:
                self._seen.clear()
            self._seen[exchange.client.headers[self._header]] = self.admission(entry.caller), entry.expires
        return entry.caller

    def missing(self, exchange: Exchange) -> Unauthenticated:
        """See `AuthStage.missing`."""
        where = f"{self._header}: {self._config.scheme} <key>" if self._scheme is not None else self._header
        return self.refusal(
            exchange, Unauthenticated, "no credential", f"a key is needed in the header {where}", self._challenge
        )

    def _open_store(self, name: str) -> StoredKeys:
        config, context = self._config, self.context
        return StoredKeys(
            context.store(name), config.namespace, self._pepper, config.prefix,
            remember_s=config.reload, new_id=context.new_id, log=context.log,
        )  # fmt: skip

    # Keys in a file.

    def _read(self) -> bytes:
        """
        The file. It is small and local: a thread would cost more than reading it.

        Raises:
            OSError: It cannot be read.
            ValueError: It is too large.
        """
        assert self._config.file is not None
        with self._config.file.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
        if len(content) > _MAX_FILE:
            raise ValueError(f"the file of keys has more than {_MAX_FILE} bytes")
        return content

    async def _watch(self, seen: bytes) -> None:
        """Take over what the file says whenever it says something else."""
        trouble = ""
        while True:
            await trio.sleep(self._config.reload)
            self._seen.clear()
            try:
                content = self._read()
                if content == seen and not trouble:
                    continue
                self._table = table_of(parse_keys(content), self._config.prefix)
            except (OSError, ValueError) as error:
                if trouble != str(error):
                    trouble = str(error)
                    self.context.log.error("the file of keys cannot be used; the keys stay as they were", error=trouble)
                    self.context.report(State.DEGRADED, f"the file of keys cannot be used: {trouble}")
                continue
            seen = content
            self.context.log.info("keys loaded", keys=len(self._table))
            if trouble:
                trouble = ""
                self.context.report(State.READY, "")

    # Operators.

    async def act(self, action: str, arguments: Mapping[str, Json]) -> Json:
        """
        See `actions`.

        Raises:
            LookupError: There is no such action.
            ValueError: The arguments are wrong, or keys are kept in a file.
        """
        if action not in self.actions:
            return await super().act(action, arguments)
        keys = self._stored
        if keys is None:
            raise ValueError(f"{self.context.id} has its keys from a file; use: sluiceway keys")
        if action == "issue":
            return await keys.issue(arguments)
        if action == "revoke":
            return await keys.revoke(arguments.get("id"))
        return [shown(key) for key in (await keys.all()).values()]
