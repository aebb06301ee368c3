"""What looks secret is not written down, and equal secrets stay equal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.protocol.messages import Body, Notification, Request, Result, encode_json
from sluiceway.pipeline.replay.entries import Called, ReplyData
from sluiceway.pipeline.replay.lines import render_entry
from sluiceway.pipeline.replay.masking import Masking
from sluiceway.pipeline.replay.values import Render

KEY = b"k" * 32
CANARY = "canary-7f3a"


def written(message: Request | Notification, masking: Masking) -> str:
    """What a tape has of a message."""
    found = Render(masking, spliced=True).message(message)
    return render_entry(Called(t=0.0, exchange=1, call=1, sink="up", message=found)).decode()


@pytest.mark.parametrize(
    "params",
    [
        {"arguments": {"password": CANARY}},
        {"arguments": {"API-Key": CANARY}},
        {"arguments": {"db": [{"Pass_Word": CANARY}]}},
        {"arguments": {"credentials": {"user": [CANARY]}}},
        {"uri": f"https://me:{CANARY}@example.com/"},
        {"uri": f"https://example.com/?a=b&access_token={CANARY}"},
        {"requestState": CANARY},
        {"arguments": {"inputSchema": {"password": CANARY}}},
        {"arguments": {"secret": {"n": 5, "deep": {"x": CANARY}}}},
    ],
)
def test_a_secret_is_nowhere_in_what_is_written(params):
    """At any depth, under any spelling of its key, in uris."""
    assert CANARY not in written(Request(1, "tools/call", params), Masking(KEY))


@pytest.mark.parametrize("text", [b'{"pass\\u0077ord":"canary-7f3a"}', b'{"a":"x:\\/\\/u:canary-7f3a@h"}'])
def test_an_escaped_letter_hides_no_secret(text):
    """What the text of a result shows is not what its keys are."""
    reply = Render(Masking(KEY), spliced=True).reply(Result(raw=text), "tools/call")

    assert CANARY not in json.dumps(reply.result)


def test_what_is_no_secret_stays_as_it_is():
    """MCP's own names that sound like secrets, numbers, texts, and everything else."""
    params = {"name": "add", "arguments": {"a": 1, "b": [None, True, 1.5]}, "_meta": {"progressToken": "tick"},
              "maxTokens": 5, "long": "x" * 10_000}  # fmt: skip

    assert Masking(KEY).object(params) == params
    assert json.loads(written(Request(1, "tools/call", params), Masking(KEY)))["message"]["params"] == params


def test_equal_secrets_are_equal_on_one_tape_only():
    """A replay decides alike; nobody compares tapes, or tries out passwords."""
    one, again, other = (Masking(key).fingerprint("hunter2") for key in (KEY, KEY, b"o" * 32))

    assert one == again != other
    assert one.startswith("***:")
    assert Masking(KEY).fingerprint("hunter3") != one


def test_schemas_keep_the_names_of_their_fields():
    """A tool with a field `password` has no secret in its schema; other members of the same tool may."""
    schema = {"type": "object", "properties": {"password": {"type": "string"}}}
    tools = {"tools": [{"name": "login", "inputSchema": schema, "annotations": {"token": CANARY}}]}
    render = Render(Masking(KEY))

    found = render.reply(Result(tools), "tools/list").result
    assert found is not None
    assert found["tools"][0]["inputSchema"] == schema
    assert CANARY not in json.dumps(found)
    elsewhere = render.reply(Result(dict(tools)), "tools/call").result
    assert elsewhere is not None
    assert elsewhere["tools"][0]["inputSchema"] != schema


def test_headers_are_kept_if_they_are_known_to_be_harmless():
    """Unknown ones may be anything; one that looks like a credential is never kept, whoever asks for it."""
    headers = {"host": "a", "authorization": CANARY, "x-api-key": CANARY, "cookie": CANARY, "x-mine": CANARY,
               "mcp-session-id": CANARY, "x-client-name": "c"}  # fmt: skip
    masking = Masking(KEY, headers=("x-client-*", "x-api-key", "authorization", "mcp-session-id"))

    assert masking.headers(headers) == {"host": "a", "x-client-name": "c"}


def test_more_keys_can_be_named():
    """Whatever the shape of the glob."""
    params = {"iban": CANARY, "x": {"personal_no": CANARY}}

    assert CANARY not in written(Request(1, "tools/call", params), Masking(KEY, ("*iban*", "per*no")))
    assert CANARY in written(Request(1, "tools/call", params), Masking(KEY))


def test_secrets_of_the_configuration_are_found_anywhere():
    """Also where they need escapes; short ones would be found everywhere, and are not looked for."""
    masking = Masking(KEY)
    masking.hide(['pa"ss\\word', "abc", "pa", "hunter2"])
    text = encode_json({"said": 'it is pa"ss\\word and hunter2!', "abc": "abc"})

    assert json.loads(masking.text(text)) == {"said": "it is *** and ***!", "abc": "abc"}
    assert Masking(KEY).text(text) == text


def test_a_notification_that_cannot_be_read_is_written_without_params():
    """Its upstream may have hidden anything in it."""
    message = Notification("notifications/message", Body(raw=b'{"a":1,"a":2}'))

    assert Render(Masking(KEY)).message(message).params == {}


KEYS = st.sampled_from(["password", "PassWord", "note", "api-key", "list", "token", "progressToken", "a"])
TREES = st.recursive(
    st.integers() | st.none() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(KEYS, TREES, max_size=4))
def test_the_quick_look_and_the_close_one_agree(params):
    """Text that is said to be clean is what the masked value would have been."""
    masking = Masking(KEY)
    found = json.loads(written(Request(1, "tools/call", params), masking))["message"].get("params", {})

    assert found == masking.object(params)


def test_an_integer_of_any_length_is_written():
    """Clients may send one."""
    assert str(10**40) in written(Request(1, "tools/call", {"n": 10**40}), Masking(KEY))


def test_text_that_is_spliced_in_is_one_line():
    """An upstream may have sent it with line feeds."""
    reply = Render(Masking(KEY), spliced=True).reply(Result(raw=b'{\n "a":\n 1}'), "tools/call")

    assert reply == ReplyData(result={"a": 1})
