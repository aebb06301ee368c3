"""One exchange through a component under examination, and everything that can be seen of it."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, final

import trio
from attrs import define, field, frozen

from ..model.component import Middleware, Sink
from ..model.exchange import Exchange
from ..model.session import ANONYMOUS, Caller, Client
from ..protocol.errors import GatewayError
from ..protocol.mcp import LOG_MESSAGE, PROGRESS
from ..protocol.messages import Json, Notification, Reply, Result
from ..runtime.chain import Stage, compile_chain
from .exchanges import MODERN_CLIENT, memory_exchange
from .musts import ContractViolation

Message = tuple[str, Mapping[str, Json]]
"""Method and params of a sample."""

SAMPLES: Final[Sequence[Message]] = (
    ("tools/call", {"name": "echo", "arguments": {"text": "hello"}, "_meta": {"progressToken": "p"}}),
    ("tools/list", {}),
    ("resources/read", {"uri": "file:///readme.md"}),
    ("prompts/get", {"name": "greet", "arguments": {"name": "Ana"}}),
    ("vendor/unknown", {"anything": [1, 2, {"deep": None}]}),
    ("subscriptions/listen", {"notifications": {"toolsListChanged": True}}),
    ("notifications/roots/list_changed", {}),
)
"""What is sent unless the caller of the checker says otherwise: calls, an unknown method, a listen, a notification."""


def make_interim() -> list[Notification]:
    """What the inner chain relays before it replies."""
    return [
        Notification(PROGRESS, {"progressToken": "p", "progress": 1, "total": 2}),
        Notification(LOG_MESSAGE, {"level": "info", "data": "working"}),
        Notification(PROGRESS, {"progressToken": "p", "progress": 2, "total": 2}),
    ]


_FOREIGN_MARK: Final = "pipelines.main.another_stage"

Act = Callable[[Exchange], Awaitable[Reply]]
"""What the inner chain does with an exchange."""


@final
@frozen
class Sender:
    """Who sends the samples."""

    client: Client = MODERN_CLIENT
    caller: Caller = ANONYMOUS


@final
@define(eq=False)
class Inner:
    """The inner chain of one exchange, as the checker plays it."""

    act: Act
    calls: list[Exchange] = field(factory=list)
    is_over: bool = False
    """The stage has returned or raised."""
    late: int = 0
    """Calls that came after that."""
    said: list[tuple[Reply, Reply]] = field(factory=list)
    """What it replied, and a copy of it."""

    async def __call__(self, exchange: Exchange) -> Reply:
        self.late += self.is_over
        self.calls.append(exchange)
        reply = await self.act(exchange)
        self.said.append((reply, copy.deepcopy(reply)))
        return reply


@final
@define(eq=False)
class Passage:
    """One exchange through a component, and what came of it."""

    exchange: Exchange
    inner: Inner
    interim: list[Notification]
    reply: Any = None
    """What was returned; None if it raised."""
    error: Exception | None = None
    """What was raised; None if it returned."""

    def signature(self) -> tuple[str, ...]:
        """What must be the same with the same seed."""
        requests = [repr(call.request) for call in self.inner.calls]
        seen = (self.reply, self.error, self.exchange.correlation_id, self.exchange.reply_headers, self.interim)
        return (*map(repr, seen), *requests)


async def reply_after_relaying(exchange: Exchange) -> Reply:
    """Relay the interim notifications, wait a little, and reply with something that tells requests apart."""
    for notification in make_interim():
        await exchange.relay(notification)
    await trio.sleep(0.01)
    about = copy.deepcopy(dict(exchange.request.params))
    return Result({"of": exchange.request.method, "about": about, "content": [{"type": "text", "text": "done"}]})


async def travel(component: Middleware | Sink, message: Message, act: Act, sender: Sender, number: int = 1) -> Passage:
    """
    Send one message through a component, and check on the way what holds for every passage.

    Args:
        component: A stage, which gets `act` for its inner chain, or a sink.
        message: What to send.
        act: What the inner chain does; for a sink it is not used.
        sender: Who sends it.
        number: The request's id.

    Raises:
        ContractViolation: Of M-NO-MUTATE, M-MARKS, M-REPLY.
    """
    inner, interim = Inner(act), list[Notification]()
    stages = [Stage(component.context.id, component)] if isinstance(component, Middleware) else []
    chain = compile_chain(stages, component.__call__ if isinstance(component, Sink) else inner)
    method, params = message
    exchange = memory_exchange(
        method,
        copy.deepcopy(dict(params)),
        request_id=number,
        client=sender.client,
        caller=sender.caller,
        interim=interim,
        relay=chain.relay,
    )
    exchange.marks[_FOREIGN_MARK] = {"kept": [number]}
    exchange.draining.set()  # so that a LISTEN exchange comes to its end
    request = exchange.request
    passage = Passage(exchange, inner, interim)
    try:
        passage.reply = await chain.service(exchange)
    except Exception as error:  # judged by whoever asked for this passage
        passage.error = error
    finally:
        inner.is_over = True
    if exchange.request is not request or exchange.request.params != params:
        raise ContractViolation("M-NO-MUTATE", f"the request was {method} {params}, now it is {exchange.request}")
    for reply, copied in inner.said:
        if reply != copied:
            raise ContractViolation("M-NO-MUTATE", f"the reply was {copied!r}, now it is {reply!r}")
    _check_marks(exchange, component.context.id, number)
    if passage.error is None and not _is_reply(passage.reply):
        raise ContractViolation("M-REPLY", f"{method} was answered with {passage.reply!r}")
    return passage


def _is_reply(value: object) -> bool:
    return isinstance(value, Reply)


def _check_marks(exchange: Exchange, own: str, number: int) -> None:
    if exchange.marks.get(_FOREIGN_MARK) != {"kept": [number]}:
        raise ContractViolation("M-MARKS", f"another stage's mark became {exchange.marks.get(_FOREIGN_MARK)!r}")
    foreign = set(exchange.marks) - {_FOREIGN_MARK, own}
    if foreign:
        raise ContractViolation("M-MARKS", f"the stage {own} set {', '.join(map(repr, sorted(foreign)))}")


def refused_properly(passage: Passage, what: str) -> None:
    """
    Check that a passage that failed failed as the contract wants.

    Raises:
        ContractViolation: Of M-REFUSE.
    """
    error = passage.error
    if error is not None and not isinstance(error, GatewayError):
        raise ContractViolation("M-REFUSE", f"{what}: {type(error).__name__}: {error}") from error
