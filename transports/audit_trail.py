"""
Sink `audit_trail`: a trail of the stage `audit` as resources, for those who may read it.

    audit://entries                                        the latest entries
    audit://entries{?principal,operation,...,before}       those that fit, page by page
    audit://entries/{number}                               one of them

An MCP server of the kit, in front of files that the stage writes: it changes nothing, and can stand in a gateway of its
own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, final
from urllib.parse import quote

import trio
from attrs import evolve, frozen

from sluiceway.pipeline.model.component import Context, Sink, sink
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.options import ConfigPath, option
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.messages import Json, Reply
from sluiceway.pipeline.telemetry.audit_pages import NEWEST, Page, read_page
from sluiceway.pipeline.telemetry.audit_reading import MAX_ROWS, Query, parse_query

from .embedded import Context as Request
from .embedded import Denied, InternalError, InvalidParams, NotFound, Server
from .embedded.sink import EmbeddedSink

ENTRIES: Final = "audit://entries"
FILTERED: Final = ENTRIES + "{?principal,operation,resource,outcome,event,since,until,limit,before}"
ENTRY: Final = ENTRIES + "/{number}"
OUTCOMES: Final = ("ok", "tool_error", "error", "refused", "cancelled", "timed_out")
EVENTS: Final = ("request", "session_start", "session_end", "opened", "closed", "recovered", "retired")
MAX_READERS: Final = 2
"""Reads at the same time; others wait. Each takes a thread, and the processor for some milliseconds."""
_HIDDEN: Final = frozenset({"prev", "hash"})
"""What links records; of use only with all of them."""
_JSON: Final = "application/json"
_WHOLE: Final = Query({})


@final
@sink("audit_trail")
class AuditTrail(Sink):
    """
    Shows an audit trail as resources: `audit://entries`, with filters `audit://entries?principal=ana&since=1h`, and one
    entry as `audit://entries/17`.

    * A reader needs one of `roles` or `scopes`. Others are refused, and that is a security event.
    * Everybody sees entries of their own tenant only; who has no tenant, those that belong to none. The admin listener
      shows all of them.
    * A page has the latest entries first, and in `next` the uri to go on with. A page can be empty and have one: no
      read looks at more than 20,000 records.
    * Entries are as the stage wrote them: masked, and without what links them to each other.
    """

    in_process = True

    @frozen(kw_only=True)
    class Config:
        """Options of `audit_trail`."""

        path: ConfigPath = option(doc="The trail: `path` of the stage `audit`.", example="./audit.jsonl")
        roles: tuple[str, ...] = option((), doc="Roles of which a reader needs one.", example=["auditor"])
        scopes: tuple[str, ...] = option((), doc="Scopes of which one will do as well.", example=["audit:read"])
        page_size: int = option(100, ge=1, le=MAX_ROWS, doc="Entries of one read at most.")

        def __attrs_post_init__(self) -> None:
            if not (self.roles or self.scopes):
                raise ValueError("roles, scopes: name at least one, or nobody can read the trail")

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._config = config
        self._readers = trio.Semaphore(MAX_READERS)
        self._server = EmbeddedSink.serving(
            self._describe(), context, expose=("resources", "completions"), page_size=config.page_size
        )

    @classmethod
    def remarks(cls, config: Config) -> Iterable[str]:
        """Who may read."""
        yield f"readers need one of: {', '.join((*config.roles, *config.scopes))}"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Ready at once; the trail is opened for each read, for the stage may yet have to make it."""
        async with self._server.open():
            yield

    async def __call__(self, exchange: Exchange) -> Reply:
        """
        Answer one exchange.

        Raises:
            Forbidden: The caller may not read the trail.
            InternalError: It cannot be read; the log says why.
        """
        return await self._server(exchange)

    def _describe(self) -> Server:
        server = Server(
            "sluiceway-audit", version="1.0.0", title="Audit trail",
            instructions="Read audit://entries for what was asked of this gateway lately, and by whom.",
        )  # fmt: skip

        @server.resource(ENTRIES, name="entries", title="Latest entries", mime_type=_JSON)
        async def latest(ctx: Request) -> dict[str, Json]:
            """The latest entries of the audit trail, newest first."""
            return await self._page(ctx, {})

        @server.resource(FILTERED, name="filtered", title="Entries by principal, operation, time", mime_type=_JSON)
        async def filtered(
            ctx: Request,
            principal: str | None = None,
            operation: str | None = None,
            resource: str | None = None,
            outcome: str | None = None,
            event: str | None = None,
            since: str | None = None,
            until: str | None = None,
            limit: str | None = None,
            before: int | None = None,
        ) -> dict[str, Json]:
            """
            Entries that fit all filters given, newest first. Filters are globs; since and until are dates such as
            2027-01-31T00:00:00Z, or times before now such as 1h.
            """
            given = {
                "principal": principal, "operation": operation, "resource": resource, "outcome": outcome,
                "event": event, "since": since, "until": until, "limit": limit,
            }  # fmt: skip
            return await self._page(ctx, {k: v for k, v in given.items() if v is not None}, before)

        @server.resource(ENTRY, name="entry", title="One entry", mime_type=_JSON)
        async def entry(ctx: Request, number: int) -> dict[str, Json]:
            """The entry of this number (`seq`)."""
            page = await self._read(ctx, evolve(_WHOLE, limit=1), number + 1, 1)
            if not page.entries or page.entries[0]["seq"] != number:
                raise NotFound(f"no entry {number} that you may read")
            return _shown(page.entries[0])

        @server.completion(FILTERED, "outcome")
        def outcomes(value: str) -> list[str]:
            """How a request can have ended."""
            return [each for each in OUTCOMES if each.startswith(value)]

        @server.completion(FILTERED, "event")
        def events(value: str) -> list[str]:
            """What an entry can be about."""
            return [each for each in EVENTS if each.startswith(value)]

        return server

    async def _page(self, ctx: Request, given: Mapping[str, str], before: int | None = None) -> dict[str, Json]:
        try:
            query = parse_query({"limit": self._config.page_size, **given}, self.context.now())
        except ValueError as error:
            raise InvalidParams(str(error)) from error
        query = evolve(query, limit=min(query.limit, self._config.page_size))
        page = await self._read(ctx, query, NEWEST if before is None else before)
        shown: dict[str, Json] = {"entries": [_shown(each) for each in page.entries]}
        if page.before is not None:
            filters = [f"{name}={quote(value, safe='')}" for name, value in given.items()]
            shown["next"] = f"{ENTRIES}?{'&'.join([*filters, f'before={page.before}'])}"
        return shown

    async def _read(self, ctx: Request, query: Query, before: int, max_records: int | None = None) -> Page:
        self._check(ctx.caller)
        tenant = ctx.caller.tenant
        bound: dict[str, Any] = {} if max_records is None else {"max_records": max_records}
        read = partial(
            read_page,
            self._config.path,
            query,
            lambda entry: entry.get("tenant") == tenant,
            before=min(before, NEWEST),
            **bound,
        )
        try:
            async with self._readers:
                return await trio.to_thread.run_sync(read, abandon_on_cancel=True)
        except OSError as error:
            raise InternalError(f"the audit trail cannot be read: {error}") from error

    def _check(self, caller: Caller) -> None:
        config = self._config
        if caller.roles.isdisjoint(config.roles) and caller.scopes.isdisjoint(config.scopes):
            raise Denied("the audit trail is for auditors; ask for one of its roles or scopes")


def _shown(entry: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in entry.items() if name not in _HIDDEN}
