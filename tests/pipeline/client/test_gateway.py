"""The client against a whole gateway: the http source, a chain, and the demo server behind it."""

from contextlib import asynccontextmanager

import pytest
import trio

from sluiceway.pipeline.client.errors import InvalidParams
from sluiceway.pipeline.client.handlers import Handlers
from sluiceway.pipeline.client.http import open_http_client
from sluiceway.pipeline.config import load_text
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.runtime.engine import Engine

CONFIG = """\
version: 1
sources:
  local: {http: {bind: "127.0.0.1:0"}, pipeline: main}
pipelines:
  main: {chain: [request_id, headers], sink: demo}
sinks:
  demo: {embedded: {}}
"""


@asynccontextmanager
async def gateway():
    async with Engine(load_text(CONFIG)).running() as engine:
        yield engine.sources["local"].urls[0], engine


@pytest.mark.parametrize("era", list(Era))
async def test_everything_a_client_does_works_through_a_gateway(era):
    """Lists, calls, progress, questions, resources, prompts and errors, in both eras."""
    reports, asked = [], []

    async def report(*values):
        reports.append(values)

    async def book(params):
        asked.append(params["message"])
        return {"action": "accept", "content": {"name": "Ana", "guests": 2}}

    async with (
        gateway() as (url, _),
        open_http_client(url, era=era.value, handlers=Handlers(elicitation=book)) as client,
    ):
        tools = await client.list_tools()
        total = await client.call_tool("add", {"a": 2, "b": 3})
        await client.call_tool("countdown", {"seconds": 1}, on_progress=report)
        booked = await client.call_tool("book_table", {"restaurant": "Chez Nous"})
        welcome = await client.read_resource("demo://welcome")
        prompts = await client.list_prompts()
        with pytest.raises(InvalidParams, match="Invalid params"):
            await client.call_tool("add", {"a": 2})

        assert era is client.era

    assert {"add", "countdown", "book_table"} <= {tool["name"] for tool in tools}
    assert "5" in total["content"][0]["text"]
    assert reports
    assert len(asked) == 1
    assert "Ana" in str(booked)
    assert "Welcome" in welcome[0]["text"]
    assert prompts


@pytest.mark.parametrize("era", list(Era))
async def test_a_cancelled_call_is_cancelled_in_the_gateway(era):
    """Nothing is in flight once the client has said so, in its era's way."""
    async with gateway() as (url, engine), open_http_client(url, era=era.value) as client:
        with trio.move_on_after(0.2):
            await client.call_tool("countdown", {"seconds": 60})
        with trio.fail_after(5):
            while engine.status()["pipelines"][0]["in_flight"]:  # noqa: ASYNC110  # the notice is on its way
                await trio.sleep(0.01)

        assert await client.call_tool("add", {"a": 1, "b": 1})


async def test_a_legacy_session_ends_with_its_client():
    """DELETE reaches the source."""
    async with gateway() as (url, engine):
        async with open_http_client(url, era="legacy") as client:
            await client.list_tools()
            during = len(engine.sources["local"].sessions)
        after = len(engine.sources["local"].sessions)

    assert (during, after) == (1, 0)
