"""The stage `validate`, in front of an upstream with a few tools."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from sluiceway.middlewares.validate.stage import Validate
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.protocol.errors import ComponentError, InvalidParams, UpstreamProtocolError
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Result
from sluiceway.pipeline.testing import cancel_everywhere, legacy_client, memory_exchange

ADD = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
TOOLS = [
    {"name": "add", "inputSchema": ADD, "outputSchema": {"type": "object", "required": ["sum"]}},
    {"name": "odd", "inputSchema": {"$ref": "https://example.com/"}},
    {"name": "loose"},
]


class Upstream:
    """Lists its tools, and answers with what it is told to."""

    def __init__(self, answer: Any = None) -> None:
        self.asked: list[str] = []
        self.answer = answer if answer is not None else Result({"content": [], "structuredContent": {"sum": 3}})

    async def __call__(self, exchange):
        self.asked.append(exchange.method)
        return Result({"tools": TOOLS}) if exchange.method == "tools/list" else self.answer


async def call(bench, upstream, name="add", sent=None, *, client=None, **options):
    """The answer to one call, and its decisions."""
    stage = Validate(Validate.Config(**options), bench.context())
    params = {"name": name} if sent is None else {"name": name, "arguments": sent}
    exchange = memory_exchange("tools/call", params, **({"client": client} if client else {}))
    async with stage.open():
        try:
            return await bench.service(upstream, stage)(exchange), exchange.link.decisions
        except (InvalidParams, UpstreamProtocolError) as error:
            return error, exchange.link.decisions


async def test_a_call_that_fits_goes_on_and_the_schema_is_asked_for_once(bench):
    """The list is asked for before the first call; lists that pass are learned from."""
    upstream, stage = Upstream(), Validate(Validate.Config(), bench.context())
    service = bench.service(upstream, stage)
    async with stage.open():
        for _ in range(2):
            assert (await service(bench.exchange("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}}))) == (
                upstream.answer
            )
        assert upstream.asked == ["tools/list", "tools/call", "tools/call"]

        stage.context.changes.announce("s", Notification("notifications/tools/list_changed"))
        await service(bench.exchange("tools/list"))
        await service(bench.exchange("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}}))
        assert upstream.asked[3:] == ["tools/list", "tools/call"]
        assert stage.details() == {"tools": 3, "schemas": 2}
    assert stage.details()["tools"] == 0


async def test_a_call_that_does_not_fit_never_arrives(bench):
    """As the result of a tool that failed, with every wrong field, or as an error."""
    upstream = Upstream()
    result, decisions = await call(bench, upstream, sent={"a": "secret"})
    error, _ = await call(bench, upstream, sent={"a": "secret"}, refuse_as="error")

    assert upstream.asked == ["tools/list"] * 2
    assert [("refuse", "arguments")] == [(each.outcome, each.cause) for each in decisions]
    assert result.value["isError"] is True
    assert result.value["resultType"] == "complete"
    assert result.value["_meta"]["io.sluiceway/reason"] == "invalid_arguments"
    assert '- /a: the value is not of type "integer"' in result.value["content"][0]["text"]
    assert {each["path"] for each in error.data["errors"]} == {"/a", ""}
    assert "/a: the value is not of type" in error.message
    assert "secret" not in f"{result}{error.message}{error.data}"


async def test_a_legacy_client_gets_no_member_of_the_modern_era(bench):
    """`resultType` came with 2026-07-28."""
    result, _ = await call(bench, Upstream(), sent={}, client=legacy_client())

    assert "resultType" not in result.value


@pytest.mark.parametrize("arguments", [None, [], "x", 7])
async def test_arguments_that_are_no_object_do_not_fit(bench, arguments):
    """Absent ones are an empty object."""
    result, _ = await call(bench, Upstream(), sent=arguments, rules=())

    assert result.value["isError"] is True


@pytest.mark.parametrize(("arguments", "logged"), [("log", 1), ("off", 0)])
async def test_arguments_can_be_complained_of_or_left_alone(bench, arguments, logged):
    """The call goes on."""
    upstream = Upstream()
    reply, _ = await call(bench, upstream, sent={}, arguments=arguments)

    assert reply == upstream.answer
    assert [line["tool"] for line in bench.logged.entries if line["event"] == "arguments do not fit"] == [
        "add"
    ] * logged


async def test_tools_without_a_schema_and_tools_in_no_list_pass(bench):
    """The upstream says what it thinks of them."""
    upstream = Upstream()

    for name in ("loose", "nobody"):
        reply, _ = await call(bench, upstream, name=name, sent={"x": 1})
        assert reply == upstream.answer


@pytest.mark.parametrize(("unusable", "arrives"), [("refuse", False), ("pass", True)])
async def test_a_schema_that_cannot_be_used_is_refused_or_passed(bench, unusable, arrives):
    """And the refusal says why."""
    upstream = Upstream()
    reply, _ = await call(bench, upstream, name="odd", sent={}, unusable=unusable)

    assert ("tools/call" in upstream.asked) is arrives
    assert arrives or "cannot be checked" in reply.value["content"][0]["text"]


@pytest.mark.parametrize("content", [{"structuredContent": {}}, {}])
async def test_a_result_that_does_not_fit_is_complained_of_once(bench, content):
    """Missing structured content does not fit either; nothing changes for the client."""
    upstream = Upstream(Result({"content": [], **content}))
    stage = Validate(Validate.Config(), bench.context())
    async with stage.open():
        for _ in range(3):
            params = {"name": "add", "arguments": {"a": 1, "b": 2}}
            assert await bench.service(upstream, stage)(bench.exchange("tools/call", params)) == upstream.answer

    assert ["add"] == [line["tool"] for line in bench.logged.entries if "output schema" in line["event"]]
    assert [3.0] == [figure.value for figure in stage.figures() if figure.name == "validate_results_total"]


async def test_a_result_that_does_not_fit_can_be_refused(bench):
    """It is the upstream's fault."""
    wrong = Upstream(Result({"content": [], "structuredContent": {"total": 3}}))
    arguments = {"a": 1, "b": 2}

    error, decisions = await call(bench, wrong, sent=arguments, results="refuse")
    reply, _ = await call(bench, wrong, sent=arguments, results="off")

    assert isinstance(error, UpstreamProtocolError)
    assert [("misfit", "result")] == [(each.outcome, each.cause) for each in decisions]
    assert reply == wrong.answer


@pytest.mark.parametrize(
    "answer",
    [
        ErrorReply(-32603, "broken"),
        Result({"content": [], "isError": True}),
        Result({"resultType": "input_required", "inputRequests": {}}),
        Result({"task": {"taskId": "t"}}),
    ],
)
async def test_what_is_no_final_result_has_no_shape_to_check(bench, answer):
    """Errors, failures, questions and tasks."""
    reply, _ = await call(bench, Upstream(answer), sent={"a": 1, "b": 2}, results="refuse")

    assert reply == answer


async def test_rules_of_ones_own_add_to_the_list(bench, monkeypatch):
    """Found by their path when the stage opens."""
    module = ModuleType("acme_rules")
    module.even = lambda tool, arguments: ["a must be even"] if tool == "add" and arguments["a"] % 2 else None
    monkeypatch.setitem(sys.modules, "acme_rules", module)
    upstream = Upstream()

    odd, _ = await call(bench, upstream, sent={"a": 1, "b": 2}, rules=("acme_rules:even",))
    even, _ = await call(bench, upstream, sent={"a": 2, "b": 2}, rules=("acme_rules:even",))

    assert "a must be even" in odd.value["content"][0]["text"]
    assert even == upstream.answer


@pytest.mark.parametrize("path", ["nowhere_at_all:rule", "sys:no_such_rule", "sys"])
async def test_a_rule_that_cannot_be_found_is_said_at_the_start(path):
    """With the form that is expected."""
    with pytest.raises(ComponentError, match="write module:function"):
        async with Validate(Validate.Config(rules=(path,)), Context(id="v")).open():
            pass


async def test_other_methods_are_none_of_its_business(bench):
    """They pass, and nothing is looked up."""
    upstream = Upstream()
    stage = Validate(Validate.Config(), bench.context())
    async with stage.open():
        await bench.service(upstream, stage)(bench.exchange("prompts/get", {"name": "add"}))

    assert upstream.asked == ["prompts/get"]


async def test_a_lookup_that_is_cancelled_leaves_nothing(bench):
    """At any step; the next call looks it up."""
    stage = Validate(Validate.Config(), bench.context())
    async with stage.open():

        def attempt():
            return bench.service(Upstream(), stage)(bench.exchange("tools/call", {"name": "add", "arguments": {}}))

        await cancel_everywhere(attempt)


async def test_only_so_many_schemas_are_kept_ready(bench):
    """`max_schemas` of them."""
    stage = Validate(Validate.Config(max_schemas=1), bench.context())
    async with stage.open():
        for name in ("add", "odd"):
            await bench.service(Upstream(), stage)(bench.exchange("tools/call", {"name": name, "arguments": {}}))

        assert stage.details()["schemas"] == 1
