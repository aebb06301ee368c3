"""
`tenant`: which tenant a caller acts for.

A principal belongs to a tenant, or may act for several. It may choose among these and no others (D-46): what a request
names is a wish, what the credential allows is the answer. Everything behind this stage that keeps something (limits,
caches, sessions, tasks, cursors) keys it by the tenant that was chosen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import ClassVar, Final, final

import trio
from attrs import evolve, frozen

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import option
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.model.session import ANONYMOUS, Caller
from sluiceway.pipeline.protocol.errors import Forbidden, SessionNotFound
from sluiceway.pipeline.protocol.messages import Json, Reply

MAX_SHOWN: Final = 64
"""Characters of a tenant's name that a refusal repeats."""


class NoChoice(ValueError):
    """There is no tenant that the caller may act for, or none can be told from the others; the text is for clients."""


def allowed_to(caller: Caller) -> frozenset[str]:
    """Tenants that a caller may act for: its own, and those its credential names beside it. An empty name is none."""
    return frozenset(filter(None, (*caller.tenants, caller.tenant)))


def choose(
    caller: Caller,
    wished: str | None,
    *,
    before: str | None = None,
    default: str | None = None,
    known: frozenset[str] | None = None,
) -> str | None:
    """
    The tenant that a caller acts for.

    Args:
        caller: As authentication found it.
        wished: What the request names.
        before: What the caller's session was opened for.
        default: Of callers whose credential names no tenant at all.
        known: The tenants there are; None where none are listed.

    Returns:
        A tenant, or None if there is none and none was asked for.

    Raises:
        NoChoice: The wish is not among what the caller may, or there is no such tenant; these read the same. Or there
            are several, and no wish.
    """
    allowed = allowed_to(caller)
    if not allowed and default is not None:
        allowed = frozenset({default})
    if known is not None:
        allowed &= known
    if wished is not None:
        if wished not in allowed:
            raise NoChoice(f"Tenant {wished[:MAX_SHOWN]} not found")
        return wished
    for candidate in (before, caller.tenant, default):
        if candidate is not None and candidate in allowed:
            return candidate
    if len(allowed) > 1:
        raise NoChoice("several tenants are possible; name one")
    if not allowed and allowed_to(caller):
        raise NoChoice("Tenant not found")
    return next(iter(allowed), None)


@final
@frozen(kw_only=True)
class Tenant:
    """One tenant."""

    name: str = option("", doc="What people call it, in logs and status.", example="Acme Ltd")
    enabled: bool = option(True, doc="Whether it is served; a tenant that is not is refused as if it were not there.")


@final
@middleware("tenant")
class TenantStage(Middleware):
    """
    Give every caller the tenant it acts for, among those that its credential allows.

    * A caller with one tenant has that one. Who may act for several names one in the header `header` or under the key
      `meta` of `_meta`; without a wish it is that of its session, else its own, else `default` if it may.
    * A tenant that the caller may not act for is refused as one that does not exist is.
    * A session belongs to the tenant for which it was opened; for another one it does not exist.
    * With `tenants`, no others are served, whatever a credential says. What a tenant gets of its own stands in the
      stages: `overrides`, or a stage of its own with `when: {tenant: acme}`.

    Raises:
        Forbidden: The caller has no tenant, may not act for the one it names, or must name one.
        SessionNotFound: The session is another tenant's.
    """

    reads_results = False
    role = "tenant"
    order = (
        Order("after", "auth", "error", "before authentication nobody may act for any tenant"),
        *(
            Order("before", role, "error", "its keys would be those of another tenant, or of none")
            for role in ("cache", "dedup")
        ),
        Order("before", "rate_limit", "warning", "what it counts would be another tenant's, or nobody's"),
        Order("before", "concurrency_limit", "warning", "places per tenant would be counted for another one, or none"),
        Order("before", "load_shed", "warning", "a tenant's share would be counted for another one, or none"),
    )

    actions: ClassVar[Mapping[str, str]] = {"why": "Say for which tenant a caller acts, and why it may not."}

    @frozen
    class Config:
        """Options of `tenant`."""

        tenants: Mapping[str, Tenant] | None = option(
            None, doc="The tenants that are served, by id; without it those that credentials name.",
            example={"acme": {"name": "Acme Ltd"}, "globex": {}},
        )  # fmt: skip
        header: str | None = option(
            None, doc="Request header that names a tenant; without it none does.", example="x-tenant"
        )
        meta: str | None = option(
            None, doc="Key of `_meta` that names a tenant, for every transport.", example="com.example/tenant"
        )
        default: str | None = option(
            None, doc="Tenant of callers whose credential names none, anonymous ones too.", example="public"
        )
        required: bool = option(True, doc="Whether callers without a tenant are refused.")

        def __attrs_post_init__(self) -> None:
            if self.default is not None and self.tenants is not None and self.default not in self.tenants:
                raise ValueError(f"default: {self.default!r} is not one of tenants: {', '.join(self.tenants)}")

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._header = None if config.header is None else config.header.lower()
        self._known: frozenset[str] | None = None
        if config.tenants is not None:
            self._known = frozenset(key for key, tenant in config.tenants.items() if tenant.enabled)
        self._refused = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Say which tenants are served."""
        for key, tenant in (self.config.tenants or {}).items():
            if tenant.enabled:
                self.context.log.info("Tenant initialized", tenant=key, name=tenant.name or key)
        yield

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Choose, and go on as that tenant."""
        caller = exchange.caller
        try:
            tenant = choose(
                caller,
                self._wish(exchange),
                before=_before(exchange),
                default=self.config.default,
                known=self._known,
            )
            if tenant is None and self.config.required:
                raise NoChoice("Tenant not found: this credential has none")
        except NoChoice as error:
            raise self._refusal(exchange, str(error)) from None
        session = exchange.client.session
        opened = session is not None and session.version is not None and session.caller.subject == caller.subject
        if session is not None and opened and session.caller.tenant != tenant:
            exchange.decide(self.context.id, "refuse", "the session is another tenant's")
            raise SessionNotFound("no such session; initialize again without a session id")
        if tenant != caller.tenant:
            exchange.decide(self.context.id, "choose")
            exchange.authenticate(evolve(caller, tenant=tenant))
        return await call_next(exchange)

    async def act(self, action: str, arguments: Mapping[str, Json]) -> Json:
        """`why`: for which tenant a caller acts whose credential names `tenant`; answers as `access` does."""
        if action != "why":
            return await super().act(action, arguments)
        await trio.lowlevel.checkpoint()
        own, answer = arguments.get("tenant"), {"rule": "", "scopes": [], "rules": []}
        caller = Caller(str(arguments.get("caller") or ANONYMOUS.subject), own if isinstance(own, str) else None)
        try:
            tenant = choose(caller, None, default=self.config.default, known=self._known)
        except NoChoice as error:
            return {**answer, "allowed": False, "reason": str(error)}
        if tenant is None and self.config.required:
            return {**answer, "allowed": False, "reason": "the caller has no tenant, and one is required"}
        return {**answer, "allowed": True, "reason": f"acts for {tenant}" if tenant else "acts for no tenant"}

    def details(self) -> Mapping[str, Json]:
        """The tenants that are served, with their names; nothing where any are."""
        tenants = self.config.tenants or {}
        return {"tenants": {key: tenants[key].name or key for key in sorted(self._known or ())}}

    def figures(self) -> Iterable[Figure]:
        """What was refused so far."""
        yield Figure("tenant_refused_total", self._refused, "counter", "Requests refused for want of a tenant.")

    def _wish(self, exchange: Exchange) -> str | None:
        """
        The tenant that a request names.

        Raises:
            NoChoice: It names two, or something that is no text.
        """
        by_header = exchange.client.headers.get(self._header) if self._header is not None else None
        by_meta = exchange.request.meta.get(self.config.meta) if self.config.meta is not None else None
        if by_meta is not None and not isinstance(by_meta, str):
            raise NoChoice(f"_meta.{self.config.meta} must be a text")
        if by_header is not None and by_meta is not None and by_header != by_meta:
            raise NoChoice("two tenants are named; name one")
        return by_meta if by_header is None else by_header

    def _refusal(self, exchange: Exchange, why: str) -> Forbidden:
        self._refused += 1
        exchange.decide(self.context.id, "refuse", "not a tenant of the caller's")
        return Forbidden(why)


def _before(exchange: Exchange) -> str | None:
    """The tenant that a caller chose when it opened its session."""
    session = exchange.client.session
    if session is None or session.version is None or session.caller.subject != exchange.caller.subject:
        return None
    return session.caller.tenant
