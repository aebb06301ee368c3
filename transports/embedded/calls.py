"""Calling tools, and methods of a server's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import Json

from ..mirrored import check_mirrored
from .content import ToolResult, for_version, to_json
from .context import BadAnswer, Context
from .errors import Denied, InternalError, InvalidParams, MissingCapability, NotFound, ServerError
from .handlers import Handler
from .incidents import incident_of
from .runtime import Runtime
from .tools import Tool

_ARGUMENT_ERRORS_ARE_RESULTS: Final = "2025-11-25"
"""Since then the model shall see what was wrong with its arguments (SEP-1303)."""


async def call_tool(runtime: Runtime, context: Context) -> dict[str, Json]:
    """`tools/call`: validate, then execute; a failing tool is a result with `isError`."""
    name = context.params.get("name")
    tool = runtime.server.tools.get(name) if isinstance(name, str) else None
    if tool is None:
        raise NotFound(f"unknown tool: {name}")
    arguments = context.params.get("arguments", {})
    if not isinstance(arguments, dict):
        raise InvalidParams("arguments: must be an object")
    if context.client.era is Era.MODERN and context.client.transport == "http":
        check_mirrored(tool.mirrored, arguments, context.client.headers)
    result = (await _outcome(tool, arguments, context)).render()
    result["content"] = [for_version(block, context.version) for block in result["content"]]
    if context.client.era is Era.LEGACY and not isinstance(result.get("structuredContent", {}), dict):
        del result["structuredContent"]
    return result


async def _outcome(tool: Tool, arguments: dict[str, Json], context: Context) -> ToolResult:
    try:
        return await tool.call(tool.validate(arguments), context)
    except InvalidParams as error:
        if context.version < _ARGUMENT_ERRORS_ARE_RESULTS:
            raise
        return _failed(f"Invalid params: {error.message}")
    except (Denied, BadAnswer, GatewayError):
        raise
    except MissingCapability as error:
        if context.client.era is Era.MODERN:
            raise
        return _failed(error.message)
    except InternalError as error:
        return _failed(incident_of(context, error).message)
    except ServerError as error:
        return _failed(error.message)
    except Exception as error:  # the boundary around tools: the model sees that it failed, the log sees why
        return _failed(incident_of(context, error).message)


def _failed(text: str) -> ToolResult:
    return ToolResult(content=(text,), is_error=True)


def call_method(handler: Handler) -> Callable[[Runtime, Context], Awaitable[dict[str, Json]]]:
    """The answer of a server's own method: its function's result, a JSON object."""

    async def answer(_runtime: Runtime, context: Context) -> dict[str, Json]:
        said = {key: value for key, value in context.params.items() if key != "_meta"}
        value = to_json(await handler.call(handler.parameters.convert(said), context))
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise TypeError(f"{context.method} must return a JSON object, not {type(value).__name__}")
        return value

    return answer
