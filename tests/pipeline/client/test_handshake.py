"""Which era and revision a server speaks."""

import pytest
import trio

from sluiceway.pipeline.client.errors import HttpStatus, McpError
from sluiceway.pipeline.client.handshake import Server
from sluiceway.pipeline.protocol.errors import UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification


async def test_a_server_that_discovers_is_modern(fake_wire):
    """One request, and no handshake."""
    wire = fake_wire({"server/discover": fake_wire.MODERN})
    async with wire.talk() as client:
        assert (Era.MODERN, "2026-07-28") == (client.era, client.version)
        assert Server({"name": "fake"}, {"tools": {}}, "be kind") == client.server

    assert wire.methods() == ["server/discover"]
    assert wire.calls[0].params["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"


UNSUPPORTED = -32022
LEGACY_ANSWERS = [
    ErrorReply(-32601, "Method not found"),
    ErrorReply(-32600, "Server not initialized"),
    ErrorReply(-32000, "Bad Request", http_status=400),
    ErrorReply(UNSUPPORTED, "?", {"supported": ["2025-11-25"], "requested": "2026-07-28"}),
    {"supportedVersions": ["2099-01-01", "2025-11-25"]},
    HttpStatus("http://x", 400, "no session"),
    HttpStatus("http://x", 404, ""),
]


@pytest.mark.parametrize("answer", LEGACY_ANSWERS)
async def test_any_other_answer_means_the_handshake(fake_wire, answer):
    """No single code is relied on (2026-07-28, basic/versioning)."""
    wire = fake_wire({"server/discover": answer})
    async with wire.talk() as client:
        assert (Era.LEGACY, "2025-06-18") == (client.era, client.version)
        assert Server({"name": "old"}, {"tools": {}}) == client.server

    assert wire.methods() == ["server/discover", "initialize"]
    assert wire.calls[1].params["protocolVersion"] == "2025-11-25"
    assert wire.calls[1].params["clientInfo"] == {"name": "tester", "version": "1"}
    assert wire.sent == [Notification("notifications/initialized")]


async def test_a_server_that_does_not_answer_the_question_is_legacy(fake_wire, autojump_clock):
    """The wait is bounded, and the unanswered question is not cancelled: the server may not know what that is."""
    wire = fake_wire({"server/discover": fake_wire.silent})
    async with wire.talk() as client:
        assert client.era is Era.LEGACY

    assert trio.current_time() == 5.0
    assert wire.sent == [Notification("notifications/initialized")]


@pytest.mark.parametrize(
    "answer",
    [
        ErrorReply(-32020, "Mcp-Method is missing"),
        ErrorReply(-32021, "needs sampling"),
        ErrorReply(UNSUPPORTED, "?", {"supported": ["2099-01-01"]}),
        ErrorReply(UNSUPPORTED, "?"),
        ErrorReply(40100, "who are you", http_status=401),
    ],
)
async def test_an_error_that_initialize_would_get_too_is_raised(fake_wire, answer):
    """A modern server's refusal is not a reason to fall back (protocol trap 17)."""
    wire = fake_wire({"server/discover": answer})
    with pytest.raises(McpError, match=r".") as caught:
        async with wire.talk():
            raise AssertionError("there is nobody to talk to")

    assert answer.code == caught.value.code
    assert wire.methods() == ["server/discover"]


@pytest.mark.parametrize("status", [401, 403, 429, 502])
async def test_a_status_that_says_nothing_about_the_era_is_raised(fake_wire, status):
    """A missing credential stays a missing credential."""
    wire = fake_wire({"server/discover": HttpStatus("http://x", status, "")})
    with pytest.raises(HttpStatus, match=str(status)):
        async with wire.talk():
            raise AssertionError("there is nobody to talk to")


async def test_whoever_insists_on_an_era_gets_it_or_an_error(fake_wire, autojump_clock):
    """`legacy` asks nothing; `modern` does not fall back."""
    wire = fake_wire({})
    async with wire.talk("legacy") as client:
        assert client.era is Era.LEGACY
    assert wire.methods() == ["initialize"]

    for answer, error in (
        (ErrorReply(-32601, "no"), McpError),
        (fake_wire.silent, UpstreamProtocolError),
        (HttpStatus("http://x", 404, ""), HttpStatus),
    ):
        with pytest.raises(error):
            async with fake_wire({"server/discover": answer}).talk("modern"):
                raise AssertionError("there is nobody to talk to")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (ErrorReply(-32000, "go away"), "go away"),
        ({"protocolVersion": "2024-10-07"}, "the server speaks '2024-10-07'"),
        ({}, "the server speaks None"),
    ],
)
async def test_a_handshake_without_a_common_revision_fails(fake_wire, answer, text):
    """The error lists what this client speaks."""
    with pytest.raises(McpError, match=text):
        async with fake_wire({"initialize": answer}).talk():
            raise AssertionError("there is nobody to talk to")
