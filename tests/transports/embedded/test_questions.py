"""Questions to the client, in both eras."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import attrs
import pytest
import trio

from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.messages import ErrorReply, Result
from sluiceway.transports.embedded import Context, Elicit, Message, Question, Roots, Sample, Server
from sluiceway.transports.embedded.questions import missing_capability

MODERN = "2026-07-28"
NAME = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
BO = {"action": "accept", "content": {"name": "Bo"}}
SAID = {"role": "assistant", "content": {"type": "text", "text": "Paris"}, "model": "m", "stopReason": "endTurn"}
ROOTS = {"roots": [{"uri": "file:///a", "name": "A"}, {"uri": "file:///b"}]}


@attrs.frozen
class When:
    at: datetime


@attrs.frozen
class Order:
    dish: Literal["soup", "pie"]
    count: int = 1


def asking() -> Server:
    server = Server("s")

    @server.tool()
    async def name(ctx: Context) -> str:
        answer = await ctx.elicit("Who?", NAME)
        return f"{answer.action} {answer.content}"

    @server.tool()
    async def order(ctx: Context) -> str:
        answer = await ctx.elicit("What?", Order, key="order")
        return repr(answer.content)

    @server.tool()
    async def when(ctx: Context) -> str:
        return str((await ctx.elicit("When?", When)).content.at.year)

    @server.tool()
    async def visit(ctx: Context) -> str:
        return (await ctx.elicit_url("Please sign in", "https://example.com/x")).action

    @server.tool()
    async def model(ctx: Context) -> str:
        said = await ctx.sample([Message("Capital?"), "Really?"], 9, system_prompt="short", temperature=0.5)
        return f"{said.text} {said.model} {said.stop_reason}"

    @server.tool()
    async def places(ctx: Context) -> str:
        return " ".join(f"{root.uri}={root.name}" for root in await ctx.roots())

    @server.tool()
    async def rounds(ctx: Context) -> str:
        who = await ctx.elicit("Who?", NAME)
        said = await ctx.sample(f"Greet {who.content['name']}", 9)
        where = await ctx.roots()
        return f"{said.text}, {who.content['name']} ({len(where)})"

    @server.tool()
    async def together(ctx: Context) -> str:
        who, said = await ctx.ask(Elicit("Who?", NAME, key="who"), Sample(("Hi",), 9, key="said"))
        return f"{who.content} {said.text}"

    @server.tool()
    async def careless(ctx: Context) -> str:
        try:
            return (await ctx.elicit("Who?", NAME)).action
        except Exception:  # what a careless handler does
            return "swallowed"

    @server.tool()
    async def nested(ctx: Context) -> str:
        found: list[Any] = []

        async def ask() -> None:
            found.append(await ctx.elicit("Who?", NAME))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
        return str(found[0].action)

    return server


async def rounds_of(peer: Any, name: str, *answers: dict[str, Any], method: str = "tools/call") -> dict[str, Any]:
    """Call, and answer each round with the next of `answers`, by order of the questions in it."""
    params: dict[str, Any] = {"name": name}
    given = list(answers)
    while True:
        result: dict[str, Any] = await peer.result(method, params)
        if result.get("resultType") != "input_required":
            return result
        responses = {key: given.pop(0) for key in result["inputRequests"]}
        params = {"name": name, "inputResponses": responses, "requestState": result["requestState"]}


CASES = [
    ("name", ({"action": "cancel"},), "cancel None"),
    ("name", (BO,), "accept {'name': 'Bo'}"),
    ("name", ({"action": "decline"},), "decline None"),
    ("order", ({"action": "accept", "content": {"dish": "pie"}},), "Order(dish='pie', count=1)"),
    ("when", ({"action": "accept", "content": {"at": "2026-11-21T12:00:00Z"}},), "2026"),
    ("visit", ({"action": "accept"},), "accept"),
    ("model", (SAID,), "Paris m endTurn"),
    ("places", (ROOTS,), "file:///a=A file:///b=None"),
    ("rounds", (BO, SAID, ROOTS), "Paris, Bo (2)"),
    ("together", (BO, SAID), "{'name': 'Bo'} Paris"),
    ("careless", (BO,), "accept"),
    ("nested", (BO,), "accept"),
]


@pytest.mark.parametrize(("tool", "answers", "text"), CASES)
async def test_a_legacy_client_is_asked_on_the_requests_own_stream(
    connect: Any, tool: str, answers: tuple[Any, ...], text: str
) -> None:
    """Each question is a request to the client while the tool waits; its message fits the published schema."""
    async with connect(asking(), answers=[Result(answer) for answer in answers]) as peer:
        said = await peer.call(tool)

    assert (text, len(answers)) == (said, len(peer.asked))


@pytest.mark.parametrize(("tool", "answers", "text"), CASES)
async def test_a_modern_client_answers_in_rounds(connect: Any, tool: str, answers: tuple[Any, ...], text: str) -> None:
    """The same tools, unchanged: questions are `input_required` results, and the tool runs again (SEP-2322)."""
    async with connect(asking(), version=MODERN) as peer:
        result = await rounds_of(peer, tool, *answers)

    assert ([text], []) == ([block["text"] for block in result["content"]], peer.asked)


async def test_questions_put_together_come_in_one_round(connect: Any) -> None:
    """`ctx.ask` asks everything that is still open at once, and only that."""
    async with connect(asking(), version=MODERN) as peer:
        first = await peer.result("tools/call", {"name": "together"})
        second = await peer.result(
            "tools/call", {"name": "together", "inputResponses": {"who": BO}, "requestState": first["requestState"]}
        )
        last = await peer.result(
            "tools/call", {"name": "together", "inputResponses": {"said": SAID}, "requestState": second["requestState"]}
        )

    assert [["who", "said"], ["said"]] == [list(each["inputRequests"]) for each in (first, second)]
    assert "{'name': 'Bo'} Paris" == last["content"][0]["text"]


async def test_an_answer_once_given_cannot_be_changed(connect: Any) -> None:
    """What the state holds comes before what a later retry says."""
    async with connect(asking(), version=MODERN) as peer:
        first = await peer.result("tools/call", {"name": "together"})
        second = await peer.result(
            "tools/call", {"name": "together", "inputResponses": {"who": BO}, "requestState": first["requestState"]}
        )
        changed = {"who": {"action": "accept", "content": {"name": "Eve"}}, "said": SAID, "unknown": {}}
        last = await peer.result(
            "tools/call", {"name": "together", "inputResponses": changed, "requestState": second["requestState"]}
        )

    assert "{'name': 'Bo'} Paris" == last["content"][0]["text"]


async def test_wrong_keys_are_asked_for_again(connect: Any) -> None:
    """Missing answers are requested anew, not refused."""
    async with connect(asking(), version=MODERN) as peer:
        result = await peer.result("tools/call", {"name": "together", "inputResponses": {"wrong": BO}})

    assert ["who", "said"] == list(result["inputRequests"])


@pytest.mark.parametrize(
    "retry",
    [
        {"requestState": "rubbish"},
        {"inputResponses": None},
        {"inputResponses": {"question_1": 12345}},
        {"inputResponses": {"question_1": {"action": "shrug"}}},
        {"inputResponses": {"question_1": {"action": "accept"}}},
        {"inputResponses": {"question_1": {"action": "accept", "content": {"name": 7}}}},
    ],
)
async def test_a_retry_that_cannot_be_trusted_or_used_is_refused(connect: Any, retry: dict[str, Any]) -> None:
    """A JSON-RPC error, never a result."""
    async with connect(asking(), version=MODERN) as peer:
        error = await peer.error("tools/call", {"name": "name", **retry})

    assert (-32602, 200) == (error.code, error.http_status)


async def test_a_state_expires_and_belongs_to_its_caller(connect: Any, autojump_clock: Any) -> None:
    """Too late, or from somebody else, it is refused."""
    async with connect(asking(), version=MODERN, state_ttl=5.0) as peer:
        first = await peer.result("tools/call", {"name": "name"})
        retry = {"name": "name", "inputResponses": {"question_1": BO}, "requestState": first["requestState"]}
        peer.caller = Caller("eve")
        stolen = await peer.error("tools/call", retry)
        peer.caller = Caller("anonymous")
        in_time = await peer.result("tools/call", retry)
        await trio.sleep(6)
        late = await peer.error("tools/call", retry)

    assert (-32602, -32602, "accept {'name': 'Bo'}") == (stolen.code, late.code, in_time["content"][0]["text"])


async def test_too_many_answers_fail_the_request(connect: Any) -> None:
    """What does not fit into a state is refused with the limit."""
    huge = {"action": "accept", "content": {"name": "x" * 300_000}}
    async with connect(asking(), version=MODERN) as peer:
        error = await peer.error("tools/call", {"name": "rounds", "inputResponses": {"question_1": huge}})

    assert -32603 == error.code
    assert "ask for less" in error.message


@pytest.mark.parametrize(
    ("tool", "required"),
    [
        ("name", {"elicitation": {}}),
        ("visit", {"elicitation": {"url": {}}}),
        ("model", {"sampling": {}}),
        ("places", {"roots": {}}),
    ],
)
async def test_nobody_is_asked_what_it_did_not_declare(connect: Any, tool: str, required: dict[str, Any]) -> None:
    """-32021 with the missing capability since 2026-07-28, a failed tool before."""
    async with connect(asking(), version=MODERN, capabilities={}) as peer:
        modern = await peer.error("tools/call", {"name": tool})
    async with connect(asking(), capabilities={}) as peer:
        legacy = await peer.call(tool, raw=True)

    assert (-32021, {"requiredCapabilities": required}, 400) == (modern.code, modern.data, modern.http_status)
    assert legacy["isError"]
    assert next(iter(required)) in legacy["content"][0]["text"]


def test_an_empty_elicitation_capability_means_forms_only() -> None:
    """2025-11-25, client/elicitation: `{}` is form mode; url mode is declared."""
    form: dict[str, Any] = {"elicitation": {}}
    url: dict[str, Any] = {"elicitation": {"url": {}}}

    assert [None, {"elicitation": {"url": {}}}] == [
        missing_capability(each, {"elicitation": {}}) for each in (form, url)
    ]
    assert [{"elicitation": {"form": {}}}, None] == [
        missing_capability(each, {"elicitation": {"url": {}}}) for each in (form, url)
    ]


async def test_a_handler_can_ask_what_the_client_can(connect: Any, version: str) -> None:
    """`ctx.can` tells before asking."""
    server = Server("s")

    @server.tool()
    def able(ctx: Context) -> str:
        return f"{ctx.can(Roots())} {ctx.can(Elicit('?', NAME))}"

    async with connect(server, version=version, capabilities={"roots": {}}) as peer:
        assert "True False" == await peer.call("able")


@pytest.mark.parametrize(
    ("tool", "answer", "text"),
    [
        ("name", ErrorReply(-1, "no thanks"), "the client refused elicitation/create: no thanks"),
        ("name", Result({"action": "shrug"}), "cannot be used: action must be"),
        ("name", Result({"action": "accept", "content": {}}), "content: "),
        ("order", Result({"action": "accept", "content": {"dish": "tea"}}), "content.dish"),
        ("when", Result({"action": "accept", "content": {"at": "soon"}}), "content: at: Invalid RFC3339"),
        ("model", Result({"content": "x"}), "needs content and model"),
        ("places", Result({"roots": [{}]}), "roots with a uri"),
    ],
)
async def test_a_legacy_clients_bad_answer_fails_the_tool(connect: Any, tool: str, answer: Any, text: str) -> None:
    """Refused or unusable: the model sees why."""
    async with connect(asking(), answers=[answer]) as peer:
        result = await peer.call(tool, raw=True)

    assert result["isError"]
    assert text.split(".")[0] in result["content"][0]["text"]


async def test_prompts_and_resources_ask_too(connect: Any) -> None:
    """Three methods may be answered with questions; the same handlers serve both eras."""
    server = Server("s")

    @server.prompt()
    async def greet(ctx: Context) -> str:
        return f"Greet {(await ctx.elicit('Who?', NAME, key='who')).content['name']}"

    @server.resource("hello://{word}")
    async def hello(word: str, ctx: Context) -> str:
        return f"{word} {(await ctx.elicit('Who?', NAME, key='who')).content['name']}"

    async with connect(server, version=MODERN) as peer:
        prompt = await rounds_of(peer, "greet", BO, method="prompts/get")
        first = await peer.result("resources/read", {"uri": "hello://hi"})
        state = {"inputResponses": {"who": BO}, "requestState": first["requestState"]}
        resource = await peer.result("resources/read", {"uri": "hello://hi", **state})
        other = await peer.error("resources/read", {"uri": "hello://ho", **state})
    async with connect(server, answers=[Result(BO)]) as peer:
        legacy = await peer.result("resources/read", {"uri": "hello://hi"})

    assert "Greet Bo" == prompt["messages"][0]["content"]["text"]
    assert ["hi Bo", "hi Bo"] == [each["contents"][0]["text"] for each in (resource, legacy)]
    assert "ttlMs" not in first
    assert -32602 == other.code


async def test_other_methods_cannot_ask_a_modern_client(connect: Any) -> None:
    """Only tools, prompts and resources may; a method of one's own fails with the reason."""
    server = Server("s")

    @server.method("own/method")
    async def own(ctx: Context) -> dict[str, str]:
        return {"action": (await ctx.elicit("Who?", NAME)).action}

    async with connect(server, version=MODERN) as peer:
        error = await peer.error("own/method", {"inputResponses": {"question_1": BO}})
    async with connect(server, answers=[Result(BO)]) as peer:
        legacy = await peer.result("own/method")

    assert (-32603, {"action": "accept"}) == (error.code, legacy)
    assert "own/method" in error.message


def test_the_base_of_questions_is_abstract() -> None:
    """A question without a kind cannot be asked."""
    question: Question[Any] = Question()

    for use in (
        lambda: question.method,
        lambda: question.needs,
        lambda: question.params(None),
        lambda: question.read({}),
    ):
        with pytest.raises(TypeError, match="abstract"):
            use()


async def test_sampled_text_joins_the_blocks(connect: Any) -> None:
    """A model may answer with several blocks (2025-11-25)."""
    blocks = {**SAID, "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]}
    async with connect(asking(), answers=[Result(blocks)]) as peer:
        assert "ab m endTurn" == await peer.call("model")
