"""The stage `audit`: one entry for every request, whatever became of it, as safe as the options say."""

from __future__ import annotations

import errno
import json
import math
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from sluiceway.middlewares.audit.config import AuditConfig
from sluiceway.middlewares.audit.stage import Audit
from sluiceway.pipeline.model.component import Context, State
from sluiceway.pipeline.model.document import Limits
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.options import Duration, Secret, Size
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import (
    AuditUnavailable,
    ComponentError,
    ConnectFailed,
    DeadlineExceeded,
    Forbidden,
    GatewayError,
    RateLimited,
)
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.chain import Stage, compile_chain
from sluiceway.pipeline.runtime.deadlines import Deadlines
from sluiceway.pipeline.runtime.pipeline import Pipeline
from sluiceway.pipeline.telemetry import audit_file
from sluiceway.pipeline.telemetry.audit_reading import checkpoints_of, lines_of, verify_trail
from sluiceway.pipeline.testing import MODERN_CLIENT, legacy_client, memory_exchange

CALL = {"name": "pay", "arguments": {"amount": 5, "password": "canary-1", "card": {"number": "canary-2"}}}
OK = Result({"content": []})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def make(config: AuditConfig, **context: Any) -> Audit:
    return Audit(config, Context(id="audit", **context))


def entries_of(path: Path, name: str = "request") -> list[dict[str, Any]]:
    return [entry for entry in map(json.loads, lines_of(path)) if entry["event"] == name]


async def answer(_exchange: Exchange) -> Reply:
    await trio.lowlevel.checkpoint()
    return OK


def raising(error: Exception) -> Service:
    async def act(_exchange: Exchange) -> Reply:
        await trio.lowlevel.checkpoint()
        raise error

    return act


def logged(config: dict[str, Any] | None = None, **context: Any) -> Audit:
    """A stage whose entries are lines of the log: nothing of it needs threads or files."""
    return make(AuditConfig(to="log", **(config or {})), **context)


async def entry_of(stage: Audit, exchange: Exchange, inner: Service = answer) -> dict[str, Any]:
    """The one entry of an exchange, whatever becomes of it."""
    with capture_logs() as lines:
        stage.context.log = structlog.get_logger()
        with suppress(GatewayError, ValueError):
            await stage(exchange, inner)
    (entry,) = [line for line in lines if line["event"] == "audit"]
    return dict(entry)


# What an entry says.


async def test_an_entry_says_who_what_on_what_and_how_it_went(autojump_clock):
    """Everything that an auditor asks, and no secret."""

    async def inner(exchange: Exchange) -> Reply:
        exchange.authenticate(Caller("ana", tenant="acme", how="bearer", credential="c-1"))
        exchange.decide("auth", "allow", "key c-1")
        exchange.decide("limit", "allow")
        await trio.sleep(0.25)
        return OK

    exchange = memory_exchange("tools/call", CALL, request_id="r-7", source_id="public")
    exchange.correlation_id = "corr"
    entry = await entry_of(logged(), exchange, inner)

    assert entry == {
        "event": "audit",
        "log_level": "info",
        "record": "request",
        "operation": "tools/call",
        "resource": "pay",
        "correlation_id": "corr",
        "request_id": "r-7",
        "source": "public",
        "params": {"name": "pay", "arguments": {"amount": 5, "password": "***", "card": {"number": "canary-2"}}},
        "principal": "ana",
        "tenant": "acme",
        "how": "bearer",
        "credential": "c-1",
        "outcome": "ok",
        "decisions": ["auth: allow (key c-1)", "limit: allow"],
        "duration_ms": 250.0,
    }


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (answer, ("ok", None, None)),
        (raising(Forbidden("no")), ("refused", "forbidden", 403)),
        (raising(RateLimited("slow down")), ("refused", "rate_limited", 429)),
        (raising(ConnectFailed("down")), ("error", "connect_failed", 502)),
        (raising(DeadlineExceeded("late", timeout_s=1)), ("timed_out", "deadline_exceeded", 504)),
        (raising(ValueError("a bug")), ("error", "ValueError", None)),
    ],
)
async def test_the_outcome_of_what_is_raised(inner, expected):
    """Refused, failed, timed out: each is recorded as that, and goes on to its client."""
    entry = await entry_of(logged(), memory_exchange("tools/call", CALL), inner)

    assert (entry["outcome"], entry.get("reason"), entry.get("http_status")) == expected


async def test_the_outcome_of_what_is_returned():
    """An upstream's error has its code; a tool's own failure is another thing."""

    async def no(_exchange: Exchange) -> Reply:
        return ErrorReply(-32000, "no")

    async def failed(_exchange: Exchange) -> Reply:
        return Result({"content": [], "isError": True})

    refused = await entry_of(logged(), memory_exchange("tools/call", CALL), no)
    tool = await entry_of(logged(), memory_exchange("tools/call", CALL), failed)

    assert (refused["outcome"], refused["reason"]) == ("error", "-32000")
    assert (tool["outcome"], tool.get("reason")) == ("tool_error", None)


async def test_paths_keys_and_sizes_are_masked():
    """By place, by name, and by length."""
    exchange = memory_exchange("tools/call", CALL)
    masked = await entry_of(logged({"paths": ("arguments.card.n*",), "redact": ("amount",)}), exchange)
    short = await entry_of(logged({"max_params": Size(20)}), exchange)
    absent = await entry_of(logged({"params": "none"}), exchange)

    assert masked["params"]["arguments"] == {"amount": "***", "password": "***", "card": {"number": "***"}}
    assert short["params"].startswith("sha256:")
    assert "params" not in absent


async def test_items_of_lists_are_masked_by_their_place():
    """A star stands for any index."""
    exchange = memory_exchange("tools/call", {"name": "t", "arguments": {"rows": [{"iban": "x", "n": 1}, 2]}})
    entry = await entry_of(logged({"paths": ("arguments.rows.*.iban",)}), exchange)

    assert entry["params"]["arguments"] == {"rows": [{"iban": "***", "n": 1}, 2]}


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://ana:pw@h/x?api_key=s&q=1", "https://***@h/x?api_key=***&q=1"),
        ("file:///notes.md", "file:///notes.md"),
        ("db://t?%61ccess_token=s#f", "db://t?%61ccess_token=***#f"),
    ],
)
async def test_secrets_in_uris_are_masked(uri, shown):
    """Both where the uri is the resource and where it is a param."""
    entry = await entry_of(logged(), memory_exchange("resources/read", {"uri": uri}))

    assert (entry["resource"], entry["params"]["uri"]) == (shown, shown)


async def test_client_session_and_relayed_messages_are_named():
    """A session by a fingerprint: its id would let others take it over."""

    async def inner(exchange: Exchange) -> Reply:
        await exchange.relay(Notification("notifications/progress", {}))
        return OK

    client = legacy_client(session_id="canary-session")
    entry = await entry_of(logged({"result": "digest"}), memory_exchange("tools/list", client=client), inner)

    assert entry["session"].startswith("sha256:")
    assert entry["result"].startswith("sha256:")
    assert entry["relayed"] == 1
    assert "canary-session" not in str(entry)


async def test_notifications_of_clients_have_no_entry():
    """They are no requests."""
    stage = logged()
    with capture_logs() as lines:
        stage.context.log = structlog.get_logger()
        await stage(memory_exchange("notifications/roots/list_changed"), answer)

    assert lines == []


# Every request, in a pipeline.


@asynccontextmanager
async def serving(stage: Audit, sink: Service, **limits: Any) -> AsyncIterator[Pipeline]:
    chain = compile_chain([Stage("audit", stage)], sink)
    async with trio.open_nursery() as nursery:
        deadlines = Deadlines()
        nursery.start_soon(deadlines.serve)
        with capture_logs() as lines:
            stage.context.log = structlog.get_logger()
            pipeline = Pipeline("main", chain, Limits(**limits), deadlines)
            pipeline.lines = lines  # type: ignore[attr-defined]  # for the tests below
            yield pipeline
        nursery.cancel_scope.cancel()


async def _no_emit(_notification: Notification) -> None:
    """Nobody listens."""


def outcomes(pipeline: Any) -> list[tuple[str, str | None]]:
    return [(line["outcome"], line.get("reason")) for line in pipeline.lines if line["event"] == "audit"]


async def slow(_exchange: Exchange) -> Reply:
    await trio.sleep(60)
    return OK


async def test_cancelled_and_timed_out_requests_have_one_entry_with_the_cause(autojump_clock):
    """The client left, the gateway stopped, the deadline passed."""
    async with serving(logged(), slow, timeout=Duration(5.0)) as pipeline, trio.open_nursery() as nursery:
        for reason in ("client", "shutdown"):
            ticket = pipeline.handle(Request(1, "tools/call", CALL), client=MODERN_CLIENT, emit=_no_emit)
            nursery.start_soon(ticket.run)
            await wait_all_tasks_blocked()
            ticket.cancel(reason)  # type: ignore[arg-type]  # one of the two
            await wait_all_tasks_blocked()
        await pipeline.handle(Request(1, "tools/call", CALL), client=MODERN_CLIENT, emit=_no_emit).run()

        assert outcomes(pipeline) == [
            ("cancelled", "client"), ("cancelled", "shutdown"), ("timed_out", "deadline_exceeded"),
        ]  # fmt: skip


async def test_what_never_reaches_the_chain_is_recorded_too(autojump_clock):
    """No place free, no target, the gateway drains, the client left while it waited."""
    limits = {"timeout": Duration(600.0), "max_in_flight": 1, "max_waiting": 1}
    async with serving(logged(), slow, **limits) as pipeline, trio.open_nursery() as nursery:

        def send(params: Any = CALL) -> Any:
            return pipeline.handle(Request(1, "tools/call", params), client=MODERN_CLIENT, emit=_no_emit)

        nursery.start_soon(send().run)
        await wait_all_tasks_blocked()
        waiting = send()
        nursery.start_soon(waiting.run)
        await wait_all_tasks_blocked()
        await send().run()
        await send({}).run()
        waiting.cancel()
        await wait_all_tasks_blocked()
        pipeline.draining = True
        await send().run()
        await pipeline.handle(
            Notification("notifications/roots/list_changed"), client=MODERN_CLIENT, emit=_no_emit
        ).run()

        assert outcomes(pipeline) == [
            ("refused", "capacity_exceeded"), ("refused", "invalid_params"), ("cancelled", "client"),
            ("refused", "draining"),
        ]  # fmt: skip


# The trail.


@pytest.mark.parametrize("to", ["jsonl", "sqlite"])
async def test_a_trail_is_where_the_options_say(to, tmp_path):
    """A file or a database; opened and closed are recorded, and the chain is whole."""
    path = tmp_path / f"trail.{to}"
    stage = make(AuditConfig(path=path, to=to))
    for _ in range(2):
        async with stage.open():
            await stage(memory_exchange("tools/call", CALL), answer)
    verdict = verify_trail(path)

    assert [json.loads(line)["event"] for line in lines_of(path)] == ["opened", "request", "closed"] * 2
    assert (verdict.findings, verdict.checkpoints) == ([], 2)
    assert path.read_bytes()[:6] == (b"SQLite" if to == "sqlite" else b'{"seq"')
    assert "canary-1" not in path.read_bytes().decode("latin-1")


async def test_a_trail_in_the_log_has_no_path():
    """And nothing to open; a trail in a file needs one."""
    async with logged().open():
        pass
    with pytest.raises(ValueError, match="needs a path"):
        AuditConfig()
    with pytest.raises(ValueError, match="paths"):
        AuditConfig(to="log", paths=("a..b",))


async def test_checkpoints_are_signed_and_where_the_options_say(path, tmp_path, monkeypatch):
    """With checkpoint_key, the last record cannot be written anew; checkpoints may be elsewhere."""
    monkeypatch.setenv("AUDIT_KEY", "0123456789abcdef")
    elsewhere = tmp_path / "elsewhere"
    stage = make(AuditConfig(path=path, checkpoints=elsewhere, checkpoint_key=Secret(from_env="AUDIT_KEY")))
    async with stage.open():
        await stage(memory_exchange("tools/call", CALL), answer)

    assert not checkpoints_of(path).exists()
    assert verify_trail(path, elsewhere, b"0123456789abcdef").signed == 1
    assert verify_trail(path, elsewhere, b"another key of 16").findings != []

    for value, text in (("short", "fewer than 16"), (None, "not set")):
        monkeypatch.setenv("AUDIT_KEY", value) if value else monkeypatch.delenv("AUDIT_KEY")
        with pytest.raises(ComponentError, match=text):
            async with stage.open():
                pass


class Held:
    """Holds back what a trail does in its thread until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.gate = threading.Event()
        real = getattr(audit_file.AuditFile, name)

        def held(journal: Any, *args: Any) -> None:
            self.gate.wait(10)
            real(journal, *args)

        self._install: Callable[[], None] = lambda: monkeypatch.setattr(audit_file.AuditFile, name, held)

    def begin(self) -> None:
        self._install()


@pytest.mark.parametrize(
    ("sync", "held", "waits"),
    [
        ("always", "sync", True),
        ("always", "append", True),
        ("batch", "append", True),
        ("batch", "sync", False),
        ("never", "append", False),
    ],
)
async def test_a_reply_waits_for_what_sync_says(sync, held, waits, path, monkeypatch):
    """`always` for the disk, `batch` for the operating system, `never` for nothing."""
    gate = Held(monkeypatch, held)
    stage = make(AuditConfig(path=path, sync=sync))
    async with stage.open(), trio.open_nursery() as nursery:
        await stage(memory_exchange("tools/call", CALL), answer)
        writer = stage._writer
        assert writer is not None
        await _until(lambda: not writer.waiting)
        gate.begin()
        done = trio.Event()

        async def call() -> None:
            await stage(memory_exchange("tools/call", CALL), answer)
            done.set()

        nursery.start_soon(call)
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        if not waits:
            with trio.fail_after(5):
                await done.wait()
        was_done = done.is_set()
        gate.gate.set()

    assert was_done is not waits
    assert len(entries_of(path)) == 2


async def test_requests_wait_when_too_many_entries_do(path, monkeypatch):
    """With max_waiting entries in front of it, a request is not begun."""
    gate = Held(monkeypatch, "append")
    stage = make(AuditConfig(path=path, sync="never", max_waiting=3))
    begun = []

    async def inner(exchange: Exchange) -> Reply:
        begun.append(exchange)
        return OK

    async with stage.open(), trio.open_nursery() as nursery:
        writer = stage._writer
        assert writer is not None
        await _until(lambda: not writer.waiting)
        gate.begin()
        for _ in range(5):
            nursery.start_soon(stage, memory_exchange("tools/call", CALL), inner)
            await trio.sleep(0.005)

        assert (len(begun), writer.waiting) == (3, 3)
        gate.gate.set()

    assert len(begun) == 5
    assert len(entries_of(path)) == 5


async def _until(what: Callable[[], Any]) -> None:
    with trio.fail_after(10):
        while not what():  # noqa: ASYNC110  # a thread does it
            await trio.sleep(0.001)


@pytest.mark.parametrize("on_failure", ["closed", "open"])
async def test_calls_are_refused_or_served_while_nothing_can_be_recorded(on_failure, path, monkeypatch):
    """on_failure decides; status says degraded; when the disk is back, so is the trail, with what was lost."""
    states: list[tuple[State, str]] = []
    stage = make(
        AuditConfig(path=path, on_failure=on_failure), report=lambda state, reason: states.append((state, reason))
    )

    async def call() -> Any:
        try:
            return await stage(memory_exchange("tools/call", CALL), answer)
        except AuditUnavailable as error:
            return error.message

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("sluiceway.middlewares.audit.writer.REOPEN_S", 0.05)
    async with stage.open():
        writer = stage._writer
        assert writer is not None
        await _until(lambda: not writer.waiting)
        with monkeypatch.context() as disk:
            disk.setattr(audit_file, "write_all", full)
            first, second = await call(), await call()
            assert [figure.value for figure in stage.figures() if figure.name == "audit_failed"] == [1.0]
            assert "no space" in str(stage.details()["failure"])
        await _until(lambda: not writer.failure)
        third = await call()

    if on_failure == "closed":
        assert "may have run" in first
        assert "nothing is served" in second
    else:
        assert (first, second) == (OK, OK)
    assert third == OK
    assert [state for state, _ in states] == [State.DEGRADED, State.READY]
    assert len(entries_of(path)) == 1
    assert entries_of(path, "opened")[1]["lost"] == (1 if on_failure == "closed" else 2)
    assert verify_trail(path).findings == []


async def test_a_disk_that_fails_to_sync_ends_the_acknowledging(path, monkeypatch):
    """Nothing is said to be safe that may not be."""

    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    stage = make(AuditConfig(path=path, sync="always"))
    async with stage.open():
        await stage(memory_exchange("tools/call", CALL), answer)
        with monkeypatch.context() as disk:
            disk.setattr(audit_file.os, "fdatasync", broken)
            with pytest.raises(AuditUnavailable):
                await stage(memory_exchange("tools/call", CALL), answer)


async def test_a_refusal_waits_for_its_record_too(path):
    """It is on its way to the client only when it is recorded; what was raised stays what it was."""
    stage = make(AuditConfig(path=path, sync="always"))
    async with stage.open():
        for _ in range(3):
            with pytest.raises(Forbidden):
                await stage(memory_exchange("tools/call", CALL), raising(Forbidden("no")))
            assert entries_of(path)[-1]["outcome"] == "refused"

    assert len(entries_of(path)) == 3


async def test_a_request_cancelled_at_any_moment_has_exactly_one_entry(path):
    """Before the call, in it, or while its record is written: neither none nor two."""
    stage = make(AuditConfig(path=path))

    async def inner(_exchange: Exchange) -> Reply:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        return OK

    async def cancelled_after(steps: int) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                exchange = memory_exchange("tools/call", {"name": str(steps)})
                exchange.link.cancelled = "client"
                nursery.start_soon(stage, exchange, inner)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

    async with stage.open():
        for steps in range(40):
            await cancelled_after(steps)
    recorded = [entry["resource"] for entry in entries_of(path)]

    assert sorted(recorded) == sorted(set(recorded))
    assert {str(steps) for steps in range(1, 40)} <= set(recorded)
    assert {entry["outcome"] for entry in entries_of(path)} == {"ok", "cancelled"}


async def test_files_are_put_aside_and_removed_as_the_options_say(path):
    """max_file_size, max_file_age, keep_files and keep_for reach the trail."""

    def files(**options: Any) -> int:
        return len(list(path.parent.glob("audit.jsonl.0*")))

    async def live(**options: Any) -> int:
        for file in path.parent.iterdir():
            file.unlink()
        stage = make(AuditConfig(path=path, **options))
        async with stage.open():
            for _ in range(12):
                await stage(memory_exchange("tools/call", CALL), answer)
        assert verify_trail(path).findings == []
        return files()

    assert await live() == 0
    assert await live(max_file_size=Size(1024)) > 2
    assert await live(max_file_size=Size(1024), keep_files=1) == 1
    assert await live(max_file_age=Duration(1e-6)) > 5
    assert await live(max_file_age=Duration(1e-6), keep_for=Duration(1e-6)) < 3


async def test_two_generations_write_one_trail(path):
    """As during a reload: the new one opens before the old one closes."""
    old, new = make(AuditConfig(path=path)), make(AuditConfig(path=path))
    async with old.open():
        await old(memory_exchange("tools/call", CALL), answer)
        async with new.open():
            for stage in (old, new, old, new):
                await stage(memory_exchange("tools/call", CALL), answer)

    assert verify_trail(path).findings == []
    assert len(entries_of(path)) == 5


async def test_sessions_have_an_entry_at_each_end(path):
    """Who began it, with which program; its end once, whichever generation saw it last."""
    client = legacy_client(session_id="canary-session")
    assert client.session is not None
    client.session.version = None  # before its handshake
    hello = {"clientInfo": {"name": "inspector", "version": "1"}}
    old, new = make(AuditConfig(path=path)), make(AuditConfig(path=path))

    async def inner(exchange: Exchange) -> Reply:
        exchange.authenticate(Caller("ana", tenant="acme"))
        return OK

    async with old.open():
        await old(memory_exchange("initialize", hello, client=client), inner)
        async with new.open():
            await new(memory_exchange("tools/list", client=client), inner)
            client.session.close()
    (start,), (end,) = entries_of(path, "session_start"), entries_of(path, "session_end")

    assert (start["principal"], start["tenant"], start["client_info"]) == ("ana", "acme", hello["clientInfo"])
    assert end["session"] == start["session"]
    assert "canary-session" not in path.read_text()


async def test_a_handshake_that_fails_begins_no_session(path):
    """And what a closed stage knew of sessions is forgotten."""
    client = legacy_client()
    assert client.session is not None
    stage = make(AuditConfig(path=path))

    async def no(_exchange: Exchange) -> Reply:
        return ErrorReply(-32600, "no")

    async with stage.open():
        await stage(memory_exchange("initialize", {}, client=client), no)
        await stage(memory_exchange("tools/list", client=client), answer)
    client.session.close()

    assert entries_of(path, "session_start") == []
    assert entries_of(path, "session_end") == []


# Asking.


async def test_the_running_trail_can_be_asked_and_checked(path):
    """By every filter alone and combined, newest last; and verified."""
    stage = make(AuditConfig(path=path))
    async with stage.open():
        for subject, tool in (("ana", "pay"), ("bob", "pay"), ("ana", "list")):
            caller = Caller(subject, tenant=f"t-{subject}")
            await stage(memory_exchange("tools/call", {"name": tool}, caller=caller), answer)
        found: Any = await stage.act("query", {"principal": "ana", "resource": "p*", "since": "1h"})
        tenants: Any = await stage.act("query", {"tenant": "t-bob"})
        latest: Any = await stage.act("query", {"operation": "tools/*", "limit": 1})
        none = await stage.act("query", {"until": "1h"})
        verdict: Any = await stage.act("verify", {})
        with pytest.raises(LookupError):
            await stage.act("dance", {})
        for wrong in ({"limit": 0}, {"colour": "red"}, {"since": "yesterday"}, {"principal": 7}, {"since": 3}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                await stage.act("query", wrong)
        path.unlink()
        with pytest.raises(ComponentError):
            await stage.act("query", {})

    assert [entry["resource"] for entry in found] == ["pay"]
    assert [entry["principal"] for entry in tenants] == ["bob"]
    assert [entry["resource"] for entry in latest] == ["list"]
    assert none == []
    assert (verdict["valid"], verdict["records"]) == (True, 4)


async def test_a_trail_in_the_log_cannot_be_asked():
    """It is read where the log is."""
    with pytest.raises(ValueError, match="log"):
        await logged().act("query", {})
    assert list(logged().figures()) == []
    assert logged().details() == {"to": "log"}


def test_the_date_of_a_mock_clock_is_no_date():
    """Entries are dated by the context's date, not by the clock that measures durations."""

    async def main() -> dict[str, Any]:
        trail: list[Any] = []
        stage = make(AuditConfig(to="log"), now=lambda: 0.0)
        with capture_logs() as lines:
            stage.context.log = structlog.get_logger()
            await stage(memory_exchange("tools/call", CALL), answer)
            trail.extend(lines)
        return dict(trail[0])

    entry = trio.run(main, clock=MockClock(autojump_threshold=math.inf))

    assert entry["duration_ms"] == 0.0
