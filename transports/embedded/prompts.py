"""Prompts, and suggestions for the arguments of prompts and templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
from attrs import frozen

from sluiceway.pipeline.protocol.messages import Json

from .content import to_messages, without_none
from .handlers import Handler
from .resources import Described

if TYPE_CHECKING:
    from .context import Context

MAX_SUGGESTIONS: Final = 100
"""Values a `CompleteResult` may hold (published schemas, all revisions)."""


@final
@frozen(kw_only=True)
class Prompt(Described):
    """A prompt; its arguments are the function's parameters, sent as text."""

    handler: Handler

    def definition(self) -> dict[str, Json]:
        """As it is listed."""
        parameters = self.handler.parameters
        members = parameters.schema["properties"]
        arguments = [
            without_none(name=each.name, description=members[each.name].get("description"), required=each.required)
            for each in msgspec.structs.fields(parameters.struct)
        ]
        return {**self.described(), **({"arguments": arguments} if arguments else {})}

    async def render(self, arguments: Mapping[str, Json], context: Context) -> dict[str, Json]:
        """As `GetPromptResult`. Unknown and missing arguments are refused with `InvalidParams`."""
        values = self.handler.parameters.convert(arguments, strict=False)
        messages = to_messages(await self.handler.call(values, context))
        return without_none(description=self.description, messages=messages)


@final
@frozen(kw_only=True)
class Completer:
    """Suggests values for one argument."""

    handler: Handler

    async def complete(self, value: str, arguments: Mapping[str, str], context: Context) -> dict[str, Json]:
        """
        As `CompleteResult`: at most 100 suggestions, and how many there were.

        Args:
            value: What was typed so far.
            arguments: Arguments already chosen; only for functions that take `arguments`.
            context: Of the request.
        """
        known = {each.name for each in msgspec.structs.fields(self.handler.parameters.struct)}
        given: dict[str, Any] = {"value": value, "arguments": dict(arguments)}
        found = await self.handler.call({name: given[name] for name in known}, context)
        values = list(found)
        shown = values[:MAX_SUGGESTIONS]
        return {"completion": {"values": shown, "total": len(values), "hasMore": len(values) > len(shown)}}
