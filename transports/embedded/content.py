"""
Content of results: text, images, audio, embedded resources and links, and what plain return values become.

Sources: `ContentBlock` of the published schemas; audio since 2025-03-26, resource links since 2025-06-18.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, final

import msgspec
from attrs import evolve, field, frozen

from sluiceway.pipeline.protocol.messages import Json, encode_json

Role = Literal["user", "assistant"]

_AUDIO_SINCE: Final = "2025-03-26"
_LINKS_SINCE: Final = "2025-06-18"


def without_none(**members: Json) -> dict[str, Json]:
    """A JSON object of the members that are not None."""
    return {key: value for key, value in members.items() if value is not None}


@frozen(kw_only=True)
class Block:
    """One piece of content. Abstract: use one of the classes below."""

    annotations: Mapping[str, Json] | None = None
    """`audience`, `priority`, `lastModified`."""
    meta: Mapping[str, Json] | None = None
    """Becomes `_meta`."""

    def render(self) -> dict[str, Json]:
        """The block as JSON."""
        return without_none(**self._members(), annotations=self.annotations, _meta=self.meta)

    def _members(self) -> dict[str, Json]:
        raise TypeError(f"{type(self).__name__} is abstract; use Text, Image, Audio, Embedded or Link")


@final
@frozen
class Text(Block):
    """Text for the model or the user."""

    text: str

    def _members(self) -> dict[str, Json]:
        return {"type": "text", "text": self.text}


@final
@frozen
class Image(Block):
    """An image."""

    data: bytes
    """The file's bytes, not yet base64."""
    mime_type: str = "image/png"

    def _members(self) -> dict[str, Json]:
        return {"type": "image", "data": b64encode(self.data).decode(), "mimeType": self.mime_type}


@final
@frozen
class Audio(Block):
    """A sound; a client older than 2025-03-26 gets a line of text instead."""

    data: bytes
    """The file's bytes, not yet base64."""
    mime_type: str = "audio/wav"

    def _members(self) -> dict[str, Json]:
        return {"type": "audio", "data": b64encode(self.data).decode(), "mimeType": self.mime_type}


@final
@frozen
class Contents:
    """What a resource holds: text, or bytes."""

    body: str | bytes
    mime_type: str | None = None
    """None: `text/plain` for text, `application/octet-stream` for bytes, unless the resource declares one."""
    uri: str | None = None
    """None: the uri that was read."""
    meta: Mapping[str, Json] | None = None

    def render(self) -> dict[str, Json]:
        """As `TextResourceContents` or `BlobResourceContents`; the uri must be known."""
        text = isinstance(self.body, str)
        return without_none(
            uri=self.uri,
            mimeType=self.mime_type or ("text/plain" if text else "application/octet-stream"),
            text=self.body if text else None,
            blob=None if isinstance(self.body, str) else b64encode(self.body).decode(),
            _meta=self.meta,
        )


@final
@frozen
class Embedded(Block):
    """A resource's contents inside a result."""

    uri: str
    body: str | bytes
    mime_type: str | None = None

    def _members(self) -> dict[str, Json]:
        return {"type": "resource", "resource": Contents(self.body, self.mime_type, self.uri).render()}


@final
@frozen
class Link(Block):
    """A resource the client may read; a client older than 2025-06-18 gets a line of text instead."""

    uri: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    size: int | None = None
    """Bytes."""

    def _members(self) -> dict[str, Json]:
        return without_none(
            type="resource_link",
            uri=self.uri,
            name=self.name,
            title=self.title,
            description=self.description,
            mimeType=self.mime_type,
            size=self.size,
        )


@final
@frozen
class Message:
    """One message of a prompt."""

    content: Block | str
    role: Role = "user"

    def render(self) -> dict[str, Json]:
        """As `PromptMessage`."""
        content = Text(self.content) if isinstance(self.content, str) else self.content
        return {"role": self.role, "content": content.render()}


@final
@frozen(kw_only=True)
class ToolResult:
    """A tool's answer in full, for tools that want more than their return value says."""

    content: Sequence[Block | str] = ()
    structured: Json = None
    """`structuredContent`: a JSON object (any JSON value since 2026-07-28); None for none."""
    is_error: bool = False
    meta: Mapping[str, Json] | None = field(default=None)

    def render(self) -> dict[str, Json]:
        """As `CallToolResult`."""
        return without_none(
            content=[(Text(each) if isinstance(each, str) else each).render() for each in self.content],
            structuredContent=self.structured,
            isError=True if self.is_error else None,
            _meta=self.meta,
        )


def to_json(value: Any) -> Json:
    """A Python value (attrs, dataclass, msgspec, enum, datetime and so on) as JSON data."""
    return msgspec.to_builtins(value, str_keys=True)


def to_tool_result(value: Any, *, structured: bool) -> ToolResult:
    """
    What a tool returned, as a result.

    A `ToolResult` is taken as it is, a block or a list with blocks is content, text is text, None is nothing, and
    everything else is data: its JSON as text, and as `structuredContent` too where the tool declared an output schema.
    """
    if isinstance(value, ToolResult):
        return value
    if isinstance(value, Block | str):
        return ToolResult(content=(value,))
    if value is None:
        return ToolResult()
    if isinstance(value, list | tuple) and any(isinstance(each, Block) for each in value):
        return ToolResult(content=[each if isinstance(each, Block) else as_text(each) for each in value])
    data = to_json(value)
    return ToolResult(content=(as_text(data),), structured=data if structured else None)


def as_text(value: Any) -> str:
    """A value as a line of text: text itself, otherwise its JSON."""
    return value if isinstance(value, str) else encode_json(to_json(value)).decode()


def to_contents(value: Any, uri: str, mime_type: str | None) -> list[dict[str, Json]]:
    """What a resource's function returned, as `contents`; data becomes `application/json`."""
    if isinstance(value, list | tuple) and value and all(isinstance(each, Contents) for each in value):
        parts: Iterable[Contents] = value
    elif isinstance(value, Contents):
        parts = (value,)
    elif isinstance(value, str | bytes):
        parts = (Contents(value),)
    else:
        parts = (Contents(as_text(value), mime_type or "application/json"),)
    return [evolve(each, uri=each.uri or uri, mime_type=each.mime_type or mime_type).render() for each in parts]


def to_messages(value: Any) -> list[dict[str, Json]]:
    """What a prompt's function returned, as `messages`; text and blocks are said by the user."""
    items = value if isinstance(value, list | tuple) else (value,)
    messages = [each if isinstance(each, Message) else Message(each) for each in items]
    return [each.render() for each in messages]


def for_version(block: dict[str, Json], version: str) -> dict[str, Json]:
    """A block as a client of that revision understands it."""
    if block["type"] == "resource_link" and version < _LINKS_SINCE:
        return {"type": "text", "text": f"{block['name']}: {block['uri']}"}
    if block["type"] == "audio" and version < _AUDIO_SINCE:
        return {"type": "text", "text": f"[audio, {block['mimeType']}]"}
    return block
