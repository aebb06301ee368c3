"""What a client does when the server speaks first."""

from sluiceway.pipeline.client.errors import McpError
from sluiceway.pipeline.client.handlers import Handlers
from sluiceway.pipeline.protocol.messages import ErrorReply, Result


async def answer(params):
    return {"got": params}


async def refuse(_params):
    raise McpError(-1, "the user said no", {"why": "busy"})


async def hear(_notification):
    """Listens."""


def test_only_what_is_answered_is_declared():
    """A server does not ask for what it was not offered."""
    assert Handlers().capabilities == {}
    assert {"sampling": {}, "elicitation": {"form": {}, "url": {}}, "roots": {}} == Handlers(
        sampling=answer, elicitation=answer, roots=answer
    ).capabilities


def test_a_client_listens_if_it_has_an_ear_or_an_answer():
    """Otherwise nobody needs to open a stream for it."""
    assert not Handlers().listens
    assert Handlers(notification=hear).listens
    assert Handlers(roots=answer).listens


async def test_questions_go_to_their_answers_and_the_rest_is_refused():
    """Ping is always answered, and an answer may be an error."""
    handlers = Handlers(sampling=answer, elicitation=refuse)

    assert Result({"got": {"a": 1}}) == await handlers.answer("sampling/createMessage", {"a": 1})
    assert ErrorReply(-1, "the user said no", {"why": "busy"}) == await handlers.answer("elicitation/create", {})
    assert Result({}) == await handlers.answer("ping", {})
    assert ErrorReply(-32601, "this client does not answer roots/list") == await handlers.answer("roots/list", {})
