"""
Tests of a configuration as they are written: `tests:` in it, or a file `<name>_test.yaml` beside it.

Values only; the runner is in `pipeline/testing/cases`. Whatever is declared `Any` and called an expectation is a
pattern (see `patterns`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, final

from attrs import frozen

from .faults import Fault, StoreFault
from .options import Duration, option

FailureReason = Literal[
    "connect_failed", "upstream_closed", "upstream_protocol_error", "upstream_unavailable", "outcome_unknown",
    "capacity_exceeded", "deadline_exceeded",
]  # fmt: skip
"""Ways in which a sink fails, by `data.reason`."""


@final
@frozen(kw_only=True)
class CallerGiven:
    """Who asks, as if an auth stage had said so."""

    subject: str = option("anonymous", doc="Name of the principal.", example="ana")
    tenant: str | None = option(None, doc="Tenant it belongs to.", example="acme")
    scopes: tuple[str, ...] = option((), doc="What its credential grants.", example=["files:read"])
    roles: tuple[str, ...] = option((), doc="Its roles.", example=["editor"])
    tenants: tuple[str, ...] = option((), doc="Further tenants it may choose from.", example=["acme", "globex"])
    how: str = option("fixed", doc="How it proved itself.", example="bearer")


@final
@frozen(kw_only=True)
class ErrorGiven:
    """A JSON-RPC error that an upstream, or a client, answers with."""

    code: int = option(doc="Its number.", example=-32602)
    message: str = option("an error of the test", doc="Its text.")
    data: Any = option(None, doc="Its details.", example={"retry": False})


@final
@frozen(kw_only=True)
class ClientAnswer:
    """How the client answers questions of one kind."""

    method: str = option(doc="The question, as a glob.", example="elicitation/create")
    reply: Mapping[str, Any] | None = option(None, doc="The result it answers with.", example={"action": "decline"})
    error: ErrorGiven | None = option(None, doc="The error it answers with instead.", example={"code": -1})
    delay: Duration | None = option(None, gt=0, doc="Time it takes.", example="5s")


@final
@frozen(kw_only=True)
class ClientGiven:
    """What asks, as far as protocol and transport tell."""

    era: Literal["modern", "legacy"] = option(
        "modern", doc="`modern`: 2026-07-28, without sessions. `legacy`: before, with a session after its handshake."
    )
    version: str | None = option(
        None, doc="The revision it speaks; the latest of its era if absent.", example="2025-06-18"
    )
    capabilities: Mapping[str, Any] = option(factory=dict, doc="What it declared.", example={"elicitation": {}})
    info: Mapping[str, Any] = option(factory=dict, doc="Who it says it is.", example={"name": "editor"})
    headers: Mapping[str, str] = option(
        factory=dict, doc="Headers of all its requests, names in lower case.", example={"x-api-key": "test"}
    )
    session: str = option("session-1", doc="Name of its session, if it is of the legacy era; others are other clients.")
    transport: Literal["http", "sse", "stdio", "websocket", "memory"] = option("memory", doc="What it came over.")
    address: str | None = option(None, doc="Where it came from.", example="192.0.2.7")
    answers: tuple[ClientAnswer, ...] = option(
        (),
        doc="How it answers questions; the first that fits. It cannot be asked what nothing here fits.",
        example=[{"method": "roots/list", "reply": {"roots": []}}],
    )


@final
@frozen(kw_only=True)
class Said:
    """A notification of a sink."""

    method: str = option("notifications/progress", doc="Its method.")
    params: Mapping[str, Any] = option(factory=dict, doc="Its params.", example={"progressToken": 1, "progress": 0.5})
    after: Duration | None = option(None, gt=0, doc="Time that passes before it.", example="2s")


@final
@frozen(kw_only=True)
class Asked:
    """A question of a sink to the client."""

    method: str = option(doc="Its method.", example="elicitation/create")
    params: Mapping[str, Any] = option(factory=dict, doc="Its params.", example={"message": "Sure?"})
    answer: Any = option(
        None, doc="What the answer is expected to be: `result` or `error`.", example={"result": {"action": "accept"}}
    )


@frozen(kw_only=True)
class Answer:
    """What a sink does with one request."""

    reply: Mapping[str, Any] | None = option(
        None, doc="The result it answers with; an empty one if nothing is said.", example={"content": []}
    )
    error: ErrorGiven | None = option(
        None, doc="The error it answers with: the upstream's word.", example={"code": -32602}
    )
    fail: FailureReason | None = option(None, doc="How it fails instead of answering.", example="connect_failed")
    echo: bool = option(False, doc="Answer with the method and the params of the request.")
    delay: Duration | None = option(None, gt=0, doc="Time it takes.", example="5s")
    relay: tuple[Said, ...] = option(
        (), doc="What it tells the client before it answers.", example=[{"params": {"progressToken": 1, "progress": 1}}]
    )
    ask: tuple[Asked, ...] = option(
        (), doc="What it asks the client before it answers.", example=[{"method": "roots/list"}]
    )
    got: Any = option(
        None, doc="What the request is expected to be: `method` and `params`.", example={"params.arguments.q": "D*"}
    )

    def __attrs_post_init__(self) -> None:
        given = [
            name
            for name in ("reply", "error", "fail", "echo")
            if getattr(self, name) is not None and getattr(self, name) is not False
        ]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]}: one request has one answer; use `script` for several")


@final
@frozen(kw_only=True)
class Rule(Answer):
    """What a sink does with requests of one kind."""

    method: str = option("*", doc="The method, as a glob.", example="tools/call")
    name: str | None = option(None, doc="Name of the tool or prompt, or uri, as a glob.", example="search*")


@final
@frozen(kw_only=True)
class Mock(Answer):
    """What stands in the place of a sink."""

    script: tuple[Answer, ...] = option(
        (),
        doc="What it does with the first request, the second, and so on. One too many is a failure of the test.",
        example=[{"fail": "connect_failed"}, {"reply": {"content": []}}],
    )
    rules: tuple[Rule, ...] = option(
        (),
        doc="What it does with some requests; the first that fits, before `script` and the rest.",
        example=[{"method": "tools/call", "name": "slow", "delay": "5s"}],
    )
    tools: tuple[str | Mapping[str, Any], ...] = option(
        (), doc="Tools it offers, by name or as `tools/list` has them.", example=["search"]
    )
    resources: tuple[str | Mapping[str, Any], ...] = option(
        (), doc="Resources it offers, by uri or as `resources/list` has them.", example=["file:///a.txt"]
    )
    prompts: tuple[str | Mapping[str, Any], ...] = option(
        (), doc="Prompts it offers, by name or as `prompts/list` has them.", example=["review"]
    )
    faults: tuple[Fault, ...] = option(
        (), doc="What goes wrong on the way to it and back.", example=[{"effect": "reset", "times": 2}]
    )


@final
@frozen(kw_only=True)
class RequestGiven:
    """What a client sends."""

    method: str = option(doc="Its method; `notifications/...` is a notification.", example="tools/call")
    params: Mapping[str, Any] = option(
        factory=dict, doc="Its params.", example={"name": "search", "arguments": {"q": "trio"}}
    )
    headers: Mapping[str, str] = option(
        factory=dict, doc="Headers it comes with, names in lower case.", example={"x-api-key": "test"}
    )


@final
@frozen(kw_only=True)
class Between:
    """A time that is not known exactly."""

    at_least: Duration | None = option(None, ge=0, doc="Not shorter.", example="1s")
    at_most: Duration | None = option(None, ge=0, doc="Not longer.", example="2s")


@final
@frozen(kw_only=True)
class Decided:
    """A decision of a stage."""

    outcome: str = option("*", doc="The word for what it decided, as a glob.", example="refuse")
    cause: str = option("*", doc="Why, as a glob.", example="*per tenant")


@final
@frozen(kw_only=True)
class Expect:
    """What is expected of a request; of the case as a whole `sent_to` and `figures` only."""

    result: Any = option(None, doc="The result.", example={"content": [{"text": "*"}]})
    error: Any = option(
        None,
        doc="The error: its `code`, `message` and `data`; or a number, its code; or text, its `data.reason`.",
        example="rate_limited",
    )
    relayed: Any = option(
        None,
        doc="Notifications the client got before the reply: each with `method` and `params`, or how many.",
        example=[{"params.progress": 0.5}],
    )
    asked: Any = option(
        None,
        doc="Questions the client got: each with `method` and `params`, or how many.",
        example=[{"method": "elicitation/create"}],
    )
    headers: Any = option(None, doc="Headers of the response, names in lower case.", example={"x-ratelimit-limit": "*"})
    decided: Mapping[str, str | Decided | None] = option(
        factory=dict, doc="What stages decided, by id; null for nothing at all.", example={"cache": "hit"}
    )
    stages: tuple[str, ...] | None = option(
        None, doc="Ids of the stages it went through, in the order of entering.", example=["request_id", "cache"]
    )
    sent_to: Mapping[str, Any] = option(
        factory=dict,
        doc="What reached sinks, by id: how many messages, each of them in a list, or the latest, with `method` and "
        "`params`. What a mock answers by itself (handshakes, lists) does not count.",
        example={"files": {"params.name": "read"}, "search": 0},
    )
    figures: Mapping[str, Any] = option(
        factory=dict,
        doc="What is counted, by name of the metric without prefix, with labels if need be; several samples add up.",
        example={'cache_hits_total{component="pipelines.main.cache"}': 1},
    )
    takes: Duration | Between | None = option(None, doc="Time until the end, to 10 ms.", example="5s")
    cancelled: bool | None = option(
        None, doc="Whether it was cancelled by its client, so that there is no reply.", example=True
    )


@frozen(kw_only=True)
class Sending:
    """One request, or the same some times over, and what is expected."""

    after: Duration | None = option(None, gt=0, doc="Time that passes before it.", example="1s")
    request: RequestGiven | None = option(
        None, doc="What the client sends.", example={"method": "tools/call", "params": {"name": "search"}}
    )
    repeat: int = option(1, ge=1, le=1_000, doc="How often it is sent, one after the other.", example=11)
    at_once: int = option(1, ge=1, le=1_000, doc="How often it is sent at the same moment.", example=3)
    cancel_after: Duration | None = option(None, gt=0, doc="Time after which the client cancels it.", example="1s")
    caller: CallerGiven | None = option(None, doc="Who sends it; the case's if absent.", example={"subject": "bob"})
    client: ClientGiven | None = option(None, doc="What sends it; the case's if absent.", example={"era": "legacy"})
    expect: Expect | None = option(None, doc="What is expected of each.", example={"error": "rate_limited"})
    expect_last: Expect | None = option(
        None, doc="What is expected of the last one only.", example={"error": {"code": 42900}}
    )


@final
@frozen(kw_only=True)
class Together(Sending):
    """One of several that begin at the same moment."""


@final
@frozen(kw_only=True)
class Step(Sending):
    """One step of a case: steps come one after the other."""

    together: tuple[Together, ...] = option(
        (),
        doc="Several that begin at the same moment; the step is over when all are. Their `sent_to` is that of all.",
        example=[{"request": {"method": "tools/list"}}, {"request": {"method": "ping"}, "after": "1s"}],
    )
    clock_jump: str | None = option(
        None, doc="How far the date jumps before the step, with sign; time as it passes does not.", example="-5m"
    )


@final
@frozen(kw_only=True)
class Case(Sending):
    """One test."""

    name: str = option(doc="What it shows, as a sentence.", example="the eleventh export in a second is refused")
    source: str | None = option(
        None, doc="Source that requests come in by; the first that feeds `pipeline` if absent.", example="public",
        refers="source",
    )  # fmt: skip
    pipeline: str | None = option(
        None, doc="Pipeline under test; the first if absent.", example="main", refers="pipeline"
    )
    sinks: Mapping[str, Mock] = option(
        factory=dict,
        doc="What stands in the place of sinks. One that leads outside and is not here must not be reached.",
        example={"files": {"reply": {"content": []}}},
        refers="sink",
    )
    stores: Mapping[str, tuple[StoreFault, ...]] = option(
        factory=dict, doc="What goes wrong with stores.", example={"shared": [{"effect": "fail"}]}, refers="store"
    )
    steps: tuple[Step, ...] = option(
        (),
        doc="Several steps instead of one.",
        example=[{"request": {"method": "tools/list"}, "expect": {"result": {}}}],
    )
    cases: tuple[Mapping[str, Any], ...] = option(
        (),
        doc="A table: the case is run once for each row, with the row's values in the place of `<name>`.",
        example=[{"tool": "read", "code": 40300}],
    )
    seed: int = option(0, ge=0, doc="What randomness and ids begin with.", example=1)
    now: str = option("2026-01-01T00:00:00Z", doc="The date when it begins, with its time zone.")
