"""
`sluiceway explain . FILE --caller ana --tool x`: what the stages that decide would say, from the configuration alone.

Nothing is opened: a stage that answers `why` does so as it was constructed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, final

import trio
from attrs import frozen
from cyclopts import Parameter

from ..model.component import Context
from ..model.document import Spec, StageSpec
from .exits import Failure, usage

if TYPE_CHECKING:
    from ..model.document import Document
    from ..protocol.messages import Json

ACTION = "why"
"""The action that stages answer which decide about callers."""

STATUS = "status"
"""The kind of what a running gateway says of a component: how it is, and no verdict."""

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


@final
@frozen
class Answer:
    """What one component says."""

    path: str
    """Of the component."""
    kind: str
    """Its name: `access`, `route`; or `STATUS`."""
    allowed: bool
    """Of a component's status: whether all is well with it."""
    reason: str
    rule: str = ""
    """The rule that decides, if one does."""
    guarded: bool = False
    """For the exchanges of its `when` only."""
    scopes: tuple[str, ...] = ()
    """Scopes that would help."""
    limits: tuple[str, ...] = ()
    rules: tuple[tuple[str, str], ...] = ()
    """What each of its rules says."""

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        if self.kind == STATUS:
            yield f"{self.path} ({self.kind}): {self.reason}"
            return
        verdict = "allowed" if self.allowed else "refused"
        by = f" by {self.rule}" if self.rule else ""
        reason = "" if self.reason == verdict else f": {self.reason}"
        yield f"{self.path} ({self.kind}): {verdict}{by}{reason}"
        if self.guarded:
            yield "  for the exchanges of its `when` only"
        if self.scopes:
            yield f"  these scopes would help: {' '.join(self.scopes)}"
        yield from (f"  at most {limit}" for limit in self.limits)
        width = max((len(rule) for rule, _ in self.rules), default=0)
        yield from (f"  {rule:{width}}  {says}" for rule, says in self.rules)

    def as_json(self) -> dict[str, Json]:
        """For programs."""
        return {
            "path": self.path, "kind": self.kind, "allowed": self.allowed, "reason": self.reason, "rule": self.rule,
            "guarded": self.guarded, "scopes": list(self.scopes), "limits": list(self.limits),
            "rules": [{"rule": rule, "says": says} for rule, says in self.rules],
        }  # fmt: skip


def answers(document: Document, place: str, question: Mapping[str, Json]) -> Iterator[Answer]:
    """
    What each component says that decides about callers or names: stages in the order of their chains, and routers.

    Args:
        document: The configuration.
        place: The path of one, or `.` for all.
        question: See `Question.asked`.

    Raises:
        Failure: Nothing there decides about callers, or the question cannot be understood.
    """
    deciding = [spec for spec in _deciding(document) if place in (".", spec.path, _by_id(spec))]
    if not deciding:
        where = "" if place == "." else f" at {place}"
        raise Failure(f"no stage{where} says what callers may do; access is one that does")
    for spec in deciding:
        component = spec.cls(spec.config, Context(id=spec.id, path=spec.path))
        try:
            answer: Any = trio.run(component.act, ACTION, question)
        except ValueError as error:
            raise usage(str(error)) from error
        yield Answer(
            spec.path,
            spec.cls.name,
            answer["allowed"],
            answer["reason"],
            answer["rule"],
            guarded=isinstance(spec, StageSpec) and spec.when is not None,
            scopes=tuple(answer["scopes"]),
            limits=tuple(answer.get("limits", ())),
            rules=tuple((each["rule"], each["says"]) for each in answer["rules"]),
        )


def health(file: Path, admin: str | None) -> Iterator[Answer]:
    """
    What a running gateway says of its upstreams and breakers: those that are not as they should be.

    Args:
        file: Its configuration, which says where its admin listener is.
        admin: Another address of that.

    Raises:
        Failure: Nobody answers.
    """
    from .asking import find_admin

    status: Any = find_admin(file, admin).ask("GET", "/-/status")
    for each in status["components"]:
        state = each.get("details", {}).get("state")
        if each["kind"] == "sink":
            ready = each["state"] == "ready"
            reason = each["state"] + (f": {each['reason']}" if each["reason"] else "")
            yield Answer(each["id"], STATUS, ready, reason)
        elif state in ("open", "half_open"):
            yield Answer(each["id"], STATUS, state != "open", f"the circuit is {state.replace('_', '-')}")


def _deciding(document: Document) -> Iterator[Spec]:
    """Stages in the order in which exchanges meet them: pipelines first, then sinks."""
    from ..config.references import components_of

    found = [
        spec
        for spec in components_of(document)
        if ACTION in spec.cls.actions and (not isinstance(spec, StageSpec) or spec.enabled)
    ]
    return iter(sorted(found, key=lambda spec: not spec.path.startswith("pipelines.")))


def _by_id(spec: Spec) -> str:
    return f"{spec.path.rpartition('[')[0]}.{spec.id}" if isinstance(spec, StageSpec) else spec.path
