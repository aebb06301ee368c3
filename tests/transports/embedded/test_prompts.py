"""Prompts and suggestions."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from msgspec import Meta

from sluiceway.transports.embedded import Context, Image, Link, Message, Server


def writer() -> Server:
    server = Server("s")

    @server.prompt(title="Greet", icons=[{"src": "https://x/y.png"}], meta={"k": 1})
    def greet(name: Annotated[str, Meta(description="Who")], times: int = 1) -> list[Any]:
        """Greet somebody."""
        return [f"Hello {name}" * times, Message(Image(b"\x01"), role="assistant"), Link("r://1", "one")]

    @server.prompt()
    def plain() -> str:
        return "plain"

    @server.resource("user://{country}/{city}")
    def place(country: str, city: str) -> str:
        return city

    @server.completion("greet", "name")
    async def names(value: str, ctx: Context) -> list[str]:
        return [f"{value}{number}" for number in range(150)]

    @server.completion("user://{country}/{city}", "city")
    def cities(value: str, arguments: dict[str, str]) -> list[str]:
        return [city for city in {"fr": ["paris", "pau"], "de": ["peine"]}[arguments["country"]] if city > value]

    return server


async def test_a_prompt_is_listed_with_its_arguments(connect: Any, version: str) -> None:
    """Arguments come from the signature: name, description, required."""
    async with connect(writer(), version=version) as peer:
        listed = (await peer.result("prompts/list"))["prompts"]

    arguments = [{"name": "name", "description": "Who", "required": True}, {"name": "times", "required": False}]
    assert {
        "name": "greet", "title": "Greet", "description": "Greet somebody.", "arguments": arguments,
        "icons": [{"src": "https://x/y.png"}], "_meta": {"k": 1},
    } == listed[0]  # fmt: skip
    assert {"name": "plain", "description": ""} == listed[1]


async def test_a_prompt_is_rendered_from_text_arguments(connect: Any, version: str) -> None:
    """Arguments arrive as text and are converted; text and blocks are the user's unless a message says otherwise."""
    async with connect(writer(), version=version) as peer:
        result = await peer.result("prompts/get", {"name": "greet", "arguments": {"name": "Bo", "times": "2"}})
        plain = await peer.result("prompts/get", {"name": "plain"})

    assert "Greet somebody." == result["description"]
    assert ["user", "assistant", "user"] == [message["role"] for message in result["messages"]]
    assert ["text", "image", "resource_link"] == [message["content"]["type"] for message in result["messages"]]
    assert "Hello BoHello Bo" == result["messages"][0]["content"]["text"]
    assert [{"role": "user", "content": {"type": "text", "text": "plain"}}] == plain["messages"]


async def test_older_clients_get_only_content_they_know(connect: Any) -> None:
    """A link in a prompt becomes text before 2025-06-18."""
    async with connect(writer(), version="2025-03-26") as peer:
        result = await peer.result("prompts/get", {"name": "greet", "arguments": {"name": "Bo"}})

    assert "one: r://1" == result["messages"][2]["content"]["text"]


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"name": "nope"}, "unknown prompt: nope"),
        ({"name": 7}, "unknown prompt: 7"),
        ({"name": "greet"}, "missing required field `name`"),
        ({"name": "greet", "arguments": {"name": "Bo", "extra": "x"}}, "unknown field `extra`"),
        ({"name": "greet", "arguments": {"name": "Bo", "times": "many"}}, "times: Expected `int`"),
        ({"name": "greet", "arguments": {"name": 7}}, "arguments: must be an object of strings"),
        ({"name": "greet", "arguments": []}, "arguments: must be an object of strings"),
    ],
)
async def test_unknown_and_missing_arguments_are_refused(
    connect: Any, version: str, params: dict[str, Any], problem: str
) -> None:
    """-32602 that names what is wrong (S3-PP-02)."""
    async with connect(writer(), version=version) as peer:
        error = await peer.error("prompts/get", params)

    assert -32602 == error.code
    assert problem in error.message


async def complete(peer: Any, ref: dict[str, Any], name: str, value: str, **more: Any) -> Any:
    params = {"ref": ref, "argument": {"name": name, "value": value}, **more}
    return (await peer.result("completion/complete", params))["completion"]


async def test_suggestions_know_what_was_typed_and_chosen(connect: Any, version: str) -> None:
    """At most a hundred values with their total; templates complete too, with the other variables at hand."""
    async with connect(writer(), version=version) as peer:
        names = await complete(peer, {"type": "ref/prompt", "name": "greet"}, "name", "x")
        place = {"type": "ref/resource", "uri": "user://{country}/{city}"}
        cities = await complete(peer, place, "city", "pb", context={"arguments": {"country": "de"}})
        nothing = await complete(peer, place, "country", "")

    assert (100, 150, True, "x0") == (len(names["values"]), names["total"], names["hasMore"], names["values"][0])
    assert {"values": ["peine"], "total": 1, "hasMore": False} == cities
    assert {"values": [], "total": 0, "hasMore": False} == nothing


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"ref": {"type": "ref/prompt", "name": "nope"}, "argument": {"name": "name", "value": ""}},
        {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "nope", "value": ""}},
        {"ref": {"type": "ref/tool", "name": "greet"}, "argument": {"name": "name", "value": ""}},
        {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "name", "value": 7}},
        {
            "ref": {"type": "ref/prompt", "name": "greet"},
            "argument": {"name": "name", "value": ""},
            "context": {"arguments": {"times": 2}},
        },
    ],
)
async def test_what_cannot_be_completed_is_refused(connect: Any, params: dict[str, Any]) -> None:
    """-32602 for unknown prompts, templates and arguments, and for malformed params."""
    async with connect(writer()) as peer:
        assert -32602 == (await peer.error("completion/complete", params)).code


def test_a_completion_belongs_to_something_registered_once() -> None:
    """Unknown prompts and arguments are refused, and so are duplicates unless replaced."""
    server = writer()

    def names(value: str) -> list[str]:
        return [value]

    for of, argument in (("nope", "name"), ("greet", "nope")):
        with pytest.raises(ValueError, match="is no prompt or template"):
            server.completion(of, argument)(names)
    with pytest.raises(ValueError, match="has a completion"):
        server.completion("greet", "name")(names)
    server.completion("greet", "name", replace=True)(names)

    assert names is server.completers["greet", "name"].handler.function
