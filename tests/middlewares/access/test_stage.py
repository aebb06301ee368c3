"""The stage: refusals as clients see them, lists that show what can be called, and nothing beyond."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import trio
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sluiceway.middlewares.access.arguments import Condition
from sluiceway.middlewares.access.config import Rule
from sluiceway.middlewares.access.stage import Access
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.options import Rate
from sluiceway.pipeline.model.session import ANONYMOUS, Caller, Client
from sluiceway.pipeline.protocol.errors import (
    Forbidden,
    GatewayError,
    InvalidParams,
    RateLimited,
    UpstreamProtocolError,
    render_error,
)
from sluiceway.pipeline.protocol.mcp import METHODS, Kind
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Request, Result
from sluiceway.pipeline.testing import FakeSink, PipelineHarness, cancel_everywhere, check_middleware
from sluiceway.pipeline.testing.exchanges import MODERN_CLIENT, legacy_client, memory_exchange

LAW = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Other sessions run on the same machine: how long an example takes says nothing."""

ANA = Caller("ana", "acme", frozenset({"read"}), "bearer", frozenset({"reader"}))
BOB = Caller("bob", "acme", how="bearer")
TASKS = replace(MODERN_CLIENT, capabilities={"extensions": {"io.modelcontextprotocol/tasks": {}}})


def stage_of(*rules: Rule, now: Callable[[], float] = lambda: 0.0, **options: Any) -> Access:
    return Access(Access.Config(rules=rules, **options), Context(id="pipelines.main.access", now=now))


class Inner:
    """The inner chain: says what it was asked, and answers what it is told."""

    def __init__(self, reply: Reply | None = None) -> None:
        self.reply = reply or Result({"content": []})
        self.seen: list[Exchange] = []

    async def __call__(self, exchange: Exchange) -> Reply:
        self.seen.append(exchange)
        await trio.lowlevel.checkpoint()
        return self.reply


async def ask(
    stage: Access,
    method: str,
    params: Mapping[str, Any] | None = None,
    *,
    caller: Caller = ANA,
    client: Client = MODERN_CLIENT,
    reply: Reply | None = None,
) -> tuple[Reply | GatewayError, Inner, Exchange]:
    """Send one exchange; the reply or the refusal, and what the inner chain saw."""
    inner = Inner(reply)
    exchange = memory_exchange(method, params or {}, caller=caller, client=client)
    try:
        return await stage(exchange, inner), inner, exchange
    except GatewayError as error:
        return error, inner, exchange


def listed(reply: Any, members: str = "tools", key: str = "name") -> list[Any]:
    assert isinstance(reply, Result)
    return [entry[key] for entry in reply.value[members]]


def tools(*names: Any, **more: Any) -> Result:
    return Result({"tools": [{"name": name, "inputSchema": {}} for name in names], **more})


GOLDEN = [
    (
        "tools/call", {"name": "drop"},
        "Access denied for tool: drop", {},
    ),
    (
        "tools/call", {"name": "pay", "arguments": {"amount": 500}},
        "Access denied for tool: pay, with these arguments", {},
    ),
    (
        "tools/call", {"name": "write"},
        "Insufficient permissions for tool: write; scopes needed: files:write", {"scopes": ["files:write"]},
    ),
    ("tools/call", {"name": "old"}, "Access denied for tool: old", {}),
    ("tools/call", {"name": "n" * 999}, f"Access denied for tool: {'n' * 200}", {}),
    ("prompts/get", {"name": "review"}, "Access denied for prompt: review", {}),
    ("resources/read", {"uri": "file:///etc"}, "Access denied for resource: file:///etc", {}),
    ("resources/subscribe", {"uri": "file:///etc"}, "Access denied for resource: file:///etc", {}),
    ("resources/unsubscribe", {"uri": "file:///etc"}, "Access denied for resource: file:///etc", {}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "p"}}, "Access denied for prompt: p", {}),
    ("completion/complete", {"ref": {"type": "ref/resource", "uri": "u"}}, "Access denied for resource: u", {}),
    ("completion/complete", {"ref": {"type": "ref/tool"}}, "Access denied for request: completion/complete", {}),
    ("completion/complete", {}, "Access denied for request: completion/complete", {}),
    ("tools/call", {"name": 1}, "Access denied for request: tools/call", {}),
    ("tasks/get", {"taskId": "t"}, "Access denied for task: t", {}),
    ("acme/secret", {}, "Access denied for method: acme/secret", {}),
    ("notifications/acme", {}, "Access denied for method: notifications/acme", {}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "params", "message", "data"), GOLDEN)
async def test_a_refusal_as_the_client_sees_it(method: str, params: Any, message: str, data: Any) -> None:
    """S3-CL-03, X-13: the text with the name, 403, reason `forbidden`, nothing of the rules, and no call upstream."""
    stage = stage_of(
        Rule(allow="pay", arguments={"amount": Condition(le=100)}),
        Rule(allow="write", scopes="files:write"),
        Rule(allow="old", valid_until=-1),
        Rule(deny="resources:*", role="nobody"),
    )

    error, inner, exchange = await ask(stage, method, params)

    assert isinstance(error, Forbidden)
    expected = {"origin": "gateway", "reason": "forbidden", **data}
    assert ErrorReply(40300, message, expected) == render_error(error)
    assert (403, []) == (error.http_status, inner.seen)
    assert tuple(data.get("scopes", ())) == error.scopes
    assert ["refuse"] == [decision.outcome for decision in exchange.link.decisions]


async def test_a_hidden_tool_and_one_that_does_not_exist_are_refused_alike() -> None:
    """No oracle: nobody learns what there is."""
    stage = stage_of(Rule(allow="tools:open_*"), Rule(deny="tools:open_secret"))

    hidden, _, _ = await ask(stage, "tools/call", {"name": "open_secret"})
    absent, _, _ = await ask(stage, "tools/call", {"name": "closed"})

    assert isinstance(hidden, Forbidden)
    assert isinstance(absent, Forbidden)
    assert render_error(hidden).data == render_error(absent).data
    assert hidden.message.replace("open_secret", "closed") == absent.message


async def test_case_28_a_tool_that_is_not_allowed_is_not_listed_and_cannot_be_called(autojump_clock: Any) -> None:
    """Reliability, case 28, through a whole gateway."""
    sink = FakeSink.script([tools("read", "drop"), Result({"content": []})])
    options = {"rules": [{"subject": "ana", "allow": "tools:read"}]}
    async with PipelineHarness.from_stages([(Access, options)], sink=sink) as gateway:
        gateway.caller = ANA
        shown = await gateway.call("tools/list")
        allowed = await gateway.call("tools/call", name="read")
        refused = await gateway.call("tools/call", name="drop")

    assert ["read"] == listed(shown)
    assert isinstance(allowed, Result)
    assert isinstance(refused, ErrorReply)
    assert (40300, 403) == (refused.code, refused.http_status)
    assert ["tools/list", "tools/call"] == [request.method for request in sink.requests]


@pytest.mark.parametrize(
    "method",
    ["initialize", "ping", "server/discover", "logging/setLevel", "notifications/initialized",
     "notifications/cancelled", "notifications/progress", "notifications/roots/list_changed",
     "notifications/tasks/status"],
)  # fmt: skip
async def test_what_reaches_nothing_is_free(method: str) -> None:
    """Capabilities of the server pass untouched; nothing is decided, so nothing is recorded."""
    reply, inner, exchange = await ask(stage_of(), method)

    assert inner.reply is reply
    assert ([exchange], []) == (inner.seen, exchange.link.decisions)


async def test_a_request_that_is_named_like_a_notification_is_an_unknown_method() -> None:
    """It would not be free under any other name."""
    inner = Inner()
    exchange = memory_exchange("ping")
    exchange.request = Request(1, "notifications/cancelled", {"requestId": 1})

    with pytest.raises(Forbidden):
        await stage_of()(exchange, inner)
    assert inner.seen == []


async def test_a_call_without_an_id_needs_leave_too() -> None:
    """A notification may carry any method."""
    inner = Inner()
    exchange = memory_exchange("notifications/initialized")
    exchange.request = Notification("tools/call", {"name": "drop"})
    assert exchange.kind is Kind.NOTIFY

    with pytest.raises(Forbidden):
        await stage_of()(exchange, inner)
    assert inner.seen == []


async def test_every_method_of_mcp_is_free_filtered_or_refused() -> None:
    """Nothing new in the method table gets through unseen."""
    passed = []
    for method, row in METHODS.items():
        params = {} if row.target is None else {row.target: "x"}
        _, inner, _ = await ask(stage_of(), method, params)
        if inner.seen:
            passed.append(method)

    assert set(passed) == {
        "initialize", "ping", "server/discover", "logging/setLevel", "tools/list", "prompts/list", "resources/list",
        "resources/templates/list", "tasks/list", "subscriptions/listen", "notifications/initialized",
        "notifications/cancelled", "notifications/progress", "notifications/roots/list_changed",
        "notifications/tasks/status",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"name": "t"}),
        ("prompts/get", {"name": "p"}),
        ("resources/read", {"uri": "docs://a"}),
        ("resources/subscribe", {"uri": "docs://a"}),
        ("resources/unsubscribe", {"uri": "docs://a"}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": ""}}),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": "docs://{a}"}}),
        ("acme/ping", {}),
        ("notifications/acme", {}),
    ],
)
async def test_what_a_rule_allows_goes_on_as_it_is(method: str, params: Any) -> None:
    """The exchange, the reply and the request are the same objects, and the decision names the rule."""
    stage = stage_of(
        Rule(
            id="all", allow=("tools:t", "prompts:p", "resources:docs://*", "methods:acme/*", "methods:notifications/*")
        )
    )

    reply, inner, exchange = await ask(stage, method, params)

    assert inner.reply is reply
    assert inner.seen == [exchange]
    assert [("allow", "all")] == [(each.outcome, each.cause) for each in exchange.link.decisions]


async def test_unsubscribing_needs_leave_that_once_was_given() -> None:
    """Who may no longer read may still stop listening."""
    stage = stage_of(Rule(allow="resources:docs://*", valid_until=1000), now=lambda: 5.0)

    started, _, _ = await ask(stage, "resources/subscribe", {"uri": "docs://a"})
    stopped, _, _ = await ask(stage, "resources/unsubscribe", {"uri": "docs://a"})

    assert isinstance(started, Forbidden)
    assert isinstance(stopped, Result)


@pytest.mark.parametrize(
    ("method", "members", "key", "names", "shown"),
    [
        ("tools/list", "tools", "name", ["a_1", "b", "a_2", "a_x"], ["a_1", "a_2"]),
        ("prompts/list", "prompts", "name", ["a_1", "p"], ["p"]),
        ("resources/list", "resources", "uri", ["docs://1", "x://1", "docs://old/1"], ["docs://1"]),
        ("resources/templates/list", "resourceTemplates", "uriTemplate", ["docs://{n}", "x://{n}"], ["docs://{n}"]),
    ],
)
async def test_a_list_shows_what_may_be_used(
    method: str, members: str, key: str, names: list[str], shown: list[str]
) -> None:
    """M37: everything else of the result stays, the cursor too."""
    stage = stage_of(
        Rule(allow=("tools:a_*", "prompts:p", "resources:docs://*")),
        Rule(deny="tools:*_x"),
        Rule(deny="resources:docs://old/*", actions=("read",)),
    )
    result = Result({members: [{key: name, "title": "t"} for name in names], "nextCursor": "c", "_meta": {"m": 1}})

    reply, inner, exchange = await ask(stage, method, {"cursor": "b"}, reply=result)

    assert shown == listed(reply, members, key)
    assert isinstance(reply, Result)
    assert ("c", {"m": 1}) == (reply.value["nextCursor"], reply.value["_meta"])
    assert {"title": "t", key: shown[0]} == reply.value[members][0]
    assert inner.seen == [exchange]
    assert len(names) == len(result.value[members])
    hidden = len(names) - len(shown)
    assert f"{hidden} not shown" == exchange.link.decisions[0].cause


async def test_what_a_route_left_out_is_not_told_to_everybody() -> None:
    """Names that collide stand in `_meta`; they are filtered as names of the list are."""
    stage = stage_of(Rule(subject="ana", allow="tools:open_*"))
    told = {"open_x": ["one", "two"], "secret": ["one", "two"]}
    meta = {"io.sluiceway/collisions": told, "more": 1}

    shown, _, _ = await ask(stage, "tools/list", reply=tools("open_a", _meta=meta))
    other, _, _ = await ask(stage, "tools/list", reply=tools(_meta=meta), caller=BOB)
    rubbish, _, _ = await ask(stage, "tools/list", reply=tools(_meta={"io.sluiceway/collisions": "secret"}))

    assert isinstance(shown, Result)
    assert isinstance(other, Result)
    assert isinstance(rubbish, Result)
    assert {"io.sluiceway/collisions": {"open_x": ["one", "two"]}, "more": 1} == shown.value["_meta"]
    assert {"more": 1} == other.value["_meta"]
    assert {} == rubbish.value["_meta"]


async def test_a_list_of_which_everything_may_be_used_stays_the_same_object() -> None:
    """Bytes pass through."""
    result = Result(raw=b'{"tools": [ {"name": "a"} ]}')

    reply, _, exchange = await ask(stage_of(Rule(allow="*")), "tools/list", reply=result)

    assert result is reply
    assert exchange.link.decisions == []


async def test_two_principals_get_two_lists() -> None:
    """S3-CL-01, S4-CF-02."""
    stage = stage_of(Rule(subject="ana", allow="tools:a"), Rule(tenant="acme", allow="tools:b"))

    shown = [listed((await ask(stage, "tools/list", caller=each, reply=tools("a", "b")))[0]) for each in (ANA, BOB)]

    assert [["a", "b"], ["b"]] == shown


async def test_entries_that_name_nothing_are_not_shown() -> None:
    """Nobody could say whether they may be used."""
    stage = stage_of(Rule(allow="*"))
    odd = Result({"tools": [{"title": "t"}, {"name": 1}, "text", {"name": "a"}]})

    reply, _, _ = await ask(stage, "tools/list", reply=odd)

    assert ["a"] == listed(reply)


async def test_a_list_that_is_none_is_the_upstreams_fault() -> None:
    """It could hold anything."""
    reply, _, _ = await ask(stage_of(Rule(allow="*")), "tools/list", reply=Result({"tools": {"a": 1}}))

    assert isinstance(reply, UpstreamProtocolError)


@pytest.mark.parametrize("method", ["tools/list", "tasks/list", "resources/read", "tools/call"])
async def test_an_error_of_the_upstream_passes(method: str) -> None:
    """It is a reply like any other."""
    told = ErrorReply(-32000, "no")

    reply, _, _ = await ask(stage_of(Rule(allow="*")), method, {"name": "x", "uri": "x"}, reply=told, client=TASKS)

    assert told is reply


@pytest.mark.parametrize(
    ("method", "members", "scope", "becomes"),
    [
        ("tools/list", "tools", "public", "private"),
        ("tools/list", "tools", "private", "private"),
        ("resources/read", "contents", "public", "private"),
        ("resources/read", "contents", "private", "private"),
        ("server/discover", "capabilities", "public", "public"),
    ],
)
async def test_what_depends_on_the_caller_is_nobody_elses_to_cache(
    method: str, members: str, scope: str, becomes: str
) -> None:
    """MCP 2026-07-28, caching: `public` may be shared across users, and that would go round the rules."""
    result = Result({members: [], "ttlMs": 5, "cacheScope": scope})

    reply, _, _ = await ask(stage_of(Rule(allow="*")), method, {"uri": "docs://a"}, reply=result)

    assert isinstance(reply, Result)
    assert {members: [], "ttlMs": 5, "cacheScope": becomes} == dict(reply.value)


async def test_a_resource_for_a_legacy_client_is_not_looked_into() -> None:
    """There is no `cacheScope` before 2026-07-28; `value` of this body would fail."""
    result = Result(raw=b'{"cacheScope": not JSON')

    reply, _, _ = await ask(
        stage_of(Rule(allow="*")), "resources/read", {"uri": "x"}, reply=result, client=legacy_client()
    )

    assert result is reply


async def test_a_rule_with_a_rate_lets_so_many_through_and_no_more(autojump_clock: Any) -> None:
    """S4-CA-05: 100 in a minute for each caller; the 101st is told when to come back; lists cost nothing."""
    stage = stage_of(Rule(id="r", allow="tools:t", rate=Rate(100, 60.0)))
    for _ in range(100):
        assert isinstance((await ask(stage, "tools/call", {"name": "t"}))[0], Result)
        assert ["t"] == listed((await ask(stage, "tools/list", reply=tools("t")))[0])

    error, inner, exchange = await ask(stage, "tools/call", {"name": "t"})
    other, _, _ = await ask(stage, "tools/call", {"name": "t"}, caller=BOB)
    same_name, _, _ = await ask(stage, "tools/call", {"name": "t"}, caller=evolve(ANA, tenant="globex"))

    assert isinstance(error, RateLimited)
    assert (
        ErrorReply(
            42900,
            "tool t: 100/min for each caller; try again later",
            {"origin": "gateway", "reason": "rate_limited", "retry_after_ms": 600},
        )
        == render_error(error)
    )  # fmt: skip
    assert inner.seen == []
    assert [("limit", "r")] == [(each.outcome, each.cause) for each in exchange.link.decisions]
    assert isinstance(other, Result)
    assert isinstance(same_name, Result)
    await trio.sleep(0.6)
    assert isinstance((await ask(stage, "tools/call", {"name": "t"}))[0], Result)
    assert isinstance((await ask(stage, "tools/call", {"name": "t"}))[0], RateLimited)


async def test_nobody_gets_more_by_opening_sessions(autojump_clock: Any) -> None:
    """Who is not authenticated is counted by address; somebody authenticated of that name is somebody else."""
    stage = stage_of(Rule(allow="t", rate=Rate(1, 60.0)))
    clients = [replace(legacy_client(session_id=f"s{n}"), address=address) for n, address in enumerate("aab")]
    replies = [
        (await ask(stage, "tools/call", {"name": "t"}, caller=ANONYMOUS, client=client))[0] for client in clients
    ]
    named, _, _ = await ask(stage, "tools/call", {"name": "t"}, caller=Caller("a", how="bearer"))

    assert [Result, RateLimited, Result, Result] == [type(reply) for reply in (*replies, named)]


async def test_a_refused_call_costs_nothing(autojump_clock: Any) -> None:
    """Only what is let through is counted."""
    stage = stage_of(Rule(allow="t", rate=Rate(1, 60.0), arguments={"n": Condition(le=1)}))
    for _ in range(5):
        assert isinstance((await ask(stage, "tools/call", {"name": "t", "arguments": {"n": 2}}))[0], Forbidden)

    assert isinstance((await ask(stage, "tools/call", {"name": "t", "arguments": {"n": 1}}))[0], Result)


async def test_one_rule_with_something_left_is_enough(autojump_clock: Any) -> None:
    """And who is told to wait is told the shortest time."""
    stage = stage_of(
        Rule(id="slow", allow="t", rate=Rate(1, 60.0)), Rule(id="fast", allow="t", rate=Rate(4, 60.0), burst=1)
    )
    told = [(await ask(stage, "tools/call", {"name": "t"})) for _ in range(3)]

    assert ["slow", "fast", "fast"] == [exchange.link.decisions[0].cause for _, _, exchange in told]
    error = told[2][0]
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == 15.0


async def test_a_full_table_of_callers_refuses_the_next(autojump_clock: Any) -> None:
    """`max_keys`: no caller in debt is forgotten for another one."""
    stage = stage_of(Rule(allow="t", rate=Rate(1, 60.0)), max_keys=2)
    replies = [
        (await ask(stage, "tools/call", {"name": "t"}, caller=Caller(f"c{number}", how="bearer")))[0]
        for number in range(3)
    ]

    assert [Result, Result, RateLimited] == [type(reply) for reply in replies]
    await trio.sleep(60)
    assert isinstance((await ask(stage, "tools/call", {"name": "t"}))[0], Result)


async def test_a_rule_ends_while_the_gateway_runs() -> None:
    """S4-CA-04, S4-CF-01: the date is asked for each request, and lists hide what has ended."""
    clock = [999.999]
    stage = stage_of(Rule(allow="t", valid_until=1000_000), now=lambda: clock[0])

    before = (
        (await ask(stage, "tools/call", {"name": "t"}))[0],
        listed((await ask(stage, "tools/list", reply=tools("t")))[0]),
    )
    clock[0] = 1000.001
    after = (
        (await ask(stage, "tools/call", {"name": "t"}))[0],
        listed((await ask(stage, "tools/list", reply=tools("t")))[0]),
    )

    assert (Result, ["t"]) == (type(before[0]), before[1])
    assert (Forbidden, []) == (type(after[0]), after[1])


MADE = Result({"resultType": "task", "taskId": "t1", "status": "working"})


@pytest.mark.parametrize(
    ("client", "params", "made"),
    [
        (TASKS, {}, MADE),
        (legacy_client(), {"task": {"ttl": 1}}, Result({"task": {"taskId": "t1", "status": "working"}})),
    ],
)
async def test_a_task_is_for_whoever_made_it(client: Client, params: Any, made: Result, autojump_clock: Any) -> None:
    """Both eras; another principal, another tenant and nobody are refused, and it is not in their lists."""
    stage = stage_of(Rule(allow="*"), task_age=100.0)
    await ask(stage, "tools/call", {"name": "t", **params}, client=client, reply=made)
    others = (BOB, evolve(ANA, tenant="globex"), ANONYMOUS)
    tasks = Result({"tasks": [{"taskId": "t1"}, {"taskId": "t2"}]})

    for method in ("tasks/get", "tasks/result", "tasks/update", "tasks/cancel"):
        own, inner, _ = await ask(stage, method, {"taskId": "t1"}, client=client)
        assert inner.reply is own
        for other in others:
            assert isinstance((await ask(stage, method, {"taskId": "t1"}, caller=other, client=client))[0], Forbidden)
    assert ["t1"] == listed((await ask(stage, "tasks/list", client=client, reply=tasks))[0], "tasks", "taskId")
    for other in others:
        shown, _, _ = await ask(stage, "tasks/list", caller=other, client=client, reply=tasks)
        assert [] == listed(shown, "tasks", "taskId")
    await trio.sleep(100)
    assert isinstance((await ask(stage, "tasks/get", {"taskId": "t1"}, client=client))[0], Forbidden)


async def test_what_is_no_task_makes_no_owner() -> None:
    """A client that knows no tasks gets none, whatever an answer looks like; nor does an error make one."""
    stage = stage_of(Rule(allow="*"))
    for client, reply in ((MODERN_CLIENT, MADE), (TASKS, Result({"taskId": 1})), (TASKS, Result({"task": "t1"}))):
        await ask(stage, "tools/call", {"name": "t"}, client=client, reply=reply)
    await ask(stage, "tools/call", {"name": "t"}, client=TASKS, reply=Result({"taskId": "x" * 999}))

    assert stage.details()["tasks"] == 0


async def test_tasks_are_bounded() -> None:
    """`max_tasks`: the oldest go first."""
    stage = stage_of(Rule(allow="*"), max_tasks=2)
    for number in range(4):
        await ask(stage, "tools/call", {"name": "t"}, client=TASKS, reply=Result({"taskId": f"t{number}"}))
    found = [isinstance((await ask(stage, "tasks/get", {"taskId": f"t{n}"}))[0], Result) for n in range(4)]

    assert [False, False, True, True] == found


async def test_a_listener_hears_of_what_it_may_read_only() -> None:
    """The inner chain sees a filter without the rest; its acknowledgement tells the client what is left."""
    stage = stage_of(Rule(allow="resources:docs://*"))
    wanted = {"toolsListChanged": True, "resourceSubscriptions": ["docs://a", "x://a"], "taskIds": ["t"]}

    _, inner, exchange = await ask(stage, "subscriptions/listen", {"notifications": wanted, "_meta": {"m": 1}})

    kept = {"toolsListChanged": True, "resourceSubscriptions": ["docs://a"], "taskIds": []}
    assert {"notifications": kept, "_meta": {"m": 1}} == inner.seen[0].request.params
    assert wanted == exchange.request.params["notifications"]
    assert ["2 subscriptions left out"] == [each.cause for each in exchange.link.decisions]


@pytest.mark.parametrize("wanted", [{"resourceSubscriptions": ["docs://a"]}, {"toolsListChanged": True}, {}, "rubbish"])
async def test_a_listener_that_may_hear_everything_goes_on_as_it_is(wanted: Any) -> None:
    """As the bytes it was."""
    _, inner, exchange = await ask(
        stage_of(Rule(allow="resources:docs://*")), "subscriptions/listen", {"notifications": wanted}
    )

    assert inner.seen == [exchange]


@pytest.mark.parametrize("uris", ["docs://a", [1], {"docs://a": True}])
async def test_a_listener_that_cannot_be_judged_is_refused(uris: Any) -> None:
    """What is inspected is what is forwarded."""
    error, inner, _ = await ask(stage_of(), "subscriptions/listen", {"notifications": {"resourceSubscriptions": uris}})

    assert isinstance(error, InvalidParams)
    assert inner.seen == []


NAMES = ["a", "ab", "b", "a_b"]
PATTERNS = st.sampled_from(["*", "a*", "*b", "tools:ab", "prompts:*"])


@LAW
@given(
    rules=st.lists(
        st.builds(
            lambda who, what, pattern: Rule(subject=who, **{what: pattern}),
            st.sampled_from(["ana", "bob", "*", ()]), st.sampled_from(["allow", "deny"]), PATTERNS,
        ),
        max_size=5,
    ),
    order=st.permutations([ANA, BOB, evolve(ANA, tenant="globex"), ANONYMOUS]),
)  # fmt: skip
def test_a_list_is_what_can_be_called_for_everybody(rules: list[Rule], order: Sequence[Caller]) -> None:
    """The law of M37, through the stage, whoever came before."""

    async def compare() -> None:
        stage = stage_of(*rules, max_callers=2)
        for caller in order:
            shown = listed((await ask(stage, "tools/list", caller=caller, reply=tools(*NAMES)))[0])
            replies = {name: (await ask(stage, "tools/call", {"name": name}, caller=caller))[0] for name in NAMES}

            assert [name for name in NAMES if isinstance(replies[name], Result)] == shown

    trio.run(compare)


async def test_an_operator_asks_why() -> None:
    """The action gives the stage's own answer, with what every rule says."""
    stage = stage_of(
        Rule(id="readers", role="reader", allow="tools:db_*", arguments={"n": Condition(le=5)}, rate=Rate(2, 60.0)),
        Rule(id="nobody", deny="tools:db_drop"),
    )
    question = {"caller": "ana", "tenant": "acme", "roles": ["reader"], "name": "db_read"}

    assert await stage.act("why", {**question, "arguments": {"n": 1}}) == {
        "allowed": True,
        "reason": "allowed",
        "rule": "readers",
        "scopes": [],
        "rules": [{"rule": "readers", "says": "allowed"}, {"rule": "nobody", "says": "another name"}],
        "limits": ["readers: 2/min"],
    }
    assert await stage.act("why", {**question, "name": "db_drop"}) == {
        "allowed": False,
        "reason": "denied",
        "rule": "nobody",
        "scopes": [],
        "rules": [{"rule": "readers", "says": "allowed"}, {"rule": "nobody", "says": "denied"}],
    }
    with pytest.raises(LookupError, match="why"):
        await stage.act("what", {})


async def test_figures_and_details_count() -> None:
    """For metrics and status; without names of callers or tools."""
    stage = stage_of(Rule(allow="t", rate=Rate(1, 60.0)))
    for name in ("t", "t", "u"):
        await ask(stage, "tools/call", {"name": name})
    await ask(stage, "tools/list", reply=tools("t", "u", "v"))

    figures = {(figure.name, *figure.labels.values()): figure.value for figure in stage.figures()}
    assert figures == {
        ("access_decisions_total", "allowed"): 1,
        ("access_decisions_total", "refused"): 1,
        ("access_decisions_total", "limited"): 1,
        ("access_hidden_total",): 2,
        ("access_rate_keys",): 1,
    }
    assert stage.details() == {"rules": 1, "callers": 1, "rulings": 2, "tasks": 0}


async def test_it_can_be_cancelled_anywhere(autojump_clock: Any) -> None:
    """It holds nothing."""
    async with PipelineHarness.from_stages([(Access, {"rules": [{"allow": "*"}]})]) as gateway:
        await cancel_everywhere(lambda: gateway.call("tools/call", name="x"))


def test_it_keeps_the_contract_of_stages() -> None:
    """With all its tables at work."""
    rules = [
        {"allow": ["*", "methods:vendor/*"], "rate": "1000/s"},
        {"deny": "tools:other", "arguments": {"a": {"le": 1}}},
    ]
    check_middleware(Access, {"rules": rules, "max_callers": 2, "max_tasks": 2, "max_keys": 20})
