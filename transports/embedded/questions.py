"""
Questions a handler may put to the client: fill in a form, visit a page, ask the model, name the roots.

Each question knows its method, its params by era, the capability it needs, and how to read the answer.
Sources: 2025-11-25 client/elicitation, client/sampling, client/roots; 2026-07-28 basic/patterns/mrtr.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar, final

import msgspec
from attrs import field, frozen

from sluiceway.pipeline.protocol.messages import Json

from .content import Message, without_none
from .schema import describe, form_schema
from .tools import compile_schema

_A = TypeVar("_A", covariant=True)


class UnusableAnswer(Exception):
    """The client's answer is not one to this question; the text says why."""


@final
@frozen
class Elicited:
    """What the user did with a form or a page."""

    action: Literal["accept", "decline", "cancel"]
    content: Any = None
    """What was filled in: of the type asked for, or a dict where the schema was JSON; None unless accepted."""

    @property
    def accepted(self) -> bool:
        """Whether the user said yes."""
        return self.action == "accept"


@final
@frozen
class Sampled:
    """What the client's model said."""

    role: str
    content: Any
    """A content block as JSON, or a list of them (2025-11-25)."""
    model: str
    stop_reason: str | None = None

    @property
    def text(self) -> str:
        """The text blocks, joined."""
        blocks = self.content if isinstance(self.content, list) else [self.content]
        return "".join(each.get("text", "") for each in blocks if isinstance(each, dict))


@final
@frozen
class Root:
    """A place the client lets servers work in."""

    uri: str
    name: str | None = None


@frozen(kw_only=True)
class Question(Generic[_A]):
    """One question. Abstract: use one of the classes below."""

    key: str | None = None
    """Names the answer across the rounds of one request; by order of asking unless given."""

    @property
    def method(self) -> str:
        """`elicitation/create`, `sampling/createMessage` or `roots/list`."""
        raise TypeError(f"{type(self).__name__} is abstract")

    @property
    def needs(self) -> dict[str, Json]:
        """The `ClientCapabilities` it needs."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def params(self, new_id: Callable[[], str] | None) -> dict[str, Json]:
        """The params; `new_id` makes the ids that only legacy revisions have, None in the modern era."""
        raise TypeError(f"{type(self).__name__} is abstract")

    def read(self, answer: Mapping[str, Json]) -> _A:
        """
        Read the client's result.

        Raises:
            UnusableAnswer: It is not one.
        """
        raise TypeError(f"{type(self).__name__} is abstract")


@final
@frozen
class Elicit(Question[Elicited]):
    """A form: flat, of strings, numbers, booleans and choices."""

    message: str
    schema: Any
    """A JSON Schema, or a type (attrs, dataclass, msgspec) that makes one."""
    _json: Mapping[str, Json] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        made = self.schema if isinstance(self.schema, Mapping) else form_schema(self.schema)
        object.__setattr__(self, "_json", made)

    @property
    def method(self) -> str:
        """See `Question`."""
        return "elicitation/create"

    @property
    def needs(self) -> dict[str, Json]:
        """See `Question`."""
        return {"elicitation": {}}

    def params(self, new_id: Callable[[], str] | None) -> dict[str, Json]:
        """See `Question`."""
        return {"message": self.message, "requestedSchema": self._json}

    def read(self, answer: Mapping[str, Json]) -> Elicited:
        """See `Question`; what was filled in is checked against the schema."""
        action = _action(answer)
        if action != "accept":
            return Elicited(action)
        content = answer.get("content")
        problem = compile_schema(self._json)(content)
        if problem is not None:
            raise UnusableAnswer(f"content: {problem}")
        if isinstance(self.schema, Mapping):
            return Elicited(action, content)
        try:
            return Elicited(action, msgspec.convert(content, self.schema))
        except msgspec.ValidationError as error:
            raise UnusableAnswer(f"content: {describe(error)}") from error


@final
@frozen
class ElicitUrl(Question[Elicited]):
    """A page the user should visit (since 2025-11-25), for what must not pass through the client."""

    message: str
    url: str

    @property
    def method(self) -> str:
        """See `Question`."""
        return "elicitation/create"

    @property
    def needs(self) -> dict[str, Json]:
        """See `Question`."""
        return {"elicitation": {"url": {}}}

    def params(self, new_id: Callable[[], str] | None) -> dict[str, Json]:
        """See `Question`."""
        named = None if new_id is None else new_id()
        return without_none(mode="url", message=self.message, url=self.url, elicitationId=named)

    def read(self, answer: Mapping[str, Json]) -> Elicited:
        """See `Question`; accepting means the user agreed to go there, not that anything was done."""
        return Elicited(_action(answer))


@final
@frozen
class Sample(Question[Sampled]):
    """A turn of the client's model."""

    messages: Sequence[Message | str]
    max_tokens: int
    system_prompt: str | None = None
    temperature: float | None = None
    stop_sequences: Sequence[str] | None = None
    model_preferences: Mapping[str, Json] | None = None

    @property
    def method(self) -> str:
        """See `Question`."""
        return "sampling/createMessage"

    @property
    def needs(self) -> dict[str, Json]:
        """See `Question`."""
        return {"sampling": {}}

    def params(self, new_id: Callable[[], str] | None) -> dict[str, Json]:
        """See `Question`."""
        messages = [each if isinstance(each, Message) else Message(each) for each in self.messages]
        return without_none(
            messages=[each.render() for each in messages],
            maxTokens=self.max_tokens,
            systemPrompt=self.system_prompt,
            temperature=self.temperature,
            stopSequences=self.stop_sequences,
            modelPreferences=self.model_preferences,
        )

    def read(self, answer: Mapping[str, Json]) -> Sampled:
        """See `Question`."""
        content = answer.get("content")
        if not isinstance(content, dict | list) or not isinstance(answer.get("model"), str):
            raise UnusableAnswer("a sampling result needs content and model")
        return Sampled(str(answer.get("role", "assistant")), content, answer["model"], answer.get("stopReason"))


@final
@frozen
class Roots(Question[tuple[Root, ...]]):
    """The client's roots."""

    @property
    def method(self) -> str:
        """See `Question`."""
        return "roots/list"

    @property
    def needs(self) -> dict[str, Json]:
        """See `Question`."""
        return {"roots": {}}

    def params(self, new_id: Callable[[], str] | None) -> dict[str, Json]:
        """See `Question`."""
        return {}

    def read(self, answer: Mapping[str, Json]) -> tuple[Root, ...]:
        """See `Question`."""
        roots = answer.get("roots")
        if not isinstance(roots, list) or not all(isinstance(each, dict) and "uri" in each for each in roots):
            raise UnusableAnswer("a roots result needs a list of roots with a uri each")
        return tuple(Root(str(each["uri"]), each.get("name")) for each in roots)


def _action(answer: Mapping[str, Json]) -> Literal["accept", "decline", "cancel"]:
    action = answer.get("action")
    if action == "accept":
        return "accept"
    if action == "decline":
        return "decline"
    if action == "cancel":
        return "cancel"
    raise UnusableAnswer(f"action must be accept, decline or cancel, not {action!r}")


def missing_capability(needs: Mapping[str, Json], declared: Mapping[str, Json]) -> dict[str, Json] | None:
    """
    What a client lacks for a question; None if nothing.

    An empty `elicitation` means forms only (2025-11-25, client/elicitation, capabilities).
    """
    for name, parts in needs.items():
        has = declared.get(name)
        if not isinstance(has, dict):
            return {name: parts}
        if name == "elicitation":
            modes = set(has) & {"form", "url"} or {"form"}
            if not set(parts or {"form": {}}) <= modes:
                return {name: parts or {"form": {}}}
    return None
