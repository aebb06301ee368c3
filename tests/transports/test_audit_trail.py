"""The audit trail as resources: who may read, what of it, page by page, and nothing secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.config.problems import ConfigError
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.session import ANONYMOUS, Caller
from sluiceway.pipeline.protocol.messages import ErrorReply, Reply, Result
from sluiceway.pipeline.testing import PipelineHarness, check_sink, legacy_client
from sluiceway.transports.audit_trail import AuditTrail

AUDITOR = Caller("eve", tenant="acme", roles=frozenset({"auditor"}), how="api_key")
READ = "resources/read"


def configuration(folder: Path, to: str = "jsonl", **options: Any) -> dict[str, Any]:
    """A gateway that writes a trail, and shows it."""
    return {
        "version": 1,
        "sources": {"in": {"stdio": {}}},
        "pipelines": {
            "work": {"chain": [{"audit": {"path": str(folder / "trail"), "to": to}}], "sink": "demo"},
            "reading": {"sink": "trail"},
        },
        "sinks": {
            "demo": {"embedded": {}},
            "trail": {"audit_trail": {"path": str(folder / "trail"), "roles": ["auditor"], **options}},
        },
    }


async def filled(folder: Path, to: str = "jsonl") -> None:
    """A trail with calls of two tenants and of somebody without one."""
    data = configuration(folder, to)
    data["sources"]["in"]["pipeline"] = "work"
    async with PipelineHarness.from_data(data) as gateway:
        for n, tenant in enumerate(("acme", "globex", None, "acme", "acme*")):
            gateway.caller = Caller(f"p{n}", tenant=tenant)
            await gateway.call("tools/call", name="echo", arguments={"text": "hi", "password": "hunter2"})


def reading(folder: Path, **options: Any) -> PipelineHarness:
    """A gateway whose calls end at the trail; an auditor makes them."""
    data = configuration(folder, **options)
    data["sources"]["in"]["pipeline"] = "reading"
    gateway = PipelineHarness.from_data(data)
    gateway.caller = AUDITOR
    return gateway


def contents(reply: Reply) -> Any:
    """The JSON that was read."""
    assert isinstance(reply, Result), reply
    (one,) = reply.value["contents"]
    assert one["mimeType"] == "application/json"
    return json.loads(one["text"])


def principals(reply: Reply) -> list[str]:
    """Whose entries were read."""
    return [entry.get("principal") for entry in contents(reply)["entries"]]


@pytest.mark.parametrize("to", ["jsonl", "sqlite"])
async def test_an_auditor_reads_the_entries_of_the_own_tenant_only(tmp_path, to):
    """The latest first, masked; whose tenant is a glob is not everybody's; who has none sees what belongs to none."""
    await filled(tmp_path, to)
    async with reading(tmp_path, to=to) as gateway:
        reply = await gateway.call(READ, uri="audit://entries")
        seen = [principals(reply)]
        for tenant in ("globex", "acme*", "nobody"):
            gateway.caller = Caller("eve", tenant=tenant, roles=AUDITOR.roles)
            seen.append(principals(await gateway.call(READ, uri="audit://entries")))
        gateway.caller = Caller("eve", roles=AUDITOR.roles)
        own = contents(await gateway.call(READ, uri="audit://entries?event=request"))["entries"]

    assert seen == [["p3", "p0"], ["p1"], ["p4"], []]
    assert [entry["principal"] for entry in own] == ["p2"]
    (entry, _) = contents(reply)["entries"]
    assert (entry["operation"], entry["resource"], entry["outcome"]) == ("tools/call", "echo", "tool_error")
    assert entry["params"]["arguments"] == {"text": "hi", "password": "***"}
    assert not {"hash", "prev"} & entry.keys()
    assert "hunter2" not in str(reply)


@pytest.mark.parametrize(
    "caller",
    [
        ANONYMOUS,
        Caller("eve", tenant="acme"),
        Caller("eve", tenant="acme", roles=frozenset({"editor"}), scopes=frozenset({"auditor"})),
    ],
)
@pytest.mark.parametrize("uri", ["audit://entries", "audit://entries?limit=1", "audit://entries/1"])
async def test_who_is_no_auditor_is_refused(tmp_path, caller, uri):
    """With 403; a scope of the role's name is not the role."""
    await filled(tmp_path)
    async with reading(tmp_path) as gateway:
        gateway.caller = caller
        reply = await gateway.call(READ, uri=uri)

    assert isinstance(reply, ErrorReply)
    assert (reply.data["reason"], reply.http_status) == ("forbidden", 403)


async def test_scopes_do_as_well(tmp_path):
    """One of them."""
    await filled(tmp_path)
    async with reading(tmp_path, roles=[], scopes=["audit:read", "admin"]) as gateway:
        gateway.caller = Caller("eve", tenant="globex", scopes=frozenset({"admin"}))

        assert principals(await gateway.call(READ, uri="audit://entries")) == ["p1"]


async def test_somebody_must_be_able_to_read(tmp_path):
    """A trail without roles and scopes is a mistake."""
    with pytest.raises(ConfigError, match="name at least one, or nobody can read the trail"):
        from_data(configuration(tmp_path, roles=[]))


async def test_filters_choose_and_pages_follow_each_other(tmp_path):
    """By principal, operation and time; `next` is the uri of the following page, and the last one has none."""
    await filled(tmp_path)
    async with reading(tmp_path, page_size=1) as gateway:
        first = contents(await gateway.call(READ, uri="audit://entries?operation=tools%2F*&since=1h"))
        second = contents(await gateway.call(READ, uri=first["next"]))
        last = contents(await gateway.call(READ, uri=second["next"]))
        nothing = contents(await gateway.call(READ, uri="audit://entries?principal=p0&until=1h"))
        one = contents(await gateway.call(READ, uri="audit://entries?principal=p0&limit=1"))

    assert first["next"] == f"audit://entries?operation=tools%2F%2A&since=1h&before={first['entries'][0]['seq']}"
    assert [page["entries"][0]["principal"] for page in (first, second, one)] == ["p3", "p0", "p0"]
    assert (last["entries"], "next" in last) == ([], False)
    assert nothing["entries"] == []


async def test_one_entry_is_read_by_its_number(tmp_path):
    """Unless it is not there, or another tenant's: which of the two is not told."""
    await filled(tmp_path)
    async with reading(tmp_path) as gateway:
        (entry, _) = contents(await gateway.call(READ, uri="audit://entries"))["entries"]
        again = contents(await gateway.call(READ, uri=f"audit://entries/{entry['seq']}"))
        others = [
            await gateway.call(READ, uri=f"audit://entries/{number}")
            for number in (1, entry["seq"] + 50, -1, "9" * 40, "x")
        ]

    assert again == entry
    assert [isinstance(each, ErrorReply) and each.code for each in others] == [-32602] * 5
    (first, second, *_) = [each.message for each in others if isinstance(each, ErrorReply)]
    assert first.replace("1", "N") == second.replace(str(entry["seq"] + 50), "N")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("since=yesterday", "since is a date"),
        ("limit=0", "limit is a number"),
        ("before=x", "before"),
        ("colour=red", "resource not found"),
        ("tenant=globex", "resource not found"),
        ("principal=a&principal=b", "resource not found"),
    ],
)
async def test_a_wrong_filter_is_named(tmp_path, query, text):
    """And a tenant is no filter: it is the caller's."""
    await filled(tmp_path)
    async with reading(tmp_path) as gateway:
        reply = await gateway.call(READ, uri=f"audit://entries?{query}")

    assert isinstance(reply, ErrorReply)
    assert reply.code == -32602
    assert text in reply.message


async def test_lists_show_how_to_ask(tmp_path):
    """To clients of both eras; values are suggested where they are few."""
    async with reading(tmp_path) as gateway:
        listed = [await gateway.call("resources/list")]
        gateway.client = legacy_client()
        listed.append(await gateway.call("resources/list"))
        templates = await gateway.call("resources/templates/list")
        template = "audit://entries{?principal,operation,resource,outcome,event,since,until,limit,before}"
        suggested = [
            await gateway.call(
                "completion/complete",
                ref={"type": "ref/resource", "uri": template},
                argument={"name": name, "value": value},
            )
            for name, value in (("outcome", "t"), ("event", "session"))
        ]

    assert [[each["uri"] for each in reply.value["resources"]] for reply in listed if isinstance(reply, Result)] == [
        ["audit://entries"]
    ] * 2
    assert isinstance(templates, Result)
    assert [each["uriTemplate"] for each in templates.value["resourceTemplates"]] == [
        template, "audit://entries/{number}",
    ]  # fmt: skip
    assert [each.value["completion"]["values"] for each in suggested if isinstance(each, Result)] == [
        ["tool_error", "timed_out"], ["session_start", "session_end"],
    ]  # fmt: skip


async def test_a_trail_that_cannot_be_read_is_the_operators_to_know(tmp_path):
    """The client gets an incident, the log the path."""
    async with reading(tmp_path, path=str(tmp_path / "other")) as gateway:
        with capture_logs() as logs:
            reply = await gateway.call(READ, uri="audit://entries")

    assert isinstance(reply, ErrorReply)
    assert (reply.data["reason"], "incident" in reply.message) == ("internal_error", True)
    assert str(tmp_path) not in str(reply)
    (line,) = [line for line in logs if line["event"] == "handler failed"]
    assert str(tmp_path / "other") in str(line["exc_info"])


def test_explain_says_who_may_read():
    """Beside the options."""
    config = AuditTrail.Config(path=Path("a"), roles=("auditor",), scopes=("audit:read",))

    assert list(AuditTrail.remarks(config)) == ["readers need one of: auditor, audit:read"]
    assert AuditTrail(config, Context(id="trail")).in_process


@pytest.mark.parametrize("exists", [True, False])
def test_it_keeps_the_contract_of_sinks(tmp_path, exists):
    """Also while it reads in a thread, and where there is nothing to read."""
    path = tmp_path / "trail"
    if exists:
        path.write_text('{"seq":1,"at":"2027-01-01T00:00:00Z","event":"request"}\n')
    samples = (
        ("resources/list", {}),
        ("resources/read", {"uri": "audit://entries"}),
        ("resources/read", {"uri": "audit://entries/1"}),
        ("tools/list", {}),
    )

    check_sink(AuditTrail, {"path": str(path), "roles": ["auditor"]}, samples=samples)
