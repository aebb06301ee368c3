"""The SDK's client against a route over two embedded servers and one child process, in both eras."""

import sys
from pathlib import Path

import mcp_types as types
import pytest
import trio
from mcp import Client, StdioServerParameters

from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore:.*is deprecated as of 2026-07-28.*")]

SLUICEWAY = str(Path(sys.executable).parent / "sluiceway")
CHILD = """
version: 1
pipelines: {main: {sink: demo}}
sinks: {demo: {embedded: {page_size: 2}}}
"""
ROUTE = """
version: 1
pipelines: {main: {sink: all}}
sinks:
  all:
    route:
      to: {one: {}, two: {tools: {deny: [add_note], rename: {add: sum}}}, child: {}}
      list_timeout: 20s
  one: {embedded: {page_size: 3}}
  two: {embedded: {expose: [tools, prompts, completions], name: second}}
  child: {stdio: {command: [%s, run, %s, --stdio]}}
"""


@pytest.mark.parametrize(("mode", "version"), [("legacy", LATEST_LEGACY), ("auto", LATEST)])
async def test_the_sdk_uses_three_servers_as_one(tmp_path, mode, version):
    """Lists, pages, calls with progress and questions, prompts, completions, resources."""
    child, route = tmp_path / "child.yaml", tmp_path / "route.yaml"
    child.write_text(CHILD)
    route.write_text(ROUTE % (SLUICEWAY, child))
    progress: list[float] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    async def on_elicitation(context: object, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="decline")

    target = StdioServerParameters(command=SLUICEWAY, args=["run", str(route), "--stdio"])
    with trio.fail_after(45):
        async with Client(target, mode=mode, elicitation_callback=on_elicitation) as client:
            names: list[str] = []
            cursor = None
            while True:
                page = await client.list_tools(cursor=cursor)
                names += [tool.name for tool in page.tools]
                cursor = page.next_cursor
                if cursor is None:
                    break
            echoes = [await client.call_tool(f"{name}.echo", {"text": name}) for name in ("one", "two", "child")]
            counted = await client.call_tool("child.countdown", {"seconds": 1}, progress_callback=on_progress)
            booked = await client.call_tool("child.book_table", {"restaurant": "Da Mario"})
            prompts = [prompt.name for prompt in (await client.list_prompts()).prompts]
            greeting = await client.get_prompt("two.greet", {"name": "Ana"})
            read = await client.read_resource("demo://welcome")

            assert version == client.protocol_version

    assert len(names) == len(set(names))
    assert {"one.add", "two.sum", "child.add", "one.add_note", "child.add_note"} <= set(names)
    assert not {"two.add", "two.add_note"} & set(names)
    assert ["one", "two", "child"] == [echo.structured_content["text"] for echo in echoes]
    assert not counted.is_error
    assert progress
    assert not booked.is_error
    assert {"one.greet", "two.greet", "child.greet"} <= set(prompts)
    assert "Ana" in greeting.messages[0].content.text
    assert read.contents
