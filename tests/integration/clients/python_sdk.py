"""
The Python SDK's client uses everything that a gateway offers, and says as JSON what came of it.

    python tests/integration/clients/python_sdk.py URL MODE LABEL FOLDER

`visit.mjs` does the same with the SDKs of npm, step by step; the test compares what all of them report.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import mcp_types as types
import trio
from mcp import Client
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

PATIENCE_S: Final = 90.0
MANY: Final = 40


class Visit:
    """One client and what it has seen."""

    def __init__(self, url: str, mode: str, label: str, folder: str) -> None:
        self.label = label
        self.folder = folder
        self.updated: list[str] = []
        self.logged: list[str] = []
        self.client: Any = Client(  # JSON in, JSON out: what is there is looked at as it comes
            url,
            mode=mode,
            logging_callback=self._on_log,
            message_handler=self._on_message,
            sampling_callback=self._on_sampling,
            elicitation_callback=self._on_elicitation,
            list_roots_callback=self._on_roots,
        )

    async def _on_log(self, params: types.LoggingMessageNotificationParams) -> None:
        self.logged.append(str(params.data))

    async def _on_message(self, message: object) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            self.updated.append(str(message.params.uri))

    async def _on_sampling(self, context: object, params: Any) -> types.CreateMessageResult:
        asked = params.messages[0].content.text
        said = types.TextContent(type="text", text=f"{self.label} was asked: {asked}")
        return types.CreateMessageResult(role="assistant", content=said, model="none")

    async def _on_elicitation(self, context: object, params: Any) -> types.ElicitResult:
        if "sure" in params.requested_schema["properties"]:
            return types.ElicitResult(action="accept", content={"sure": True})
        return types.ElicitResult(action="decline")

    async def _on_roots(self, context: object) -> types.ListRootsResult:
        root = {"uri": Path(self.folder).as_uri(), "name": self.label}
        return types.ListRootsResult.model_validate({"roots": [root]})

    async def call(self, tool: str, /, **arguments: Any) -> str:
        """Call a tool; the texts of its result, a line each."""
        result = await self.client.call_tool(tool, arguments)
        return "\n".join(block.text for block in result.content if block.type == "text")

    async def listed(self, member: str, ask: Callable[..., Awaitable[Any]]) -> tuple[list[Any], int]:
        """All pages of a list, and how many there were."""
        found: list[Any] = []
        pages, cursor = 0, None
        while pages == 0 or cursor is not None:
            page = await ask(cursor=cursor)
            found += getattr(page, member)
            pages, cursor = pages + 1, page.next_cursor
        return found, pages

    async def progress_of(self, name: str, arguments: dict[str, Any]) -> list[float]:
        """Call a tool and collect its progress."""
        seen: list[float] = []

        async def on_progress(done: float, total: float | None, message: str | None) -> None:
            seen.append(done)

        await self.client.call_tool(name, arguments, progress_callback=on_progress)
        return seen

    async def give_up(self) -> bool:
        """Cancel a call once it has begun; whether its server hears of it."""
        scope = trio.CancelScope()

        async def on_progress(done: float, total: float | None, message: str | None) -> None:
            scope.cancel()

        with scope:
            await self.client.call_tool("notes.wait", {"key": self.label}, progress_callback=on_progress)
        while True:
            given_up = await self.client.call_tool("notes.list_given_up", {})
            if self.label in given_up.structured_content["result"]:
                return True
            await trio.sleep(0.05)

    async def many(self, servers: dict[str, tuple[str, str]]) -> int:
        """Call many tools at once; how many answers were those to their own call."""
        right: list[int] = []

        async def one(number: int) -> None:
            tool, argument = list(servers.values())[number % len(servers)]
            text = f"{self.label} {number}"
            answer = await self.call(tool, **{argument: text})
            right.extend([number] if text in answer else [])

        async with trio.open_nursery() as nursery:
            for number in range(MANY):
                nursery.start_soon(one, number)
        return len(right)

    async def until(self, seen: list[str], what: str) -> bool:
        """Wait until something is in a list."""
        while not any(what in each for each in seen):  # noqa: ASYNC110  # bounded by the whole visit
            await trio.sleep(0.05)
        return True

    async def everything(self) -> dict[str, Any]:
        """Every step; the report."""
        client = self.client
        tools, pages = await self.listed("tools", client.list_tools)
        prompts, _ = await self.listed("prompts", client.list_prompts)
        resources, _ = await self.listed("resources", client.list_resources)
        templates, _ = await self.listed("resource_templates", client.list_resource_templates)
        style = types.PromptReference(type="ref/prompt", name="notes.review")
        completed = await client.complete(style, {"name": "style", "value": "fr"})
        prompt = await client.get_prompt("notes.review", {"style": "kind"})
        report: dict[str, Any] = {
            "version": client.protocol_version,
            "server": client.server_info.name if client.server_info else None,
            "tools": sorted(tool.name for tool in tools),
            "pages": pages,
            "prompts": sorted(prompt.name for prompt in prompts),
            "resources": sorted(str(resource.uri) for resource in resources),
            "templates": sorted(template.uri_template for template in templates),
            "called": await self.call("notes.add_note", text=self.label),
            "read": self.label in (await client.read_resource("notes://all")).contents[0].text,
            "template": (await client.read_resource("notes://by/ana")).contents[0].text,
            "prompt": prompt.messages[0].content.text,
            "completed": completed.completion.values,
            "progress": {"notes": await self.progress_of("notes.export", {"steps": 3})},
            "cancelled": await self.give_up(),
            "sampled": {"notes": await self.call("notes.summarize", topic="t")},
            "elicited": {"notes": await self.call("notes.forget", text=self.label)},
        }
        if client.protocol_version in MODERN_PROTOCOL_VERSIONS:
            await self._modern(report)
        else:
            await self._legacy(report)
        return report

    async def _modern(self, report: dict[str, Any]) -> None:
        async with self.client.listen(resource_subscriptions=["notes://all"]) as subscription:
            await self.call("notes.add_note", text="again")
            async for event in subscription:
                self.updated.append(str(event.uri))
                break
        report["updated"] = sorted(set(self.updated))
        while (
            not self.logged
        ):  # all clients share a server: whose a log message is, is told only while nobody else calls
            await self.client.call_tool("notes.grumble", {}, meta={"io.modelcontextprotocol/logLevel": "debug"})
            await trio.sleep(0.05)
        report["logged"] = {"notes": "so many notes" in self.logged}
        report["many"] = await self.many({"notes": ("notes.echo", "text")})

    async def _legacy(self, report: dict[str, Any]) -> None:
        client = self.client
        await client.set_logging_level("debug")
        path = str(Path(self.folder) / f"{self.label}.txt")
        await self.call("files.write_file", path=path, content=self.label)
        report["file"] = await self.call("files.read_text_file", path=path)
        report["folders"] = await self.call("files.list_allowed_directories")
        report["shown"] = (await client.read_resource("demo://resource/static/document/features.md")).contents[0].text
        choice = types.PromptReference(type="ref/prompt", name="everything.completable-prompt")
        people = await client.complete(
            choice, {"name": "name", "value": "A"}, context_arguments={"department": "Engineering"}
        )
        report["people"] = people.completion.values
        uris = {"everything": "demo://resource/dynamic/text/7", "remote": f"demo://resource/session/{self.label}.gz"}
        await self.call("remote.gzip-file-as-resource", name=f"{self.label}.gz", data="data:text/plain,hello")
        await self.listed("resources", client.list_resources)
        report["logged"], report["roots"] = {}, {}
        for name, uri in uris.items():
            steps = {"duration": 0.3, "steps": 3}
            report["progress"][name] = await self.progress_of(f"{name}.trigger-long-running-operation", steps)
            report["sampled"][name] = await self.call(f"{name}.trigger-sampling-request", prompt="p", maxTokens=5)
            report["elicited"][name] = await self.call(f"{name}.trigger-elicitation-request")
            report["roots"][name] = await self.call(f"{name}.get-roots-list")
            await client.subscribe_resource(uri)
            report["logged"][name] = await self.until(
                self.logged, f"Received Subscribe Resource request for URI: {uri}"
            )
            await self.call(f"{name}.toggle-subscriber-updates")
            await self.until(self.updated, uri)
            await self.call(f"{name}.toggle-subscriber-updates")
            await client.unsubscribe_resource(uri)
        report["updated"] = sorted(set(self.updated))
        report["many"] = await self.many(
            {"notes": ("notes.echo", "text"), **{name: (f"{name}.echo", "message") for name in uris}}
        )
        await self.call("notes.grumble")
        report["logged"]["notes"] = await self.until(self.logged, "so many notes")


async def main(url: str, mode: str, label: str, folder: str) -> None:
    """Print the report."""
    with trio.fail_after(PATIENCE_S):
        visit = Visit(url, mode, label, folder)
        async with visit.client:
            print(json.dumps(await visit.everything()))


if __name__ == "__main__":
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4])
