"""The four lists, page by page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sluiceway.pipeline.protocol.messages import Json

from .context import Context
from .pages import page_of
from .runtime import Runtime


class Listed(Protocol):
    """Anything with a definition."""

    def definition(self) -> dict[str, Json]:
        """As it is listed."""
        ...


def _page(runtime: Runtime, context: Context, member: str, items: Mapping[str, Listed]) -> dict[str, Json]:
    page, following = page_of(member, items, runtime.page_size, context.params.get("cursor"))
    listed: dict[str, Json] = {member: [each.definition() for each in page]}
    return listed if following is None else {**listed, "nextCursor": following}


def list_tools(runtime: Runtime, context: Context) -> dict[str, Json]:
    """`tools/list`."""
    return _page(runtime, context, "tools", runtime.server.tools)


def list_resources(runtime: Runtime, context: Context) -> dict[str, Json]:
    """`resources/list`: those with a fixed uri."""
    return _page(runtime, context, "resources", runtime.server.resources)


def list_templates(runtime: Runtime, context: Context) -> dict[str, Json]:
    """`resources/templates/list`."""
    return _page(runtime, context, "resourceTemplates", runtime.server.templates)


def list_prompts(runtime: Runtime, context: Context) -> dict[str, Json]:
    """`prompts/list`."""
    return _page(runtime, context, "prompts", runtime.server.prompts)
