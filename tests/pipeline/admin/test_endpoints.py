"""What the admin listener shows and does of a running gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
import trio
from msgspec.structs import replace
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from structlog.testing import capture_logs

from sluiceway.middlewares.audit.stage import Audit
from sluiceway.middlewares.metrics import Metrics
from sluiceway.middlewares.trace import Trace
from sluiceway.pipeline.admin import serve_admin
from sluiceway.pipeline.model.component import Middleware, middleware
from sluiceway.pipeline.model.document import Admin
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import Secret
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.errors import UpstreamClosed
from sluiceway.pipeline.runtime.nursery import unwrap_single
from sluiceway.pipeline.testing import FakeSink, PipelineHarness

TOKEN = {"authorization": "Bearer s3cret"}


@middleware("obedient")
class Obedient(Middleware):
    """Does what it is told."""

    actions = {"echo": "Say it again.", "break": "Fail."}  # a constant of the class

    def details(self) -> Any:
        """Something to see."""
        return {"mood": "good"}

    def figures(self) -> Any:
        """Something to count."""
        yield Figure("echoes_total", 2, "counter", "Echoes.", {"loud": "yes"})

    async def act(self, action: str, arguments: Any) -> Any:
        """Echo."""
        if action == "break":
            raise UpstreamClosed("it broke")
        if action != "echo":
            return await super().act(action, arguments)
        if "text" not in arguments:
            raise ValueError("text: what to say")
        return arguments


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listener's secret."""
    monkeypatch.setenv("ADMIN_TOKEN", "s3cret")


@asynccontextmanager
async def admin_of(*stages: Any, sink: Any = None, headers: Any = TOKEN) -> AsyncIterator[Any]:
    """A gateway in this process, and a client of its admin listener."""
    admin = Admin(bind="127.0.0.1:0", token=Secret(from_env="ADMIN_TOKEN"))
    async with PipelineHarness.from_stages(list(stages), sink=sink or FakeSink.echo()) as gateway:
        with unwrap_single():
            async with trio.open_nursery() as nursery:
                (bound,) = await nursery.start(serve_admin, admin, gateway.engine.status, gateway.engine)
                async with httpx2.AsyncClient(base_url=f"http://{bound}", headers=headers, trust_env=False) as client:
                    yield gateway, client
                nursery.cancel_scope.cancel()


async def test_metrics_are_served_in_both_formats():
    """Everything in one scrape, that a strict parser takes; an exemplar leads to the trace."""
    async with admin_of(Trace, Metrics, Obedient) as (gateway, client):
        await gateway.call("tools/call", name="echo")
        text = await client.get("/metrics")
        strict = await client.get("/-/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
        spans = (await client.get("/-/traces")).json()["spans"]

    names = {family.name for family in parse_text(text.text)}
    assert text.headers["content-type"].startswith("text/plain")
    assert names >= {
        "mcp_requests", "mcp_request_duration_seconds", "mcp_tool_executions", "mcp_requests_in_flight",
        "mcp_tools_call_duration_seconds", "sluiceway_echoes", "sluiceway_component_state",
        "sluiceway_pipeline_exchanges", "process_resident_memory_bytes", "process_open_fds", "sluiceway_trio_tasks",
        "sluiceway_trace_spans",
    }  # fmt: skip
    families = {family.name: family for family in parse_openmetrics(strict.text)}
    buckets = families["mcp_request_duration_seconds"].samples
    assert {sample.exemplar.labels["trace_id"] for sample in buckets if sample.exemplar} == {spans[0]["trace_id"]}


@pytest.mark.parametrize(
    "path", ["/metrics", "/-/metrics", "/-/traces", "/-/audit", "/-/alerts", "/-/components/sinks.sink"]
)
async def test_everything_needs_the_token(path):
    """Also what is only read."""
    async with admin_of(headers={}) as (_, client):
        assert (await client.get(path)).status_code == 401


async def test_traces_are_shown_latest_first():
    """All of one trace, or as many as are wanted; without arguments of calls."""
    async with admin_of(Trace) as (gateway, client):
        await gateway.call("tools/call", name="one", arguments={"password": "hunter2"})
        await gateway.call("tools/call", name="two")
        response = await client.get("/-/traces")
        everything = response.json()["spans"]
        one = (await client.get("/-/traces", params={"trace": everything[-1]["trace_id"]})).json()["spans"]
        latest = (await client.get("/-/traces", params={"limit": "1"})).json()["spans"]
        odd = (await client.get("/-/traces", params={"limit": "-1"})).json()["spans"]

    assert sorted(span["name"] for span in everything) == ["tools/call one"] * 2 + ["tools/call two"] * 2
    starts = [span["start_ns"] for span in everything]
    assert starts == sorted(starts, reverse=True)
    assert {span["name"] for span in one} == {"tools/call one"}
    assert (latest, odd) == (everything[:1], everything)
    assert "hunter2" not in response.text


async def test_a_component_is_shown_with_what_it_can_do():
    """Its state, details and figures beside."""
    async with admin_of(Obedient) as (_, client):
        shown = (await client.get("/-/components/pipelines.main.obedient")).json()
        missing = await client.get("/-/components/nobody")

    assert shown == {
        "id": "pipelines.main.obedient",
        "kind": "middleware",
        "state": "ready",
        "reason": "",
        "required": True,
        "details": {"mood": "good"},
        "actions": {"echo": "Say it again.", "break": "Fail."},
        "figures": [{"name": "echoes_total", "value": 2, "labels": {"loud": "yes"}}],
    }
    assert (missing.status_code, missing.json()) == (404, {"error": "no component 'nobody'"})


async def test_a_component_that_is_not_open_is_shown_and_does_nothing():
    """While it is reopened, say."""
    async with admin_of(Obedient) as (gateway, client):
        host = gateway.engine._generation.stages["pipelines.main.obedient"]
        host.is_open = False
        shown = (await client.get("/-/components/pipelines.main.obedient")).json()
        refused = await client.post("/-/components/pipelines.main.obedient/echo", json={"text": "a"})
        host.is_open = True

    assert (shown["actions"], shown["figures"]) == ({}, [])
    assert refused.status_code == 409
    assert "not open" in refused.json()["error"]


async def test_an_operator_can_have_a_component_act():
    """The log says that it happened, and not with what."""
    path = "/-/components/pipelines.main.obedient/echo"
    async with admin_of(Obedient) as (_, client):
        with capture_logs() as logs:
            done = await client.post(path, json={"text": "s3cret-text"})

    assert (done.status_code, done.json()) == (200, {"result": {"text": "s3cret-text"}})
    assert [line for line in logs if line["event"] == "operator acted"] == [
        {"event": "operator acted", "log_level": "info", "component": "pipelines.main.obedient", "action": "echo"}
    ]


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("nobody/echo", b"{}", 404, "no component 'nobody'"),
        ("pipelines.main.obedient/dance", b"{}", 404, "has no action 'dance'; it has: echo, break"),
        ("pipelines.main.obedient/echo", b"", 400, "text: what to say"),
        ("pipelines.main.obedient/echo", b"[]", 400, "must be a JSON object"),
        ("pipelines.main.obedient/echo", b"{", 400, "must be a JSON object"),
        ("pipelines.main.obedient/echo", b'{"text":1,"text":2}', 400, "must be a JSON object"),
        ("pipelines.main.obedient/echo", b'{"text":"' + b"x" * 70_000 + b'"}', 400, "larger than 65536 bytes"),
        ("pipelines.main.obedient/break", b"{}", 502, "it broke"),
    ],
)
async def test_what_cannot_be_done_is_said(path, body, status, text):
    """Unknown, wrong, too large, or failed."""
    async with admin_of(Obedient) as (_, client):
        response = await client.post(f"/-/components/{path}", content=body)

    assert response.status_code == status
    assert text in response.json()["error"]


async def test_only_a_post_acts():
    """A link in a page cannot."""
    async with admin_of(Obedient) as (_, client):
        assert (await client.get("/-/components/pipelines.main.obedient/echo")).status_code == 405


async def test_the_audit_trail_is_asked_with_the_filters_of_the_command_line(tmp_path):
    """What is recorded can be found while the gateway runs; wrong filters are named."""
    async with admin_of((Audit, {"path": str(tmp_path / "audit.jsonl")})) as (gateway, client):
        for tool in ("pay", "list"):
            await gateway.call("tools/call", name=tool, arguments={})
        everything = await client.get("/-/audit", params={"operation": "tools/call"})
        one = await client.get("/-/audit", params={"resource": "p*", "limit": "5"})
        wrong = await client.get("/-/audit", params={"colour": "red"})

    assert [entry["resource"] for entry in everything.json()["entries"]] == ["pay", "list"]
    assert [entry["resource"] for entry in one.json()["entries"]] == ["pay"]
    assert wrong.status_code == 400
    assert "colour" in wrong.json()["error"]


async def test_alerts_and_their_rules_are_shown():
    """What fires, and what is watched: a rule without groups may name a figure that is not there."""
    data = {
        "version": 1,
        "sources": {"in": {"stdio": {}}},
        "pipelines": {"main": {"sink": "up"}},
        "sinks": {"up": {"embedded": {}}},
        "run": {"alerts": {"preset": "none", "rules": {
            "tasks": {"figure": "trio_tasks", "above": 0}, "typo": {"figure": "trio_task", "above": 0}}}},
    }  # fmt: skip
    admin = Admin(bind="127.0.0.1:0", token=Secret(from_env="ADMIN_TOKEN"))
    async with PipelineHarness.from_data(data) as gateway, trio.open_nursery() as nursery:
        (bound,) = await nursery.start(serve_admin, admin, gateway.engine.status, gateway.engine)
        async with httpx2.AsyncClient(base_url=f"http://{bound}", headers=TOKEN, trust_env=False) as client:
            shown = (await client.get("/-/alerts")).json()
            status = (await client.get("/-/status")).json()
            metrics = (await client.get("/metrics")).text
        nursery.cancel_scope.cancel()

    assert [(row["rule"], row["state"]) for row in shown["alerts"]] == [("tasks", "firing")]
    assert [(row["rule"], row["groups"]) for row in shown["rules"]] == [("tasks", 1), ("typo", 0)]
    assert [row["rule"] for row in status["alerts"]] == ["tasks"]
    assert 'sluiceway_alerts{rule="tasks",severity="warning"} 1.0' in metrics


async def test_nothing_secret_is_in_metrics_or_traces():
    """Goal S7: credentials, arguments, results and session ids, wherever they come from."""
    canary = "c4n4ry"
    headers = {"authorization": f"Bearer {canary}", "cookie": canary, "baggage": f"user={canary}"}
    stages = [(Trace, {"stages": True}), Metrics, Obedient]
    async with admin_of(*stages, sink=FakeSink.script([{"content": [canary]}, {"contents": [canary]}])) as (
        gateway,
        client,
    ):
        session = Session(id=canary, source="test", version="2025-06-18")
        gateway.client = replace(gateway.client, headers=headers, session=session, info={"name": canary})
        await gateway.call("tools/call", name="echo", arguments={"text": canary}, _meta={"baggage": f"a={canary}"})
        await gateway.call("resources/read", uri=f"https://{canary}@host/x?token={canary}#{canary}")
        metrics = await client.get("/metrics")
        traces = await client.get("/-/traces")

    assert "mcp_tool_executions_total" in metrics.text
    assert len(traces.json()["spans"]) == 8
    assert canary not in metrics.text
    assert canary not in traces.text
