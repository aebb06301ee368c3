"""`audit`: one entry for every request, whatever became of it, in a trail that shows when somebody changed it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, final

import trio
from attrs import evolve

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.errors import AuditUnavailable, ComponentError, GatewayError
from sluiceway.pipeline.protocol.mcp import Kind
from sluiceway.pipeline.protocol.messages import Json, Reply, Result
from sluiceway.pipeline.runtime.nursery import farewell
from sluiceway.pipeline.telemetry.audit_chain import encode_entry
from sluiceway.pipeline.telemetry.audit_journal import Checkpoints, Journal, Keeping, stamp
from sluiceway.pipeline.telemetry.audit_reading import checkpoints_of, lines_of, parse_query, verify_trail
from sluiceway.pipeline.telemetry.outcomes import End, Outcome, end_of

from .config import AuditConfig
from .entries import Describer, Showing, session_name
from .writer import Batch, Writer, open_writer

LAST_WORD_S: Final = 1.0
"""Seconds that the record of an exchange which failed or was cancelled may hold up its end."""
MIN_KEY_CHARS: Final = 16


@final
@middleware("audit")
class Audit(Middleware):
    """
    Record who asked for what, and how it ended: exactly one entry for each request, also for those that were refused,
    cancelled or timed out, and for those that found no place in the pipeline. Sessions have one at each end.

    * An entry has date, number, principal and how it proved itself, source and address, operation, resource, redacted
      params, outcome (`ok`, `tool_error`, `error`, `refused`, `cancelled`, `timed_out`), its reason, duration, and what
      the stages decided. Results are not recorded.
    * A reply is released when its record is as safe as `sync` says. The call itself is not undone if its record cannot
      be written: with `on_failure: closed` its client is told that it may have run.
    * Records are a chain of hashes, with checkpoints in a file of their own: `sluiceway audit verify` finds any record
      that was changed, removed, added or moved. `sluiceway audit query` asks the trail, and so does the action `query`.
    * Several workers, and two generations during a reload, may write to one trail.

    It stands in front of everything that may refuse, and knows nonetheless who the caller turned out to be.
    Notifications of clients have no entry.
    """

    reads_results = False
    Config = AuditConfig
    role = "audit"
    order = (
        Order("after", "request_id", "warning", "entries made in front of request_id carry no correlation id"),
        Order("after", "trace", "info", "entries made in front of trace carry no trace id"),
        *(
            Order("before", role, "warning", f"what {role} refuses in front of it is not recorded")
            for role in (
                "headers", "auth", "tenant", "access", "pin", "validate", "rate_limit", "load_shed",
                "concurrency_limit",
            )
        ),
        *(
            Order("before", role, "warning", f"requests that {role} answers itself would not be recorded")
            for role in ("dedup", "cache", "fallback")
        ),
        Order("before", "retry", "warning", "every attempt would be recorded as a request"),
        Order("before", "hedge", "warning", "every attempt would be recorded as a request"),
    )  # fmt: skip
    actions: ClassVar[Mapping[str, str]] = {
        "query": "The latest entries; filters: principal, operation, resource, outcome, tenant, event (globs), since, "
        "until, limit.",
        "verify": "Check the whole trail against its chain and its checkpoints.",
    }

    def __init__(self, config: AuditConfig, context: Context) -> None:
        super().__init__(config, context)
        self._config = config
        self._describer = Describer(
            Showing(config.params, config.redact, config.paths, config.max_params, config.result)
        )
        self._key: bytes | None = None
        self._writer: Writer | None = None
        self._sessions: dict[str, Callable[[], None]] = {}
        self._refused = 0
        self._clock = trio.current_time

    @classmethod
    def secluded(cls, config: Any) -> Any:
        """Into the log, which nobody keeps then."""
        return evolve(config, to="log")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Open the trail and repair what a crash left at its end.

        Raises:
            ComponentError: The trail cannot be opened, or the key cannot be read or is too short.
        """
        self._clock = trio.lowlevel.current_clock().current_time  # takes half the time of `trio.current_time`
        if self._config.to == "log":
            try:
                yield
            finally:
                self._forget_sessions()
            return
        try:
            self._key = self._resolve_key()
            async with open_writer(
                self._journal(),
                self.context,
                sync=self._config.sync,
                max_waiting=self._config.max_waiting,
                tell=self._forget_sessions,
            ) as writer:
                self._writer = writer
                yield
        except OSError as error:
            raise ComponentError(self.context.id, "open", f"the audit trail cannot be opened: {error}") from error
        finally:
            self._writer = None

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """
        Record around the inner chain.

        Raises:
            AuditUnavailable: Nothing can be recorded, and `on_failure` is `closed`.
        """
        if exchange.kind is Kind.NOTIFY:
            return await call_next(exchange)
        writer = self._writer
        if writer is not None and (writer.failure or writer.waiting >= self._config.max_waiting):
            await self._wait_for_room(writer)
        session = exchange.client.session
        if session is not None and session.id not in self._sessions and exchange.method != "initialize":
            self._follow(session, {"session": session_name(session.id), "source": exchange.source})
        if self._config.result != "none":
            exchange.hold()
        entry = self._describer.describe(exchange)
        start = self._clock()
        answered: Reply | None = None
        try:
            reply = answered = await call_next(exchange)
        finally:
            error = sys.exception() if answered is None else None
            batch = self._record(entry, exchange, answered, end_of(exchange, answered, error), start, error)
            error = None  # its frames hold this one: a cycle, for the collector to find
            if answered is None and writer is not None and exchange.link.cancelled != "client":
                with farewell(LAST_WORD_S):  # somebody is told how it ended, and not before that is recorded
                    await writer.is_safe(batch)  # noqa: ASYNC102  # farewell is a bounded shield
        if writer is not None and not await writer.is_safe(batch) and self._config.on_failure == "closed":
            raise AuditUnavailable("the call could not be recorded in the audit trail; it may have run")
        if session is not None and exchange.method == "initialize":
            self._begin(session, exchange, reply)
        return reply

    def turned_away(self, exchange: Exchange, error: GatewayError | None) -> None:
        """Record what found no place in the pipeline."""
        if exchange.kind is not Kind.NOTIFY:
            end = End(Outcome.CANCELLED) if error is None else end_of(exchange, None, error)
            self._record(self._describer.describe(exchange), exchange, None, end, self._clock(), error)

    def figures(self) -> Iterator[Figure]:
        """What was recorded and what was not."""
        writer = self._writer
        if writer is not None:
            yield Figure("audit_records_total", writer.written, "counter", "Records written to the audit trail.")
            yield Figure("audit_lost_total", writer.lost, "counter", "Audit entries that could not be written.")
            yield Figure("audit_waiting", writer.waiting, "gauge", "Audit entries that wait to be written.")
            yield Figure("audit_failed", float(bool(writer.failure)), "gauge", "1 while nothing can be recorded.")
            yield Figure("audit_refused_total", self._refused, "counter", "Calls refused because of that.")

    def details(self) -> Mapping[str, Json]:
        """Where the trail is, and whether it is written."""
        writer = self._writer
        if writer is None:
            return {"to": "log"}
        return {"path": str(self._config.path), "written": writer.written, "failure": writer.failure or None}

    async def act(self, action: str, arguments: Mapping[str, Json]) -> Json:
        """See `actions`."""
        if action not in self.actions:
            return await super().act(action, arguments)
        path = self._config.path
        if path is None or self._config.to == "log":
            raise ValueError("this trail is the gateway's log; read it there")
        try:
            if action == "verify":
                verdict = await trio.to_thread.run_sync(
                    partial(verify_trail, path, self._config.checkpoints, self._key), abandon_on_cancel=True
                )
                return dict(verdict.as_json())
            query = parse_query(arguments, self.context.now())
            return list(await trio.to_thread.run_sync(lambda: query.run(lines_of(path)), abandon_on_cancel=True))
        except OSError as error:
            raise ComponentError(self.context.id, "run", f"the audit trail cannot be read: {error}") from error

    # Opening.

    def _resolve_key(self) -> bytes | None:
        secret = self._config.checkpoint_key
        if secret is None:
            return None
        try:
            key = secret.resolve()
        except LookupError as error:
            raise ComponentError(self.context.id, "open", f"checkpoint_key: {error}") from error
        if len(key) < MIN_KEY_CHARS:
            text = f"checkpoint_key has fewer than {MIN_KEY_CHARS} characters; one is made by: openssl rand -hex 32"
            raise ComponentError(self.context.id, "open", text)
        return key.encode()

    def _journal(self) -> Journal:
        config, now = self._config, self.context.now
        assert config.path is not None
        keeping = Keeping(config.max_file_size, config.max_file_age, config.keep_files, config.keep_for)
        where: Path = checkpoints_of(config.path) if config.checkpoints is None else config.checkpoints
        checkpoints = Checkpoints(where, self._key, now, self._tell)
        if config.to == "sqlite":
            from sluiceway.pipeline.telemetry.audit_sqlite import AuditDatabase  # a driver, for who has a database

            return AuditDatabase(config.path, keeping, checkpoints, now, durable=config.sync == "always")
        from sluiceway.pipeline.telemetry.audit_file import AuditFile

        return AuditFile(config.path, keeping, checkpoints, now, durable=config.sync != "never")

    def _tell(self, fields: Mapping[str, Json]) -> None:
        """In the writer's thread: a copy of each checkpoint goes where the log goes."""
        self.context.log.info("audit checkpoint", **fields)

    # Exchanges.

    async def _wait_for_room(self, writer: Writer) -> None:
        if not writer.failure:
            await writer.make_room()
        if writer.failure and self._config.on_failure == "closed":
            self._refused += 1
            raise AuditUnavailable("nothing can be recorded in the audit trail now, so nothing is served; try later")

    def _record(
        self,
        entry: dict[str, Json],
        exchange: Exchange,
        reply: Reply | None,
        end: End,
        start: float,
        error: BaseException | None,
    ) -> Batch | None:
        """Finish an entry and hand it over; None if it goes to the log, or is lost."""
        self._describer.conclude(entry, exchange, reply, end)
        if isinstance(error, GatewayError):
            entry["http_status"] = error.http_status
        entry["duration_ms"] = int((self._clock() - start) * 1e6 + 0.5) / 1000  # a third of what `round` takes
        return self._hand_over(entry)

    def _hand_over(self, entry: dict[str, Json]) -> Batch | None:
        """Have an entry written that begins with an empty `at`, and its `event`; it is not to be used any more."""
        writer = self._writer
        if writer is not None:
            entry["at"] = stamp(self.context.now())
            return writer.put(encode_entry(entry))
        if self._config.to == "log":
            del entry["at"]
            event = entry.pop("event")  # which is the name of the line itself
            self.context.log.info("audit", record=event, **entry)
        else:
            self.context.log.error("audit entry lost", reason="the trail is closed")
        return None

    # Sessions.

    def _begin(self, session: Session, exchange: Exchange, reply: Reply) -> None:
        """Record that a session began, and have its end recorded."""
        if not isinstance(reply, Result) or session.id in self._sessions:
            return
        caller, client = exchange.link.caller, exchange.client
        about: dict[str, Any] = {
            "session": session_name(session.id),
            "principal": caller.subject,
            "tenant": caller.tenant,
            "source": exchange.source,
            "address": client.address,
        }
        about = {name: value for name, value in about.items() if value is not None}
        info = exchange.request.params.get("clientInfo")
        self._hand_over({"at": "", "event": "session_start", **about, "client_info": self._describer.bounded(info)})
        self._follow(session, about)

    def _follow(self, session: Session, about: Mapping[str, Json]) -> None:
        """Have the end of a session recorded; by the latest stage of this id that saw it, if there are generations."""
        session.state[self.context.id] = self

        def ended() -> None:
            self._sessions.pop(session.id, None)
            if session.state.get(self.context.id) is self:
                self._hand_over({"at": "", "event": "session_end", **about})

        self._sessions[session.id] = session.on_close(ended)
        if session.closed:
            del self._sessions[session.id]

    def _forget_sessions(self) -> None:
        """Their ends are another generation's to record, or nobody's."""
        while self._sessions:
            self._sessions.popitem()[1]()
