"""
What a tape says: one class for each kind of line.

Each class is its own schema: the member `event` of a line is the class's tag, the others are its fields, and those that
have their default are left out. docs/cassettes.md says the same for people. Readers ignore members and events that they
do not know, so that what is added later does not make a new version.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..protocol.messages import Json

FORMAT: Final = "sluiceway-tape"
VERSION: Final = 1
"""Goes up when a reader of the version before would misread what is written."""


class MessageData(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A request, or a notification, for which `id` is left out."""

    method: str
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    id: int | str | None = None


class ErrorData(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An error that somebody answered."""

    code: int
    message: str
    data: Any = None
    http_status: int | None = None


class ReplyData(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What was answered: a result or an error; neither if the result could not be read."""

    result: dict[str, Any] | None = None
    error: ErrorData | None = None
    unreadable: str = ""
    """Why the result is not here: it does not pass the gate, so nobody can say what of it is secret."""


class FailureData(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An exception that came out of a sink."""

    type: str
    """Name of its class."""
    message: str
    reason: str = ""
    """That of a `GatewayError`; empty for a bug."""
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    retry_after_s: float | None = None
    retryable: bool = False
    counts: bool = True
    """Whether it says that the upstream is broken."""


class ClientData(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Who sent a message, as far as protocol and transport tell."""

    era: str
    version: str | None = None
    capabilities: dict[str, Any] = msgspec.field(default_factory=dict)
    info: dict[str, Any] = msgspec.field(default_factory=dict)
    transport: str = "memory"
    address: str | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    """Those that are known to be harmless, or were asked for; never one with credentials."""
    session: int | None = None
    """Number of its session on this tape; the session's id is a credential, and is not."""
    certificate: str = ""
    """SHA-256 of its certificate."""


class CallerData(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Who an auth stage found it to be."""

    subject: str = "anonymous"
    tenant: str | None = None
    scopes: tuple[str, ...] = ()
    how: str = "none"
    roles: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    credential: str = ""


class DecisionData(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a stage made of an exchange; see `model.exchange.Decision`."""

    stage: str
    outcome: str
    cause: str = ""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag_field="event"):
    """One line."""

    n: int = 0
    """Number of the line: 1 for the first, without gaps over all parts of a tape."""
    t: float
    """Seconds since the recording began, on a clock that only goes forward."""


class Redactions(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What was taken out before anything was written."""

    keys: tuple[str, ...] = ()
    """Globs of keys whose values are masked."""
    headers: tuple[str, ...] = ()
    """Globs of the headers that are kept, unless a key hides them."""


class Header(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="tape"):
    """First line of each part."""

    format: str
    """`FORMAT`."""
    version: int
    sluiceway: str
    """Version of the program that wrote it."""
    recording: str
    """Id of the recording; the same in all its parts."""
    part: int
    """Number of this part, from 1."""
    began: str
    """When the recording began, for people: UTC, ISO 8601."""
    epoch: float
    """The same in seconds since 1970: what the date was at `t` 0."""
    digest: str = ""
    """SHA-256 of the configuration in use when the part begins."""
    redactions: Redactions = Redactions()
    stages: bool = False
    """Whether stages were recorded one by one."""
    dropped: int = 0
    """Number of the last line that was dropped with old parts, for want of room; 0 if none was."""


class Configured(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="configured"):
    """A configuration came into use: when the recording began, and at each reload."""

    generation: int
    digest: str
    files: dict[str, str] = msgspec.field(default_factory=dict)
    """Name and text of what was read, if that was asked for; values of variables and secrets are not in it."""


class Seeded(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="seeded"):
    """The seed of a component's randomness: from it follows every draw, in order."""

    component: str
    seed: str
    """64 bits in hexadecimal."""


class IdMade(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="id_made"):
    """A component made an id. Masked unless ids of that component are for everybody to see."""

    component: str
    value: str


class ClockSet(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="clock_set"):
    """The date was corrected: from now on it is `epoch` + `t`, with this `epoch`."""

    epoch: float


class StateChanged(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="state_changed"):
    """A component came into another state."""

    component: str
    state: str
    reason: str = ""


class Announced(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="announced"):
    """A sink said that something has changed upstream."""

    sink: str
    message: MessageData


class SessionOpened(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="session_opened"):
    """A client shakes hands; the session's number is used from now on."""

    session: int
    source: str


class SessionTold(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="session_told"):
    """A session was sent something that no request caused."""

    session: int
    message: MessageData


class SessionAsked(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="session_asked"):
    """A session was put a question that no request caused."""

    session: int
    question: int
    """Number of the question on this tape, from 1."""
    message: MessageData


class SessionAnswered(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="session_answered"):
    """Its answer; without a reply, nobody waits for one any more."""

    session: int
    question: int
    reply: ReplyData | None = None


class SessionClosed(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="session_closed"):
    """A session ended."""

    session: int


class Begun(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="begun"):
    """A message of a client came in: an exchange begins."""

    exchange: int
    """Its number, from 1; without a client's message (`source` is empty) a stage or sink began it by itself."""
    source: str = ""
    pipeline: str = ""
    kind: str = "call"
    message: MessageData
    client: ClientData | None = None
    caller: CallerData | None = None
    """Who it was known to be already; None if nobody has said."""
    can_ask: bool = False
    """Whether the client can be put questions."""


class Relayed(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="relayed"):
    """A notification went to the client."""

    exchange: int
    message: MessageData


class Asked(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="asked"):
    """A question went to the client."""

    exchange: int
    question: int
    """Number of the question in this exchange, from 1."""
    message: MessageData


class Answered(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="answered"):
    """The client's answer to a question; without a reply, nobody waits for one any more."""

    exchange: int
    question: int
    reply: ReplyData | None = None


class CancelAsked(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="cancel_asked"):
    """The client, or what stands for it, cancels an exchange."""

    exchange: int
    by: str


class Ended(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="ended"):
    """An exchange ended."""

    exchange: int
    reply: ReplyData | None = None
    """What the client got; None for a notification, and if nobody was there to get it."""
    cancelled: str = ""
    """`client`, `deadline`, `shutdown`, or `connection` if it went away under the exchange; empty if none did."""
    caller: CallerData | None = None
    """Who it turned out to be; None if nobody has said."""
    decisions: tuple[DecisionData, ...] = ()
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    """Reply headers that stages set."""
    correlation: str = ""
    """Its correlation id."""


class Called(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="called"):
    """A sink that leads to an upstream was called."""

    exchange: int
    call: int
    """Number of the call, from 1; unique on the tape."""
    sink: str
    attempt: int = 1
    """Which attempt the stage in front says it is."""
    message: MessageData | None = None
    """What the sink got; None if it is what the client sent, untouched."""
    caller: CallerData | None = None


class CallRelayed(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="call_relayed"):
    """A sink relayed a notification."""

    exchange: int
    call: int
    message: MessageData


class CallAsked(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="call_asked"):
    """A sink put a question to the client."""

    exchange: int
    call: int
    question: int
    """Number of the question in this call, from 1."""
    message: MessageData


class CallAnswered(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="call_answered"):
    """The answer to a sink's question; without a reply, it does not wait any more."""

    exchange: int
    call: int
    question: int
    reply: ReplyData | None = None


class CallEnded(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="call_ended"):
    """A call of a sink ended: with a reply, with a failure, or, with neither, because it was cancelled."""

    exchange: int
    call: int
    reply: ReplyData | None = None
    failure: FailureData | None = None


class StageEntered(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="stage_entered"):
    """An exchange came to a stage. Only on tapes whose header says `stages`."""

    exchange: int
    visit: int
    """Number of the visit, from 1; unique on the tape."""
    stage: str
    message: MessageData | None = None
    """As the stage got it; None if it is what the client sent, untouched."""


class StageLeft(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="stage_left"):
    """An exchange left a stage: with a reply, a failure, or, with neither, because it was cancelled."""

    exchange: int
    visit: int
    stage: str
    reply: ReplyData | None = None
    failure: FailureData | None = None


class Lost(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="lost"):
    """Here entries are missing."""

    entries: int
    reason: str


class PartEnded(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="part_ended"):
    """Last line of a part that was full: the tape goes on in the next one."""

    next: int


class Trailer(Entry, frozen=True, omit_defaults=True, gc=False, kw_only=True, tag="end"):
    """Last line of a tape that was ended in good order."""

    lost: int = 0
    """Entries that were lost, all together."""


AnyEntry = (
    Header | Configured | Seeded | IdMade | ClockSet | StateChanged | Announced | SessionOpened | SessionTold
    | SessionAsked | SessionAnswered | SessionClosed | Begun | Relayed | Asked | Answered | CancelAsked | Ended | Called
    | CallRelayed | CallAsked | CallAnswered | CallEnded | StageEntered | StageLeft | Lost | PartEnded | Trailer
)  # fmt: skip
"""Every kind of line."""


def data_of(entry: Entry) -> dict[str, Json]:
    """An entry as the JSON object that stands in the tape, without its checksum."""
    data: dict[str, Json] = msgspec.to_builtins(entry)
    return data


def event_of(entry: Entry) -> str:
    """The kind of an entry, as its line has it."""
    return str(type(entry).__struct_config__.tag)
