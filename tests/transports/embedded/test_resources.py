"""Resources and templates."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from sluiceway.pipeline.protocol.errors import InternalError as GatewayInternalError
from sluiceway.transports.embedded import Contents, Context, NotFound, Server, ToolError


@attrs.frozen
class Row:
    id: int


def library() -> Server:
    server = Server("s", ttl_ms=5, cache_scope="public")

    @server.resource("config://app", title="App", size=2, annotations={"priority": 0.5}, meta={"k": 1})
    def app() -> dict[str, int]:
        """The configuration."""
        return {"a": 1}

    @server.resource("text://t", ttl_ms=7, cache_scope="private")
    def text() -> str:
        return "hello"

    @server.resource("bytes://b", mime_type="image/png")
    def data() -> bytes:
        return b"\x01"

    @server.resource("one://o", mime_type="text/x-own")
    def one() -> Contents:
        return Contents("a", meta={"k": 1})

    @server.resource("many://m")
    def many() -> list[Contents]:
        return [Contents("a"), Contents(b"\x02", "x/y", "many://m/2")]

    @server.resource("user://{key}/data")
    def user(key: int) -> Row:
        return Row(key)

    @server.resource("user://{key}/{part}")
    def part(key: str, part: str, ctx: Context) -> str:
        return f"{part} of {key}"

    return server


async def test_resources_are_listed_as_registered_and_templates_apart(connect: Any, version: str) -> None:
    """Everything said about a resource is in the listing."""
    async with connect(library(), version=version) as peer:
        resources = (await peer.result("resources/list"))["resources"]
        templates = (await peer.result("resources/templates/list"))["resourceTemplates"]

    assert {
        "uri": "config://app",
        "name": "app",
        "title": "App",
        "description": "The configuration.",
        "annotations": {"priority": 0.5},
        "size": 2,
        "_meta": {"k": 1},
    } == resources[0]
    assert ["user://{key}/data", "user://{key}/{part}"] == [each["uriTemplate"] for each in templates]


@pytest.mark.parametrize(
    ("uri", "contents"),
    [
        ("config://app", [{"uri": "config://app", "mimeType": "application/json", "text": '{"a":1}'}]),
        ("text://t", [{"uri": "text://t", "mimeType": "text/plain", "text": "hello"}]),
        ("bytes://b", [{"uri": "bytes://b", "mimeType": "image/png", "blob": "AQ=="}]),
        ("one://o", [{"uri": "one://o", "mimeType": "text/x-own", "text": "a", "_meta": {"k": 1}}]),
        (
            "many://m",
            [
                {"uri": "many://m", "mimeType": "text/plain", "text": "a"},
                {"uri": "many://m/2", "mimeType": "x/y", "blob": "Ag=="},
            ],
        ),
        ("user://7/data", [{"uri": "user://7/data", "mimeType": "application/json", "text": '{"id":7}'}]),
        ("user://7/mail", [{"uri": "user://7/mail", "mimeType": "text/plain", "text": "mail of 7"}]),
    ],
)
async def test_each_is_read_by_its_function(
    connect: Any, version: str, uri: str, contents: list[dict[str, str]]
) -> None:
    """Text, bytes, data and several parts; the template with more literal text wins."""
    async with connect(library(), version=version) as peer:
        result = await peer.result("resources/read", {"uri": uri})

    assert contents == result["contents"]


async def test_hints_for_caches_are_for_modern_clients(connect: Any) -> None:
    """A resource's own hints come before the server's; legacy results have none."""
    async with connect(library(), version="2026-07-28") as peer:
        own = await peer.result("resources/read", {"uri": "text://t"})
        servers = await peer.result("resources/read", {"uri": "config://app"})
    async with connect(library()) as peer:
        legacy = await peer.result("resources/read", {"uri": "text://t"})

    assert [(7, "private"), (5, "public")] == [(each["ttlMs"], each["cacheScope"]) for each in (own, servers)]
    assert ["contents"] == list(legacy)


async def test_an_unknown_resource_has_the_code_of_its_era(connect: Any) -> None:
    """-32002 up to 2025-11-25, -32602 since, and the uri in data (SEP-2164)."""
    async with connect(library()) as peer:
        legacy = await peer.error("resources/read", {"uri": "nope://x"})
    async with connect(library(), version="2026-07-28") as peer:
        modern = await peer.error("resources/read", {"uri": "nope://x"})
        malformed = await peer.error("resources/read", {"uri": "user://abc/data"})

    assert (-32002, None) == (legacy.code, legacy.http_status)
    assert (-32602, {"uri": "nope://x"}, 200) == (modern.code, modern.data, modern.http_status)
    assert (-32602, "key: Expected `int`, got `str`") == (malformed.code, malformed.message)


async def test_a_uri_that_is_no_text_is_refused(connect: Any) -> None:
    """Whoever forgot the uri is told so."""
    async with connect(library()) as peer:
        assert -32602 == (await peer.error("resources/read", {"uri": 7})).code


async def test_a_failing_resource_is_an_error(connect: Any, version: str) -> None:
    """What was raised on purpose has its own code; anything else is an incident."""
    server = Server("s")

    @server.resource("a://{kind}")
    def fail(kind: str) -> str:
        raise {"gone": NotFound("gone"), "tool": ToolError("broken"), "bug": KeyError("secret")}[kind]

    async with connect(server, version=version) as peer:
        gone = await peer.error("resources/read", {"uri": "a://gone"})
        broken = await peer.error("resources/read", {"uri": "a://tool"})
        with pytest.raises(GatewayInternalError, match=r"incident \w+") as caught:
            await peer.send("resources/read", {"uri": "a://bug"})

    assert {-32002, -32602} & {gone.code}
    assert (-32603, "broken") == (broken.code, broken.message)
    assert "secret" not in str(caught.value)


async def test_a_tool_may_read_the_servers_own_resources(connect: Any, version: str) -> None:
    """`ctx.read_resource` gives contents, and an unknown uri fails the tool."""
    server = library()

    @server.tool()
    async def copy(uri: str, ctx: Context) -> str:
        text: str = (await ctx.read_resource(uri))[0]["text"]
        return text

    async with connect(server, version=version) as peer:
        good = await peer.call("copy", uri="text://t")
        bad = await peer.call("copy", raw=True, uri="nope://x")

    assert ("hello", True) == (good, bad["isError"])


def test_a_function_must_take_what_its_template_gives() -> None:
    """Variables and parameters carry the same names; a fixed uri gives none."""
    server = Server("s")

    with pytest.raises(ValueError, match="name them alike"):
        server.resource("a://{key}")(lambda: "")
    with pytest.raises(ValueError, match="name them alike"):

        @server.resource("a://fixed")
        def fixed(key: str) -> str:
            return key


def test_a_uri_is_registered_once() -> None:
    """Duplicates of resources and templates are refused unless replaced."""
    server = library()

    with pytest.raises(ValueError, match="resource 'config://app' is registered already"):
        server.resource("config://app")(lambda: "")
    with pytest.raises(ValueError, match=r"template .* is registered already"):

        @server.resource("user://{key}/data")
        def again(key: str) -> str:
            return key

    server.resource("config://app", replace=True)(lambda: "new")

    assert 5 == len(server.resources)
