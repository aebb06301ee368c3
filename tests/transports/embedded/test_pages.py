"""Pages of lists."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Any

import pytest

from sluiceway.transports.embedded import Server


def numbered(count: int) -> Server:
    server = Server("s")
    for number in range(count):
        server.tool(name=f"tool_{number}")(lambda: None)
        server.resource(f"r://{number}", name=f"r{number}")(lambda: "")
    return server


async def pages(peer: Any, method: str, member: str) -> list[list[str]]:
    found, cursor = [], None
    while True:
        result = await peer.result(method, {} if cursor is None else {"cursor": cursor})
        found.append([each["name"] for each in result[member]])
        cursor = result.get("nextCursor")
        if cursor is None:
            return found


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (2, [2]), (5, [2, 2, 1]), (4, [2, 2])])
async def test_every_item_comes_exactly_once(connect: Any, version: str, count: int, sizes: list[int]) -> None:
    """Pages hold `page_size` items in order, and the last one has no cursor."""
    async with connect(numbered(count), version=version, page_size=2) as peer:
        found = await pages(peer, "tools/list", "tools")

    assert sizes == [len(page) for page in found]
    assert [f"tool_{number}" for number in range(count)] == [name for page in found for name in page]


async def test_a_page_follows_its_cursor_when_the_list_changed_meanwhile(connect: Any) -> None:
    """A cursor names an item, so items added or removed elsewhere neither repeat nor skip others."""
    server = numbered(4)
    async with connect(server, page_size=2) as peer:
        first = await peer.result("tools/list")
        server.tools.remove("tool_0")
        second = await peer.result("tools/list", {"cursor": first["nextCursor"]})

    assert ["tool_2", "tool_3"] == [each["name"] for each in second["tools"]]


async def test_a_cursor_that_is_not_ours_is_refused(connect: Any, version: str) -> None:
    """Rubbish, other types, another list's cursor and a cursor whose item is gone give -32602."""
    server = numbered(4)
    async with connect(server, version=version, page_size=2) as peer:
        other = (await peer.result("resources/list"))["nextCursor"]
        gone = (await peer.result("tools/list"))["nextCursor"]
        server.tools.remove("tool_1")
        padded = urlsafe_b64encode(b"tools\ntool_2").decode() + "===="
        bad = [
            await peer.error("tools/list", {"cursor": each}) for each in ("", "rubbish!", "é", 7, other, gone, padded)
        ]

    assert [-32602] * 7 == [error.code for error in bad]
