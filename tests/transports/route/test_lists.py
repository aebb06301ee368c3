"""Merged lists: complete, once, in order; and what happens when somebody is late, dead or ambiguous."""

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluiceway.pipeline.protocol.errors import ConnectFailed
from sluiceway.pipeline.protocol.messages import ErrorReply, Result
from sluiceway.pipeline.testing import legacy_client

MISSING = "io.sluiceway/missing"
COLLISIONS = "io.sluiceway/collisions"


async def test_three_upstreams_of_three_pages_come_back_complete_once(autojump_clock, scripted, routed, all_pages):
    """DC-GP-01: every name with its prefix, page by page, in the order of the configuration."""
    upstreams = [scripted(n, tools=[[f"t{p}a", f"t{p}b"] for p in range(3)]) for n in ("one", "two", "three")]
    async with routed(*upstreams) as gateway:
        pages = await all_pages(gateway, "tools/list")

    assert [[f"{n}.t{p}{c}" for n in ("one", "two", "three") for c in "ab"] for p in range(3)] == pages


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=4))
def test_any_page_sizes_come_back_complete_once(scripted, routed, all_pages, sizes):
    """Whatever the number of upstreams and the sizes of their pages, empty ones included."""
    upstreams, wanted = [], []
    for index, pages in enumerate(sizes):
        listed = [[f"t{number}.{item}" for item in range(size)] for number, size in enumerate(pages)]
        upstreams.append(scripted(f"u{index}", prompts=listed))
        wanted += [f"u{index}.{name}" for page in listed for name in page]

    async def read() -> list[str]:
        async with routed(*upstreams) as gateway:
            return [name for page in await all_pages(gateway, "prompts/list") for name in page]

    assert sorted(wanted) == sorted(trio.run(read))


async def test_definitions_keep_what_they_came_with(autojump_clock, scripted, routed):
    """Only the name of a tool changes; what the gateway does not know stays."""
    tool = {"name": "t", "inputSchema": {"$defs": {"x": {"$anchor": "a"}}}, "_meta": {"k": 1}, "icons": [], "new": None}
    one = scripted("one")
    one.answers["tools/list"] = lambda _: Result({"tools": [tool], "hint": "kept", "ttlMs": 5, "cacheScope": "public"})
    async with routed(one) as gateway:
        reply = await gateway.call("tools/list")

    assert Result({"tools": [{**tool, "name": "one.t"}], "hint": "kept", "ttlMs": 5, "cacheScope": "public"}) == reply


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", 7, "é", "=" * 5])
async def test_a_cursor_that_is_not_ours_is_refused(autojump_clock, scripted, routed, cursor):
    """DC-GP-01: -32602, and no upstream is asked."""
    one = scripted("one", tools=[["t"]])
    async with routed(one) as gateway:
        reply = await gateway.call("tools/list", cursor=cursor)

    assert isinstance(reply, ErrorReply)
    assert -32602 == reply.code
    assert [] == one.methods


async def test_an_empty_cursor_of_an_upstream_is_a_cursor(autojump_clock, scripted, routed):
    """The protocol says so, and only its absence ends a list."""
    one = scripted("one")
    one.answers["tools/list"] = lambda x: Result(
        {"tools": [], "nextCursor": ""} if "cursor" not in x.request.params else {"tools": [{"name": "last"}]}
    )
    async with routed(one) as gateway:
        first = await gateway.call("tools/list")
        second = await gateway.call("tools/list", cursor=first.value["nextCursor"])

    assert {"tools": [{"name": "one.last"}]} == second.value


async def test_a_circle_of_cursors_ends(autojump_clock, scripted, routed, all_pages):
    """The pages are given once or twice, then the upstream is named as missing."""
    one = scripted("one")
    following = {None: "a", "a": "b", "b": "c", "c": "a"}
    one.answers["tools/list"] = lambda x: Result({"tools": [], "nextCursor": following[x.request.params.get("cursor")]})
    async with routed(one) as gateway:
        pages = await all_pages(gateway, "tools/list")

    assert len(pages) < 12


async def test_the_page_of_a_cursor_an_upstream_refuses_is_its_refusal(autojump_clock, scripted, routed):
    """-32602 tells the client to begin again."""
    one = scripted("one", tools=[["a"], ["b"]])
    async with routed(one) as gateway:
        first = await gateway.call("tools/list")
        one.lists = {"tools": [["a"]]}
        reply = await gateway.call("tools/list", cursor=first.value["nextCursor"])

    assert ErrorReply(-32602, "bad cursor") == reply


async def test_a_dead_upstream_is_missing_and_the_others_are_there(autojump_clock, scripted, routed):
    """S2-HF-04: the union of the rest, with a note, and not to be kept."""
    one, two = scripted("one", tools=[["a"]]), scripted("two")
    two.error = ConnectFailed("gone")
    one.answers["tools/list"] = lambda _: Result({"tools": [{"name": "a"}], "ttlMs": 9000, "cacheScope": "public"})
    async with routed(one, two) as gateway:
        reply = await gateway.call("tools/list")

    assert {
        "tools": [{"name": "one.a"}],
        "ttlMs": 0,
        "cacheScope": "public",
        "_meta": {MISSING: ["two"]},
    } == reply.value


async def test_an_upstream_without_such_a_list_is_not_missing(autojump_clock, scripted, routed):
    """-32601 is an answer: it has none."""
    async with routed(scripted("one", prompts=[["a"]]), scripted("two")) as gateway:
        reply = await gateway.call("prompts/list")
        nobody = await gateway.call("tools/list")

    assert {"prompts": [{"name": "one.a", "of": "one"}]} == reply.value
    assert ErrorReply(-32601, "no such list") == nobody


async def test_nobody_left_is_an_error_that_may_be_repeated(autojump_clock, scripted, routed):
    """An empty list would be a lie."""
    one = scripted("one")
    one.error = ConnectFailed("gone")
    async with routed(one) as gateway:
        reply = await gateway.call("tools/list")

    assert "upstream_unavailable" == reply.data["reason"]


async def test_what_is_no_list_makes_its_upstream_missing(autojump_clock, scripted, routed):
    """A broken upstream does not break the others."""
    one, two = scripted("one", tools=[["a"]]), scripted("two")
    two.answers["tools/list"] = lambda _: Result({"tools": [{"title": "nameless"}]})
    async with routed(one, two) as gateway:
        reply = await gateway.call("tools/list")

    assert ["two"] == reply.value["_meta"][MISSING]


async def test_a_slow_upstream_is_left_out_and_announced_when_it_arrives(autojump_clock, scripted, routed):
    """S2-HF-03: the list comes at list_timeout; the next one has everything, although the upstream is still slow."""
    slow = scripted("slow", delay=8, tools=[["b"]])
    async with routed(scripted("fast", tools=[["a"]]), slow, list_timeout="2s") as gateway:
        listener = gateway.start("subscriptions/listen", notifications={"toolsListChanged": True})
        began = trio.current_time()
        first = await gateway.call("tools/list")
        took = trio.current_time() - began
        await gateway.advance(10)
        told = [n.method for n in listener.interim]
        second = await gateway.call("tools/list")
        listener.cancel()

    assert 2 == pytest.approx(took)
    assert ["slow"] == first.value["_meta"][MISSING]
    assert "notifications/tools/list_changed" in told
    assert ["fast.a", "slow.b"] == [tool["name"] for tool in second.value["tools"]]
    assert "_meta" not in second.value


async def test_a_legacy_session_is_told_when_a_list_is_late(autojump_clock, scripted, routed):
    """Over the session itself: it has no listener."""
    slow = scripted("slow", delay=1, tools=[["b"]])
    async with routed(slow, scripted("fast", tools=[["a"]])) as gateway:
        gateway.client, told = legacy_client(), []
        gateway.client.session.notify = told.append
        slow.delay = 7
        await gateway.call("tools/list")
        await gateway.advance(10)

    assert ["notifications/tools/list_changed"] == [n.method for n in told]


async def test_a_list_answers_before_its_own_deadline(autojump_clock, scripted, routed):
    """An exchange with less time than list_timeout gets what is there, not an error."""
    slow = scripted("slow", delay=60, tools=[["b"]])
    async with routed(scripted("fast", tools=[["a"]]), slow, list_timeout="600s") as gateway:
        reply = await gateway.call("tools/list")

    assert ["slow"] == reply.value["_meta"][MISSING]


async def test_filters_hide_and_renames_show(autojump_clock, scripted, routed, all_pages):
    """By the upstream's own names; uris have filters, too."""
    one = scripted("one", tools=[["read", "write", "drop_all"]], resources=[["f://a", "f://a.key"]])
    settings = {"tools": {"deny": ["drop_*"], "rename": {"read": "open"}}, "resources": {"deny": ["*.key"]}}
    async with routed(one, to={"one": settings}) as gateway:
        tools = await all_pages(gateway, "tools/list")
        uris = await all_pages(gateway, "resources/list", "uri")

    assert [["one.open", "one.write"]] == tools
    assert [["f://a"]] == uris


async def test_only_allowed_uris_are_listed(autojump_clock, scripted, routed, all_pages):
    """allow: those and no others."""
    one = scripted("one", resources=[["f://a", "g://a"]])
    async with routed(one, to={"one": {"resources": {"allow": ["f://*"]}}}) as gateway:
        uris = await all_pages(gateway, "resources/list", "uri")

    assert [["f://a"]] == uris


@pytest.mark.parametrize(
    ("policy", "names"),
    [("error", ["x", "y"]), ("first", ["same", "x", "y"]), ("prefix", ["one.same", "x", "two.Same", "y"])],
)
async def test_names_without_prefixes_collide_by_policy(autojump_clock, scripted, routed, all_pages, policy, names):
    """X-14, D-19, case 31: compared without case; never lost without a word, never one in the place of another."""
    one, two = scripted("one", tools=[["same"], ["x"]]), scripted("two", tools=[["y"], ["Same"]])
    async with routed(one, two, prefixes="never", collisions=policy) as gateway:
        pages = await all_pages(gateway, "tools/list")
        reply = await gateway.call("tools/list")

    assert sorted(names) == sorted(name for page in pages for name in page)
    noted = {"error": {"same": ["one", "two"], "Same": ["one", "two"]}, "first": {"Same": ["one", "two"]}}
    assert noted.get(policy) == reply.value.get("_meta", {}).get(COLLISIONS)


@pytest.mark.parametrize(("policy", "uris"), [("error", []), ("first", ["same://a"])])
async def test_a_uri_of_two_upstreams_collides(autojump_clock, scripted, routed, policy, uris):
    """Uris have no prefixes; the note names both, and so does the status where nobody has decided whose they are."""
    upstreams = [scripted(name, resources=[["same://a"]]) for name in ("one", "two")]
    async with routed(*upstreams, collisions=policy) as gateway:
        reply = await gateway.call("resources/list")

        states = {row["id"]: row["state"] for row in gateway.engine.status()["components"]}

    assert uris == [item["uri"] for item in reply.value["resources"]]
    assert {"same://a": ["one", "two"]} == reply.value["_meta"][COLLISIONS]
    assert ("degraded" if policy == "error" else "ready") == states["sinks.all"]


async def test_a_template_of_two_upstreams_is_the_firsts(autojump_clock, scripted, routed, all_pages):
    """DC-GP-02: templates are merged."""
    upstreams = [scripted(name, resourceTemplates=[["s://{id}", f"{name}://{{id}}"]]) for name in ("one", "two")]
    async with routed(*upstreams) as gateway:
        pages = await all_pages(gateway, "resources/templates/list", "uriTemplate")

    assert [["s://{id}", "one://{id}", "two://{id}"]] == pages


async def test_a_name_that_reads_as_anothers_is_noted(autojump_clock, scripted, routed):
    """An upstream without prefix cannot take a name that begins with the prefix of another one."""
    upstreams = [scripted("main", tools=[["plain", "two.t"]]), scripted("two", tools=[["t"]])]
    async with routed(*upstreams, to={"main": {"prefix": ""}, "two": {}}) as gateway:
        reply = await gateway.call("tools/list")
        called = await gateway.call("tools/call", name="two.t")

    assert ["plain", "two.t"] == [tool["name"] for tool in reply.value["tools"]]
    assert {"two.t": ["two", "main"]} == reply.value["_meta"][COLLISIONS]
    assert "two" == called.value["by"]
