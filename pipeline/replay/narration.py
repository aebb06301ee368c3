"""
Makes entries of what a recorder saw. Runs in the scribe's thread, so that messages are read and masked there.

Each method takes the time first, then what the recorder put in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, final

import attrs

from ..model.component import Middleware, State
from ..model.document import Document, Spec
from ..model.exchange import Decision
from ..model.options import Secret
from ..model.session import Caller, Client
from ..protocol.mcp import Kind
from ..protocol.messages import Json, Notification, Reply, Request
from .entries import (
    Announced,
    Answered,
    Asked,
    Begun,
    CallAnswered,
    CallAsked,
    Called,
    CallEnded,
    CallRelayed,
    CancelAsked,
    ClockSet,
    Configured,
    Ended,
    FailureData,
    IdMade,
    Relayed,
    ReplyData,
    Seeded,
    SessionAnswered,
    SessionAsked,
    SessionClosed,
    SessionOpened,
    SessionTold,
    StageEntered,
    StageLeft,
    StateChanged,
)
from .masking import Masking
from .values import Render

_NAMED: Final = "request_id"
"""The role of stages whose ids go to clients and into logs."""

Facts = tuple[str, str, int | None]
"""Source, pipeline and number of the session that an exchange began with."""


@final
class Narration:
    """
    Args:
        masking: What is taken out.
        digest: Told the digest of each configuration that comes into use.
        spliced: Whether entries are only to be encoded; see `Render`.
    """

    def __init__(self, masking: Masking, digest: Callable[[str], None], *, spliced: bool = True) -> None:
        self._masking = masking
        self._render = Render(masking, spliced=spliced)
        self._digest = digest

    # The gateway.

    def configured(self, t: float, document: Document, generation: int, files: bool) -> Configured:
        """A configuration comes into use. Its secrets, as far as they can be read now, will be taken out."""
        self._masking.hide(secrets_of(document))
        self._digest(document.digest)
        texts = {path.name: _text(path) for path in document.files} if files else {}
        return Configured(t=t, generation=generation, digest=document.digest, files=texts)

    def seeded(self, t: float, component: str, seed: int) -> Seeded:
        """A component gets its seed."""
        return Seeded(t=t, component=component, seed=f"{seed:016x}")

    def public_id(self, t: float, component: str, value: str) -> IdMade:
        """A component made an id that everybody may see."""
        return IdMade(t=t, component=component, value=value)

    def masked_id(self, t: float, component: str, value: str) -> IdMade:
        """A component made an id that may open something."""
        return IdMade(t=t, component=component, value=self._masking.fingerprint(value))

    def clock_set(self, t: float, epoch: float) -> ClockSet:
        """The date was corrected."""
        return ClockSet(t=t, epoch=epoch)

    def state_changed(self, t: float, component: str, state: State, reason: str) -> StateChanged:
        """A component came into another state."""
        return StateChanged(t=t, component=component, state=str(state), reason=reason)

    def announced(self, t: float, sink: str, notification: Notification) -> Announced:
        """A sink told of a change."""
        return Announced(t=t, sink=sink, message=self._render.message(notification))

    # Sessions.

    def session_opened(self, t: float, session: int, source: str) -> SessionOpened:
        """A session was seen for the first time."""
        return SessionOpened(t=t, session=session, source=source)

    def session_told(self, t: float, session: int, notification: Notification) -> SessionTold:
        """A session was told of something."""
        return SessionTold(t=t, session=session, message=self._render.message(notification))

    def session_asked(
        self, t: float, session: int, question: int, method: str, params: Mapping[str, Json]
    ) -> SessionAsked:
        """A session has a question to answer."""
        message = self._render.message(Notification(method, params))
        return SessionAsked(t=t, session=session, question=question, message=message)

    def session_answered(
        self, t: float, session: int, question: int, reply: Reply | None, method: str
    ) -> SessionAnswered:
        """A session has answered, or nobody waits for it any more."""
        return SessionAnswered(t=t, session=session, question=question, reply=self._reply(reply, method))

    def session_closed(self, t: float, session: int) -> SessionClosed:
        """A session ended."""
        return SessionClosed(t=t, session=session)

    # Exchanges.

    def begun(
        self,
        t: float,
        exchange: int,
        facts: Facts,
        can_ask: bool,
        kind: Kind,
        message: Request | Notification,
        client: Client,
        caller: Caller,
    ) -> Begun:
        """An exchange begins."""
        source, pipeline, session = facts
        return Begun(
            t=t, exchange=exchange, source=source, pipeline=pipeline, kind=str(kind), can_ask=can_ask,
            message=self._render.message(message), client=self._render.client(client, session),
            caller=self._render.caller(caller),
        )  # fmt: skip

    def relayed(self, t: float, exchange: int, notification: Notification) -> Relayed:
        """A notification goes to the client."""
        return Relayed(t=t, exchange=exchange, message=self._render.message(notification))

    def asked(self, t: float, exchange: int, question: int, method: str, params: Mapping[str, Json]) -> Asked:
        """A question goes to the client."""
        message = self._render.message(Notification(method, params))
        return Asked(t=t, exchange=exchange, question=question, message=message)

    def answered(self, t: float, exchange: int, question: int, reply: Reply | None, method: str) -> Answered:
        """The client has answered, or nobody waits for it any more."""
        return Answered(t=t, exchange=exchange, question=question, reply=self._reply(reply, method))

    def cancel_asked(self, t: float, exchange: int, by: str) -> CancelAsked:
        """Somebody cancels an exchange."""
        return CancelAsked(t=t, exchange=exchange, by=by)

    def ended(
        self,
        t: float,
        exchange: int,
        reply: Reply | None,
        method: str,
        cancelled: str,
        caller: Caller,
        decisions: tuple[Decision, ...],
        headers: Mapping[str, str],
        correlation: str,
    ) -> Ended:
        """An exchange ended."""
        return Ended(
            t=t, exchange=exchange, reply=self._reply(reply, method), cancelled=cancelled,
            caller=self._render.caller(caller), decisions=self._render.decisions(decisions),
            headers=self._render.headers(headers), correlation=correlation,
        )  # fmt: skip

    # Calls of sinks, visits of stages.

    def called(
        self,
        t: float,
        exchange: int,
        call: int,
        sink: str,
        attempt: int,
        changed: Request | Notification | None,
        caller: Caller,
    ) -> Called:
        """A sink is called."""
        message = None if changed is None else self._render.message(changed)
        known = self._render.caller(caller)
        return Called(t=t, exchange=exchange, call=call, sink=sink, attempt=attempt, message=message, caller=known)

    def call_relayed(self, t: float, exchange: int, call: int, notification: Notification) -> CallRelayed:
        """A sink relays a notification."""
        return CallRelayed(t=t, exchange=exchange, call=call, message=self._render.message(notification))

    def call_asked(
        self, t: float, exchange: int, call: int, question: int, method: str, params: Mapping[str, Json]
    ) -> CallAsked:
        """A sink has a question for the client."""
        message = self._render.message(Notification(method, params))
        return CallAsked(t=t, exchange=exchange, call=call, question=question, message=message)

    def call_answered(
        self, t: float, exchange: int, call: int, question: int, reply: Reply | None, method: str
    ) -> CallAnswered:
        """A sink has its answer, or does not wait any more."""
        answer = self._reply(reply, method)
        return CallAnswered(t=t, exchange=exchange, call=call, question=question, reply=answer)

    def call_ended(
        self, t: float, exchange: int, call: int, outcome: Reply | Exception | None, method: str
    ) -> CallEnded:
        """A call of a sink ended."""
        reply, failure = self._outcome(outcome, method)
        return CallEnded(t=t, exchange=exchange, call=call, reply=reply, failure=failure)

    def stage_entered(
        self, t: float, exchange: int, visit: int, stage: str, changed: Request | Notification | None
    ) -> StageEntered:
        """An exchange comes to a stage."""
        message = None if changed is None else self._render.message(changed)
        return StageEntered(t=t, exchange=exchange, visit=visit, stage=stage, message=message)

    def stage_left(
        self, t: float, exchange: int, visit: int, stage: str, outcome: Reply | Exception | None, method: str
    ) -> StageLeft:
        """An exchange leaves a stage."""
        reply, failure = self._outcome(outcome, method)
        return StageLeft(t=t, exchange=exchange, visit=visit, stage=stage, reply=reply, failure=failure)

    def _reply(self, reply: Reply | None, method: str) -> ReplyData | None:
        return None if reply is None else self._render.reply(reply, method)

    def _outcome(self, outcome: Reply | Exception | None, method: str) -> tuple[ReplyData | None, FailureData | None]:
        if isinstance(outcome, Exception):
            return None, self._render.failure(outcome)
        return self._reply(outcome, method), None


def specs_of(document: Document) -> Iterator[tuple[str, Spec]]:
    """Every component that a configuration declares, with its component id."""
    for kind, specs in (("sources", document.sources), ("stores", document.stores), ("sinks", document.sinks)):
        for spec in specs.values():
            yield f"{kind}.{spec.id}", spec
    for owner, chains in (("pipelines", document.pipelines), ("sinks", document.sinks)):
        for each in chains.values():
            for stage in each.chain:
                yield f"{owner}.{each.id}.{stage.id}", stage


def public_ids(document: Document) -> frozenset[str]:
    """Component ids of those whose ids are for everybody: request ids, and the incidents of pipelines."""
    stages = {
        component
        for component, spec in specs_of(document)
        if issubclass(spec.cls, Middleware) and (spec.cls.role or spec.cls.name) == _NAMED
    }
    return frozenset(stages | {f"pipelines.{pipeline}" for pipeline in document.pipelines})


def secrets_of(document: Document) -> Iterator[str]:
    """The values of all secrets that a configuration names, as far as they can be read now. Reads files."""
    for secret in _secrets_in([document.run, *(spec.config for _, spec in specs_of(document))]):
        try:
            yield secret.resolve()
        except LookupError:  # whoever needs it says so
            continue


def _secrets_in(value: Any) -> Iterator[Secret]:
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _secrets_in(item)
    elif isinstance(value, list | tuple | frozenset):
        for item in value:
            yield from _secrets_in(item)
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from _secrets_in(getattr(value, field.name))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"# cannot be read any more: {error.strerror}"
