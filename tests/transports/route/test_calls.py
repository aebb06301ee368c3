"""Requests find whose they are: names, uris, references, tasks, rules."""

import pytest
import trio

from sluiceway.pipeline.protocol.errors import ConnectFailed
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Result


@pytest.mark.parametrize("method", ["tools/call", "prompts/get"])
async def test_a_name_goes_to_its_upstream_without_prefix(autojump_clock, scripted, routed, method):
    """Everything else of the request stays."""
    one, two = scripted("one"), scripted("two")
    async with routed(one, two) as gateway:
        reply = await gateway.call(method, name="two.x.y", arguments={"a": 1}, later={"b": 2})

    assert Result({"by": "two", "params": {"name": "x.y", "arguments": {"a": 1}, "later": {"b": 2}}}) == reply
    assert [] == one.methods


@pytest.mark.parametrize(
    ("params", "said"),
    [({"name": "three.x"}, "unknown tool: three.x"), ({"name": "x"}, "unknown tool: x"), ({}, "name"),
     ({"name": 7}, "name")],
)  # fmt: skip
async def test_a_name_of_nobody_is_refused(autojump_clock, scripted, routed, params, said):
    """S2-HF-10: -32602, and nobody is asked."""
    one, two = scripted("one"), scripted("two")
    async with routed(one, two) as gateway:
        reply = await gateway.call("tools/call", params)

    assert isinstance(reply, ErrorReply)
    assert -32602 == reply.code
    assert said in reply.message
    assert [] == one.methods + two.methods


async def test_a_hidden_tool_cannot_be_called(autojump_clock, scripted, routed):
    """What is not shown is not there; a renamed one has only its new name."""
    one = scripted("one")
    names = {"allow": ["r*"], "rename": {"read": "open"}}
    async with routed(one, to={"one": {"tools": names, "prompts": names}}) as gateway:
        for method in ("tools/call", "prompts/get"):
            replies = [await gateway.call(method, name=f"one.{name}") for name in ("drop", "read", "open", "rest")]

            assert [ErrorReply, ErrorReply, Result, Result] == list(map(type, replies))

    assert ["read", "rest"] * 2 == [request.params["name"] for request in one.sink.requests]


async def test_a_dead_upstream_fails_only_its_own_names(autojump_clock, scripted, routed):
    """S2-HF-11."""
    one, two = scripted("one"), scripted("two")
    one.error = ConnectFailed("gone")
    async with routed(one, two) as gateway:
        replies = [await gateway.call("tools/call", name=name) for name in ("one.x", "two.x")]

    assert [ErrorReply, Result] == list(map(type, replies))


async def test_names_without_prefixes_are_looked_up(autojump_clock, scripted, routed):
    """Without a list before; an ambiguous one is an error that names both (X-14)."""
    one, two = scripted("one", tools=[["a"], ["same"]]), scripted("two", tools=[["same", "b"]])
    async with routed(one, two, prefixes="never") as gateway:
        replies = [await gateway.call("tools/call", name=name) for name in ("a", "b", "same", "none")]

    assert ["one", "two"] == [reply.value["by"] for reply in replies[:2]]
    assert "the tool 'same' is offered by one and by two" in replies[2].message
    assert "unknown tool: none" == replies[3].message
    assert {"one": 2, "two": 1} == {u.name: u.methods.count("tools/list") for u in (one, two)}


async def test_a_changed_list_is_looked_up_again(autojump_clock, scripted, routed):
    """A new tool can be called as soon as its name is asked for, some seconds after the last look."""
    one, two = scripted("one", tools=[["a"]]), scripted("two", tools=[["b"]])
    async with routed(one, two, prefixes="never") as gateway:
        await gateway.call("tools/call", name="a")
        two.lists = {"tools": [["b", "new"]]}
        await gateway.advance(6)
        reply = await gateway.call("tools/call", name="new")

    assert "two" == reply.value["by"]


async def test_a_uri_goes_to_whoever_listed_it(autojump_clock, scripted, routed):
    """The owner alone is asked."""
    one, two = scripted("one", resources=[["a://1"]]), scripted("two", resources=[["b://1"]])
    async with routed(one, two) as gateway:
        await gateway.call("resources/list")
        reply = await gateway.call("resources/read", uri="b://1")

    assert "two" == reply.value["by"]
    assert "resources/read" not in one.methods


async def test_a_uri_nobody_listed_is_asked_for_in_turn_and_remembered(autojump_clock, scripted, routed):
    """Links from tools are often unlisted."""
    one, two = scripted("one", resources=[["a://1"]]), scripted("two", resources=[["b://1"]])
    async with routed(one, two) as gateway:
        replies = [await gateway.call("resources/read", uri="b://1") for _ in range(2)]
        unknown = await gateway.call("resources/read", uri="c://1")

    assert ["two", "two"] == [reply.value["by"] for reply in replies]
    assert 2 == one.methods.count("resources/read")
    assert ErrorReply(-32002, "resource not found") == unknown


async def test_a_uri_of_a_template_goes_to_its_owner(autojump_clock, scripted, routed):
    """As learned from the list of templates; completions of the template, too (DC-GP-03)."""
    one, two = scripted("one"), scripted("two", resourceTemplates=[["b://{id}"]], resources=[["b://7"]])
    async with routed(one, two) as gateway:
        await gateway.call("resources/templates/list")
        reply = await gateway.call("resources/read", uri="b://7")
        completed = await gateway.call("completion/complete", ref={"type": "ref/resource", "uri": "b://{id}"})

    assert ["two", "two"] == [reply.value["by"], completed.value["by"]]
    assert ["resources/templates/list"] == one.methods


async def test_a_dead_upstream_is_not_taken_for_one_that_has_nothing(autojump_clock, scripted, routed):
    """It may be the one: the failure is the answer if nobody else has it."""
    one, two = scripted("one"), scripted("two", resources=[["b://1"]])
    one.error = ConnectFailed("gone")
    async with routed(one, two) as gateway:
        found = await gateway.call("resources/read", uri="b://1")
        lost = await gateway.call("resources/read", uri="a://1")

    assert "two" == found.value["by"]
    assert "connect_failed" == lost.data["reason"]


async def test_an_ambiguous_or_hidden_uri_is_not_read(autojump_clock, scripted, routed):
    """Whose it is cannot be told; or it is denied everywhere."""
    upstreams = [scripted(name, resources=[["same://a", "x.key"]]) for name in ("one", "two")]
    hide = {"resources": {"deny": ["*.key"]}}
    async with routed(*upstreams, to={"one": hide, "two": hide}) as gateway:
        await gateway.call("resources/list")
        same = await gateway.call("resources/read", uri="same://a")
        hidden = await gateway.call("resources/read", uri="x.key")
        broken = await gateway.call("resources/read", uri=7)

    assert "one and by two" in same.message
    assert "resource not found: x.key" == hidden.message
    assert -32602 == broken.code
    assert all("resources/read" not in upstream.methods for upstream in upstreams)


async def test_a_prompts_completion_goes_to_the_prompts_upstream(autojump_clock, scripted, routed):
    """DC-GP-03: without prefix in the reference."""
    async with routed(scripted("one"), scripted("two")) as gateway:
        reply = await gateway.call("completion/complete", ref={"type": "ref/prompt", "name": "two.p"}, argument={})
        nobody = await gateway.call("completion/complete", ref={"type": "ref/prompt", "name": "p"})
        nothing = await gateway.call("completion/complete")

    assert {"by": "two", "params": {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {}}} == reply.value
    assert ("unknown prompt: p", -32602) == (nobody.message, nothing.code)


async def test_vendor_methods_go_by_rule(autojump_clock, scripted, routed):
    """S0-RR-01 to 05: exact, glob, prefix, regex, the most specific first; else -32601."""
    rules = [
        {"to": "one", "glob": "db/*"},
        {"to": "two", "exact": "db/query"},
        {"to": "two", "prefix": "auth/"},
        {"to": "one", "regex": r"^api/v\d+/.*$"},
    ]
    wanted = {"db/query": "two", "db/other": "one", "auth/login": "two", "author": None, "api/v2/x": "one",
              "api/vx/x": None}  # fmt: skip
    async with routed(scripted("one"), scripted("two"), rules=rules) as gateway:
        replies = {method: await gateway.call(method) for method in wanted}

    got = {m: r.value["by"] if isinstance(r, Result) else (None if r.code == -32601 else r) for m, r in replies.items()}
    assert wanted == got


async def test_a_vendor_method_goes_to_the_only_upstream(autojump_clock, scripted, routed):
    """S2-HF-01: as if there were no route; notifications, too."""
    one = scripted("one")
    async with routed(one) as gateway:
        await gateway.call("acme/x")
        gateway.start("notifications/acme")
        await gateway.advance(1)

    assert ["acme/x", "notifications/acme"] == one.methods


async def test_a_vendor_notification_of_nobody_is_dropped(autojump_clock, scripted, routed):
    """There is nobody to tell."""
    one, two = scripted("one"), scripted("two")
    async with routed(one, two) as gateway:
        gateway.start("notifications/acme")
        gateway.start("notifications/cancelled", requestId=1)
        await gateway.advance(1)

    assert [] == one.methods + two.methods


async def test_names_and_uris_go_by_rule(autojump_clock, scripted, routed):
    """Before prefixes, lists and templates."""
    rules = [{"to": "two", "of": "name", "glob": "f://*"}, {"to": "two", "of": "name", "exact": "alias"}]
    one, two = scripted("one", resources=[["f://1"]]), scripted("two", resources=[["f://1"]])
    async with routed(one, two, rules=rules) as gateway:
        read = await gateway.call("resources/read", uri="f://1")
        called = await gateway.call("tools/call", name="alias")

    assert ["two", "two"] == [read.value["by"], called.value["by"]]
    assert "alias" == called.value["params"]["name"]


async def test_progress_and_questions_pass(autojump_clock, scripted, routed):
    """What is relayed and asked on a call is the upstream's business with the client."""
    one = scripted("one")

    async def behave(exchange):
        await exchange.relay(Notification("notifications/progress", {"progressToken": 5, "progress": 1}))
        return await exchange.ask("roots/list", {})

    one.sink._behaviour = behave
    async with routed(one, scripted("two")) as gateway:

        async def ask(method, params):
            await trio.lowlevel.checkpoint()
            return Result({"asked": method})

        gateway.ask = ask
        call = gateway.start("tools/call", name="one.x")
        reply = await call.wait()

    assert Result({"asked": "roots/list"}) == reply
    assert [5] == [n.params["progressToken"] for n in call.interim]
