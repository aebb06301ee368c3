"""Resources with a fixed uri, and templates for families of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from attrs import frozen

from sluiceway.pipeline.protocol.messages import Json

from .content import to_contents, without_none
from .handlers import Handler
from .uri_template import UriTemplate

if TYPE_CHECKING:
    from .context import Context


@frozen(kw_only=True)
class Described:
    """What resources, templates and prompts say about themselves."""

    name: str
    title: str | None = None
    description: str | None = None
    icons: Sequence[Mapping[str, Json]] | None = None
    meta: Mapping[str, Json] | None = None
    """Becomes `_meta`."""

    def described(self) -> dict[str, Json]:
        """The members they have in common."""
        return without_none(
            name=self.name, title=self.title, description=self.description, icons=self.icons, _meta=self.meta
        )


@frozen(kw_only=True)
class Readable(Described):
    """What a resource and a template have in common."""

    handler: Handler
    mime_type: str | None = None
    annotations: Mapping[str, Json] | None = None
    ttl_ms: int | None = None
    """How long clients may keep what was read; None: as the server says."""
    cache_scope: str | None = None
    """`public` only if what is read is the same for everybody; None: as the server says."""

    async def read(self, values: Mapping[str, Any], uri: str, context: Context) -> list[dict[str, Json]]:
        """Read it: `contents` of a `ReadResourceResult`."""
        converted = self.handler.parameters.convert(values, strict=False)
        return to_contents(await self.handler.call(converted, context), uri, self.mime_type)

    def listed(self) -> dict[str, Json]:
        """The members a listing shows of both."""
        return {**self.described(), **without_none(mimeType=self.mime_type, annotations=self.annotations)}


@final
@frozen(kw_only=True)
class Resource(Readable):
    """A resource with a fixed uri."""

    uri: str
    size: int | None = None
    """Bytes, if known."""

    def definition(self) -> dict[str, Json]:
        """As it is listed."""
        return {"uri": self.uri, **self.listed(), **without_none(size=self.size)}


@final
@frozen(kw_only=True)
class ResourceTemplate(Readable):
    """A family of resources."""

    template: UriTemplate

    def definition(self) -> dict[str, Json]:
        """As it is listed."""
        return {"uriTemplate": self.template.text, **self.listed()}


def find_resource(
    resources: Mapping[str, Resource], templates: Mapping[str, ResourceTemplate], uri: str
) -> tuple[Readable, dict[str, str]] | None:
    """
    Who serves a uri: a resource of that uri, else the matching template with the longest literal text.

    Returns:
        It, and the values of its template's variables; None if nobody does.
    """
    resource = resources.get(uri)
    if resource is not None:
        return resource, {}
    matches = [(each, values) for each in templates.values() if (values := each.template.match(uri)) is not None]
    return max(matches, key=lambda match: match[0].template.literal) if matches else None
