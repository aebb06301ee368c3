"""
`sluiceway explain . FILE --caller ana --tool x`: what the stages that decide would say, from the configuration alone.

Nothing is opened: a stage that answers `why` does so as it was constructed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, final

import trio
from attrs import frozen
from cyclopts import Parameter

from ..model.component import Context
from ..model.document import StageSpec
from .exits import Failure, usage

if TYPE_CHECKING:
    from ..model.document import Document
    from ..protocol.messages import Json

ACTION = "why"
"""The action that stages answer which decide about callers."""

_TARGETS = {"tool": "tools/call", "prompt": "prompts/get", "resource": "resources/read"}

Words = Annotated[list[str] | None, Parameter(negative="")]


@final
@frozen
class Question:
    """Who asks for what."""

    caller: str | None = None
    """Ask what a caller may do: its subject; nobody by default."""
    tenant: str | None = None
    """The caller's tenant."""
    role: Words = None
    """A role of the caller's; may be given several times."""
    scope: Words = None
    """A scope of the caller's; may be given several times."""
    tool: str | None = None
    """The tool it wants to call."""
    prompt: str | None = None
    """The prompt it wants to get."""
    resource: str | None = None
    """The uri of the resource it wants to read."""
    method: str | None = None
    """Another method than that of the target, such as resources/subscribe."""
    arguments: str | None = None
    """The arguments of the tool or prompt, as JSON; without them, whether there are some with which it is allowed."""

    def asked(self) -> dict[str, Json]:
        """
        The question as stages take it.

        Raises:
            Failure: It names nothing, or too much, or the arguments are not JSON.
        """
        named = {kind: name for kind in _TARGETS if (name := getattr(self, kind)) is not None}
        if len(named) > 1 or not (named or self.method):
            raise usage("to ask what a caller may do, name one thing: --tool, --prompt, --resource or --method")
        kind, name = next(iter(named.items()), ("", None))
        question: dict[str, Json] = {"method": self.method or _TARGETS[kind], "roles": self.role or []}
        question |= {"scopes": self.scope or [], "caller": self.caller, "tenant": self.tenant, "name": name}
        if self.arguments is not None:
            question["arguments"] = _parsed(self.arguments)
        return question


Ask = Annotated[Question | None, Parameter(name="*")]
"""The options of a question among those of a verb."""


def _parsed(text: str) -> Json:
    try:
        return json.loads(text)
    except ValueError as error:
        raise usage(f"--arguments: not JSON: {error}") from error


def answers(document: Document, place: str, question: Mapping[str, Json]) -> Iterator[str]:
    """
    What each stage says, as text.

    Args:
        document: The configuration.
        place: The path of one stage, or `.` for all.
        question: See `Question.asked`.

    Raises:
        Failure: No stage there decides about callers, or the question cannot be understood.
    """
    stages = [spec for spec in _deciding(document) if place in (".", spec.path, _by_id(spec))]
    if not stages:
        where = "" if place == "." else f" at {place}"
        raise Failure(f"no stage{where} says what callers may do; access is one that does")
    for spec in stages:
        stage = spec.cls(spec.config, Context(id=spec.id, path=spec.path))
        try:
            answer: Any = trio.run(stage.act, ACTION, question)
        except ValueError as error:
            raise usage(str(error)) from error
        yield "\n".join(_lines(spec, answer))


def _lines(spec: StageSpec, answer: Mapping[str, Json]) -> Iterator[str]:
    verdict = "allowed" if answer["allowed"] else "refused"
    by = f" by {answer['rule']}" if answer["rule"] else ""
    reason = "" if answer["reason"] == verdict else f": {answer['reason']}"
    yield f"{spec.path} ({spec.cls.name}): {verdict}{by}{reason}"
    if spec.when is not None:
        yield "  for the exchanges of its `when` only"
    if answer["scopes"]:
        yield f"  these scopes would help: {' '.join(answer['scopes'])}"
    yield from (f"  at most {limit}" for limit in answer.get("limits", ()))
    width = max((len(each["rule"]) for each in answer["rules"]), default=0)
    yield from (f"  {each['rule']:{width}}  {each['says']}" for each in answer["rules"])


def _deciding(document: Document) -> Iterator[StageSpec]:
    from ..config.references import components_of

    for spec in components_of(document):
        if isinstance(spec, StageSpec) and spec.enabled and ACTION in spec.cls.actions:
            yield spec


def _by_id(spec: StageSpec) -> str:
    return f"{spec.path.rpartition('[')[0]}.{spec.id}"
