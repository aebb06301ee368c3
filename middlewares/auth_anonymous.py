"""
`auth_anonymous`: callers who show no credential, let in because somebody decided so.

Without an auth stage everybody is anonymous, by default; with this one, by choice. It stands last, behind stages that
are `optional`. On stdio, where credentials come from the environment (MCP 2026-07-28, authorization), it says who the
one client is.
"""

from __future__ import annotations

from typing import Final, Literal, final

from attrs import frozen

from sluiceway.pipeline.model.component import Context, middleware
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.options import option
from sluiceway.pipeline.model.session import ANONYMOUS, Caller
from sluiceway.pipeline.protocol.errors import Unauthenticated

from .auth.challenges import render_challenge
from .auth.stage import Admission, AuthStage, optional_option

_CHALLENGE: Final = render_challenge("Bearer", {"realm": "sluiceway"})
_SHOWN: Final = frozenset({"authorization", "x-api-key"})
"""Headers of credentials: who shows one wants to be somebody."""


@final
@middleware("auth_anonymous")
class AuthAnonymous(AuthStage):
    """
    Let in who shows no credential, as `subject`.

    * A credential that no stage before this one took is refused: a wrong one must not turn its owner into nobody.
    * `anonymous` is nobody in particular: limits and caches tell such callers apart by session and address. Any other
      subject is one principal, whoever it is; use it where only one can be (stdio), or for all guests together.
    * With `transports` it decides about those only. Others are refused, or with `optional` left to the next stage.

    Raises:
        Unauthenticated: A credential that nobody took, or another transport (HTTP 401).
        SessionNotFound: The session is another principal's (HTTP 404).
    """

    @frozen
    class Config:
        """Options of `auth_anonymous`."""

        subject: str = option(ANONYMOUS.subject, doc="Who they are.")
        tenant: str | None = option(None, doc="Their tenant.", example="public")
        roles: tuple[str, ...] = option((), doc="Their roles.", example=["guest"])
        scopes: tuple[str, ...] = option((), doc="Their scopes.", example=["files:read"])
        transports: tuple[Literal["http", "sse", "stdio", "websocket", "memory"], ...] = option(
            ("http", "sse", "stdio", "websocket", "memory"), doc="Transports on which this holds."
        )
        optional: bool = optional_option()

        def __attrs_post_init__(self) -> None:
            if not self.subject:
                raise ValueError("subject: must not be empty")

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._transports = frozenset(config.transports)
        self._caller = Caller(
            config.subject,
            tenant=config.tenant,
            scopes=frozenset(config.scopes),
            how="none" if config.subject == ANONYMOUS.subject else "fixed",
            roles=frozenset(config.roles),
        )
        self._admission = self.admission(self._caller)

    def remembered(self, exchange: Exchange) -> Admission | None:
        """See `AuthStage.remembered`: it is always the same."""
        client = exchange.client
        is_plain = client.transport in self._transports and _SHOWN.isdisjoint(client.headers)
        return self._admission if is_plain else None

    async def caller_of(self, exchange: Exchange) -> Caller | None:
        """See `AuthStage.caller_of`. Never a checkpoint."""
        client = exchange.client
        if client.transport not in self._transports:
            return None
        if any(name in client.headers for name in _SHOWN):
            raise self.refusal(
                exchange, Unauthenticated, "credential of no kind", "nobody here takes this credential", _CHALLENGE
            )
        return self._caller

    def missing(self, exchange: Exchange) -> Unauthenticated:
        """See `AuthStage.missing`."""
        return self.refusal(
            exchange, Unauthenticated, "transport", f"nobody comes in without a credential over "
            f"{exchange.client.transport}", _CHALLENGE,
        )  # fmt: skip
