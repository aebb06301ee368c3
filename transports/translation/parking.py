"""
Which calls wait for their clients, and the texts with which clients come back to them (`requestState`).

A state names a call of this process and one round of questions. It is authenticated, bound to the caller, the method
and what the request is about, good for one answer, and expires with the call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, final

import msgspec
import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.keys import digest
from sluiceway.pipeline.protocol.errors import InvalidParams
from sluiceway.pipeline.protocol.messages import Json, Result

from ..seals import BadSeal, Seals, sealing_key
from .config import TranslationConfig
from .held_call import HeldCall
from .to_legacy_messages import INPUT_REQUIRED

AGAIN: Final = ""
"""Stands for the call in a state where none is held: the request is to be sent once more."""
_MAX_STATE: Final = 4096
_FIRST: Final = 'send the call again without "requestState"'


@final
class Parking:
    """
    The calls of one sink in which an upstream has asked, and their seals.

    Args:
        name: The sink's id.
        context: The sink's.
        config: Its bounds.
    """

    def __init__(self, name: str, context: Context, config: TranslationConfig) -> None:
        self._name = name
        self._config = config
        self._context = context
        self._made: Seals | None = None
        self._calls: dict[str, HeldCall] = {}
        self._by_owner: Counter[tuple[str, ...]] = Counter()
        self._read = msgspec.json.Decoder(tuple[str, int, float]).decode
        self._counts = Counter[str]()

    def __len__(self) -> int:
        return len(self._calls)

    def admit(self, call: HeldCall) -> bool:
        """Whether a call may wait for its client; it keeps its place until `release`."""
        if call.id in self._calls:
            return True
        config, owner = self._config, call.owner
        if len(self._calls) >= config.max_parked or self._by_owner[owner] >= config.max_parked_per_caller:
            self._counts["refused"] += 1
            return False
        self._calls[call.id] = call
        self._by_owner[owner] += 1
        return True

    def release(self, call: HeldCall) -> None:
        """A call is over, and nobody will ask for it."""
        if self._calls.pop(call.id, None) is None:
            return
        if call.is_parked and trio.current_time() >= call.scope.deadline:
            self._counts["expired"] += 1
        self._counts["dropped"] += call.dropped
        self._by_owner[call.owner] -= 1
        if not self._by_owner[call.owner]:
            del self._by_owner[call.owner]

    def park(self, call: HeldCall, exchange: Exchange) -> Result:
        """Leave a call until its client has answered; what the client is told."""
        until = trio.current_time() + self._config.park_timeout
        call.park(until)
        self._counts["parked"] += 1
        asked = {key: {"method": each.method, "params": each.params} for key, each in call.questions.items()}
        return self._asking(exchange, call.owner, asked, call.id, call.round, until)

    def ask_first(self, exchange: Exchange, owner: tuple[str, ...], pages: list[dict[str, Json]]) -> Result:
        """Have pages visited before a request is sent once more; nothing is held for it."""
        until = trio.current_time() + self._config.park_timeout
        asked = {f"q{n}": {"method": "elicitation/create", "params": page} for n, page in enumerate(pages, 1)}
        return self._asking(exchange, owner, asked, AGAIN, len(pages), until)

    def take(self, exchange: Exchange, owner: tuple[str, ...]) -> tuple[HeldCall | None, Mapping[str, Json]]:
        """
        The call that a request takes up again, now attended by it, and the client's answers by key.

        Returns:
            No call where the request is only to be sent once more.

        Raises:
            InvalidParams: The state is not one of ours, is somebody else's, was used, or has expired; or the answers
                are none.
        """
        params = exchange.request.params
        call_id, number, until = self._opened(exchange, owner, params.get("requestState"))
        answers = _answers(params)
        if trio.current_time() >= until:
            raise InvalidParams(f"requestState: the time to answer is over, and the call was cancelled; {_FIRST}")
        if call_id == AGAIN:
            return None, answers
        call = self._calls.get(call_id)
        if call is None:
            raise InvalidParams(f"requestState: the call has ended; {_FIRST}")
        if call.round != number or not call.is_parked:
            raise InvalidParams("requestState: was used already; every answer needs the state of its own questions")
        self._counts["resumed"] += 1
        call.answer(exchange, answers)
        return call, answers

    def figures(self) -> Iterator[Figure]:
        """What is parked, and what became of it."""
        parked = sum(call.is_parked for call in self._calls.values())
        yield Figure("translation_parked_calls", parked, "gauge", "Calls that wait for their client to answer.")
        for outcome in ("parked", "resumed", "expired", "refused"):
            yield Figure(
                "translation_parkings_total",
                self._counts[outcome],
                "counter",
                "Calls that were parked, taken up again, given up, or could not be parked.",
                {"outcome": outcome},
            )
        yield Figure(
            "translation_dropped_notifications_total",
            self._counts["dropped"],
            "counter",
            "Notifications of parked calls beyond what is kept for their clients.",
        )

    def _asking(
        self, exchange: Exchange, owner: tuple[str, ...], asked: Json, call_id: str, number: int, until: float
    ) -> Result:
        body = msgspec.json.encode((call_id, number, until))
        state = self._seals.seal(self._purpose(exchange, owner), exchange.caller, body)
        return Result({"resultType": INPUT_REQUIRED, "inputRequests": asked, "requestState": state})

    def _opened(self, exchange: Exchange, owner: tuple[str, ...], state: Json) -> tuple[str, int, float]:
        if not isinstance(state, str) or len(state) > _MAX_STATE:
            raise InvalidParams(f"requestState: must be the text that came with the questions; {_FIRST}")
        try:
            return self._read(self._seals.open(self._purpose(exchange, owner), exchange.caller, state))
        except BadSeal as error:
            raise InvalidParams(
                f"requestState: {error}. A call that waits for answers waits in the process of {self._name} that began "
                f"it, for the caller that began it: no other worker, no later run and no other caller can take it up; "
                f"{_FIRST}"
            ) from error

    @property
    def _seals(self) -> Seals:
        """Made when the first call is parked: most sinks never need it."""
        if self._made is None:
            self._made = Seals(sealing_key(None, self._context))
        return self._made

    def _purpose(self, exchange: Exchange, owner: tuple[str, ...]) -> str:
        return digest("park", self._name, owner, exchange.method, exchange.target)


def _answers(params: Mapping[str, Json]) -> Mapping[str, Any]:
    answers = params.get("inputResponses", {})
    if not isinstance(answers, dict) or not all(isinstance(each, dict) for each in answers.values()):
        raise InvalidParams("inputResponses: must be an object of results by key")
    return answers
