"""The methods that are neither lists, calls nor subscriptions: handshake, discovery, reading, prompts, suggestions."""

from __future__ import annotations

from collections.abc import Mapping

from sluiceway.pipeline.protocol.mcp import LATEST_LEGACY, LEGACY_VERSIONS, MODERN_VERSIONS
from sluiceway.pipeline.protocol.messages import Json

from .content import for_version, without_none
from .context import LEVELS, Context
from .errors import InvalidParams, NotFound
from .runtime import Runtime


def initialize(runtime: Runtime, context: Context) -> dict[str, Json]:
    """`initialize`: the version the client asked for if we speak it, else our latest with a handshake."""
    asked = context.params.get("protocolVersion")
    if not isinstance(asked, str):
        raise InvalidParams("protocolVersion: must be a string")
    version = asked if asked in LEGACY_VERSIONS else LATEST_LEGACY
    return {"protocolVersion": version, "serverInfo": dict(runtime.info), **runtime.about()}


def discover(runtime: Runtime, context: Context) -> dict[str, Json]:
    """`server/discover`: every version we speak, newest first."""
    return {"supportedVersions": [*MODERN_VERSIONS, *reversed(LEGACY_VERSIONS)], **runtime.about()}


def ping(runtime: Runtime, context: Context) -> dict[str, Json]:
    """`ping`."""
    return {}


def set_level(runtime: Runtime, context: Context) -> dict[str, Json]:
    """`logging/setLevel`: kept for the session; without one, every request starts at info."""
    level = context.params.get("level")
    if level not in LEVELS:
        raise InvalidParams(f"level: must be one of {', '.join(LEVELS)}")
    if context.client.session is not None:
        runtime.hub.data_of(context.client.session).log_level = level
    return {}


async def read_resource(runtime: Runtime, context: Context) -> dict[str, Json]:
    """`resources/read`."""
    uri = context.params.get("uri")
    if not isinstance(uri, str):
        raise InvalidParams("uri: must be a string")
    contents, readable = await runtime.read(uri, context)
    hints = without_none(ttlMs=readable.ttl_ms, cacheScope=readable.cache_scope)
    return {"contents": contents, **(hints if context.version in MODERN_VERSIONS else {})}


async def get_prompt(runtime: Runtime, context: Context) -> dict[str, Json]:
    """`prompts/get`."""
    name = context.params.get("name")
    prompt = runtime.server.prompts.get(name) if isinstance(name, str) else None
    if prompt is None:
        raise NotFound(f"unknown prompt: {name}")
    rendered = await prompt.render(_texts(context.params.get("arguments", {}), "arguments"), context)
    for message in rendered["messages"]:
        message["content"] = for_version(message["content"], context.version)
    return rendered


async def complete(runtime: Runtime, context: Context) -> dict[str, Json]:
    """`completion/complete`; nothing is suggested for an argument nobody has suggestions for."""
    ref, argument = context.params.get("ref"), context.params.get("argument")
    if not isinstance(ref, dict) or not isinstance(argument, dict):
        raise InvalidParams("ref and argument: must be objects")
    of = {"ref/prompt": ref.get("name"), "ref/resource": ref.get("uri")}.get(str(ref.get("type")))
    name, value = argument.get("name"), argument.get("value")
    if not (isinstance(of, str) and isinstance(name, str) and isinstance(value, str)):
        raise InvalidParams("ref and argument: must name a prompt or template, an argument and a value")
    if name not in runtime.server.arguments_of(of):
        raise NotFound(f"nothing to complete: {of} has no argument {name}")
    completer = runtime.server.completers.get((of, name))
    if completer is None:
        return {"completion": {"values": [], "total": 0, "hasMore": False}}
    chosen = context.params.get("context")
    known = chosen.get("arguments", {}) if isinstance(chosen, dict) else {}
    return await completer.complete(value, _texts(known, "context.arguments"), context)


def _texts(value: Json, place: str) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise InvalidParams(f"{place}: must be an object of strings")
    return value
