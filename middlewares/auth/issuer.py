"""
What comes from the authorization server: its description, its keys, its word on opaque tokens.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import final

from sluiceway.pipeline.model.component import Context, State
from sluiceway.pipeline.runtime.nursery import open_background_nursery

from .bearer_config import BearerConfig
from .discovery import MAX_METADATA, ServerMetadata, metadata_urls, parse_metadata
from .fetching import Fetcher, FetchFailed
from .introspection import MAX_ANSWER, Introspection
from .jwks import MAX_JWKS, KeySet, parse_jwks
from .key_ring import KeyRing


@final
class Issuer:
    """
    The authorization server of one stage. Open it before anything is asked of it.

    Args:
        config: The stage's options.
        context: The stage's; told when keys cannot be had.
    """

    ring: KeyRing
    """Its keys, while it is open."""

    def __init__(self, config: BearerConfig, context: Context) -> None:
        self.introspection: Introspection | None = None
        """Where opaque tokens are asked about; None if they are not."""
        self._config = config
        self._context = context
        self._metadata = ServerMetadata(None, None)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Get the keys, and go on getting them.

        Raises:
            LookupError: A secret is not there.
            ValueError: The keys of `jwks` are none.
            OSError: The file of `ca` cannot be read.
        """
        config = self._config
        if config.jwks is not None:
            self._own_keys()
        named = [config.issuer, config.jwks_url, config.introspection.url if config.introspection else None]
        fetcher = Fetcher(
            [each for each in named if each is not None],
            allow_private=config.allow_private,
            timeout_s=config.fetch_timeout,
            ca=str(config.ca) if config.ca is not None else None,
        )
        async with AsyncExitStack() as stack:
            if self._fetches:
                await stack.enter_async_context(fetcher)
            if config.introspection is not None:
                self.introspection = self._introspect(fetcher)
            self.ring = KeyRing(
                lambda: self._load(fetcher), refresh_s=config.refresh, interval_s=config.refresh_at_most,
                stale_s=config.keep_stale, told=self._told,
            )  # fmt: skip
            nursery = await stack.enter_async_context(open_background_nursery())
            await nursery.start(self.ring.run)
            yield

    @property
    def _discovers(self) -> bool:
        """Whether something must be looked up in the issuer's own description."""
        config = self._config
        keys = config.jwt and config.jwks is None and config.jwks_url is None
        return keys or (config.introspection is not None and config.introspection.url is None)

    @property
    def _fetches(self) -> bool:
        return self._discovers or self._config.jwks_url is not None or self._config.introspection is not None

    async def _load(self, fetcher: Fetcher) -> KeySet:
        """The keys as they are now; for the ring."""
        config = self._config
        try:
            if self._discovers:
                self._metadata = await _discover(fetcher, config.issuer)
            if not config.jwt:
                return KeySet()
            if config.jwks is not None:
                return self._own_keys()
            url = config.jwks_url or self._metadata.jwks_uri
            if url is None:
                raise FetchFailed(f"{config.issuer} does not say where its keys are; set jwks_url")
            return parse_jwks(await fetcher.get(url, MAX_JWKS))
        except (ValueError, LookupError) as error:
            raise FetchFailed(str(error)) from error

    def _own_keys(self) -> KeySet:
        assert self._config.jwks is not None
        return parse_jwks(self._config.jwks.resolve().encode(), symmetric=self._config.symmetric)

    def _introspect(self, fetcher: Fetcher) -> Introspection:
        asked = self._config.introspection
        assert asked is not None

        async def post(headers: Mapping[str, str], form: bytes) -> bytes:
            url = asked.url or self._metadata.introspection_endpoint
            if url is None:
                raise FetchFailed(f"{self._config.issuer} has not said where tokens are introspected")
            return await fetcher.post(url, MAX_ANSWER, headers, form)

        return Introspection(
            post, asked.client_id, asked.client_secret.resolve(),
            remember_s=asked.remember, max_remembered=self._config.max_remembered,
        )  # fmt: skip

    def _told(self, trouble: str | None) -> None:
        if trouble is None:
            self._context.report(State.READY, "")
            return
        self._context.log.warning("no keys from the authorization server", issuer=self._config.issuer, reason=trouble)
        self._context.report(State.DEGRADED, f"no keys from {self._config.issuer}: {trouble}")


async def _discover(fetcher: Fetcher, issuer: str) -> ServerMetadata:
    """
    The first description of an issuer that is one.

    Raises:
        FetchFailed: There is none.
    """
    failures = []
    for url in metadata_urls(issuer):
        try:
            return parse_metadata(await fetcher.get(url, MAX_METADATA), issuer)
        except (FetchFailed, ValueError) as error:
            failures.append(f"{url}: {error}")
    raise FetchFailed("; ".join(failures))
