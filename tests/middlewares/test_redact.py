"""What is masked, where, and what must stay."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.middlewares.redact import Redact
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Result
from sluiceway.pipeline.telemetry.redaction import digest


def stage(bench, **options: object) -> Redact:
    return Redact(Redact.Config(**options), bench.context())


async def through(bench, redact: Redact, params: dict[str, Json], reply: object, *interim: Notification):
    """What the upstream got, and what the client got, of one call."""
    seen = []

    async def sink(exchange):
        seen.append(exchange.request)
        for notification in interim:
            await exchange.relay(notification)
        return reply

    answer = await bench.service(sink, redact)(bench.exchange("tools/call", params))
    return seen[0], answer


async def test_names_are_masked_wherever_they_stand_in_what_is_said(bench):
    """In arguments, structured content, JSON as text, error data and log messages; `keys` are compared loosely."""
    redact = stage(bench, keys=("password", "*secret*"))
    params = {"name": "password", "arguments": {"a": [{"Pass-Word": "p"}], "b": 1}, "_meta": {"progressToken": "t"}}
    text = json.dumps({"rows": [{"client_secret": 7}], "more": "é"})
    result = {
        "content": [{"type": "text", "text": text}, {"type": "text", "text": "password: no JSON"}],
        "structuredContent": {"password": {"all": "of it"}},
        "nextCursor": "secret",
    }
    log = Notification("notifications/message", {"level": "info", "data": {"password": "p"}})

    request, reply = await through(bench, redact, params, Result(result), log)

    assert request.params == {**params, "arguments": {"a": [{"Pass-Word": "***"}], "b": 1}}
    assert json.loads(reply.value["content"][0]["text"]) == {"rows": [{"client_secret": "***"}], "more": "é"}
    assert reply.value["content"][1] == result["content"][1]
    assert reply.value["structuredContent"] == {"password": "***"}
    assert reply.value["nextCursor"] == "secret"
    assert [each.params["data"] for each in bench.sent] == [{"password": "***"}]


async def test_paths_are_masked_where_they_lead(bench):
    """A star is any one name or index, or a part of a name; what a path does not reach stays."""
    redact = stage(bench, paths=("params.arguments.card*", "result.people.*.email", "error.message", "error.data.0"))
    params = {"name": "pay", "arguments": {"card_number": 4, "other": {"card": 1}}}

    request, reply = await through(bench, redact, params, Result({"people": [{"email": "a@b", "id": 1}, "x"]}))
    _, failure = await through(bench, redact, params, ErrorReply(-1, "card 4 is no good", [4, 5], 502))

    assert request.params["arguments"] == {"card_number": "***", "other": {"card": 1}}
    assert reply.value == {"people": [{"email": "***", "id": 1}, "x"]}
    assert failure == ErrorReply(-1, "***", ["***", 5])
    assert failure.http_status == 502


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("mask", {"a": "***", "b": ["***", 2]}),
        ("digest", {"a": digest({"x": 1}), "b": [digest(1), 2]}),
        ("remove", {"b": [None, 2]}),
    ],
)
async def test_the_style_says_what_is_left(bench, style, expected):
    """Of a member, and of an element of a list."""
    redact = stage(bench, paths=("result.a", "result.b.0"), style=style)

    _, reply = await through(bench, redact, {"name": "x"}, Result({"a": {"x": 1}, "b": [1, 2]}))

    assert reply.value == expected


@pytest.mark.parametrize(("requests", "replies"), [(True, False), (False, True)])
async def test_each_direction_can_be_left_alone(bench, requests, replies):
    """`requests` and `replies` are the two."""
    redact = stage(bench, paths=("params.name", "result.name"), requests=requests, replies=replies)

    request, reply = await through(bench, redact, {"name": "x"}, Result({"name": "y"}))

    assert request.params["name"] == ("***" if requests else "x")
    assert reply.value["name"] == ("***" if replies else "y")


async def test_what_has_nothing_to_mask_passes_as_it_is(bench):
    """The very same request and reply, so that they leave as the bytes they came as; and no decision."""
    redact = stage(bench, keys=("password",), paths=("result.a.b.c", "params.x.*"))
    reply = Result({"a": {"b": [1]}, "content": [{"type": "text", "text": '{"fine": 1}'}]})
    exchange = bench.exchange("tools/call", {"name": "x", "arguments": {"deep": [[1]]}})
    seen = []

    async def sink(inner):
        seen.append(inner.request)
        return reply

    answer = await bench.service(sink, redact)(exchange)

    assert seen[0] is exchange.request
    assert answer is reply
    assert exchange.link.decisions == []


async def test_decisions_say_what_was_masked_and_not_what_it_was(bench):
    """One for each message."""
    redact = stage(bench, paths=("params.name", "result.name", "notification.data"))
    exchange = bench.exchange("tools/call", {"name": "x"})

    async def sink(inner):
        await inner.relay(Notification("notifications/message", {"data": "hush"}))
        return Result({"name": "y"})

    await bench.service(sink, redact)(exchange)

    assert [("mask", "request"), ("mask", "notification"), ("mask", "reply")] == [
        (each.outcome, each.cause) for each in exchange.link.decisions
    ]


@pytest.mark.parametrize("text", ["{", "[1", "{nonsense}", "[" * 100_000, '{"password": "\\ud800"}', " [] "])
async def test_text_that_only_looks_like_json_harms_nobody(bench, text):
    """And a lone surrogate that is masked away, or stays, can still be encoded."""
    redact = stage(bench, keys=("password",))

    _, reply = await through(bench, redact, {"name": "x"}, Result({"content": [{"type": "text", "text": text}]}))

    assert reply.value["content"][0]["text"] == ('{"password":"***"}' if "password" in text else text)


@pytest.mark.parametrize(
    "options", [{}, {"paths": ("arguments.x",)}, {"paths": ("params",)}, {"paths": ("result..a",)}]
)
def test_options_that_mask_nothing_are_refused(options):
    """With an example of what would do."""
    with pytest.raises(ValueError, match=r"say what, with paths or keys|for example params\.arguments\.card"):
        Redact.Config(**options)


JSON = st.recursive(
    st.integers() | st.text("ab") | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "key"]), inner, max_size=3),
)


def _values_of(value: Json, name: str) -> list[Json]:
    found = [value[name]] if isinstance(value, dict) and name in value else []
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return found + [each for item in items for each in _values_of(item, name)]


@given(JSON)
def test_no_value_of_a_hidden_name_is_left_and_nothing_else_changes(value: Json) -> None:
    """Whatever the value looks like; and the original is as it was."""
    from sluiceway.middlewares.redact import _Masker

    before = json.dumps(value)
    masked = _Masker(("key",), "mask")({"arguments": value}, ())["arguments"]

    assert set(map(str, _values_of(masked, "key"))) <= {"***"}
    assert json.dumps(value) == before
    assert (masked is value) == (_values_of(value, "key") == [])
