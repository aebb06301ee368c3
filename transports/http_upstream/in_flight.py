"""
The requests of one legacy session that are under way, and who can be asked what the upstream asks meanwhile.

Nearly no request is ever asked back, so what asking needs is made when the first question comes.
"""

from __future__ import annotations

from typing import final

import trio
from attrs import define, field

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Asker
from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.mcp import MetaKey
from sluiceway.pipeline.protocol.messages import Notification

from ..questions import Answer, Questions


@final
@define(eq=False)
class Strayed:
    """Progress of a request that an upstream reports on the standalone stream, on its way to who waits for it."""

    exchange: Exchange
    latest: Notification | None = None
    scope: trio.CancelScope = field(factory=trio.CancelScope)

    async def relay(self) -> None:
        """Tell the latest, until there is nothing later: a client that reads slowly misses what was in between."""
        with self.scope:
            while (notification := self.latest) is not None:
                try:
                    await self.exchange.relay(notification)
                except GatewayError:  # the exchange ends of it by itself
                    self.scope.cancel()
                if self.latest is notification:
                    self.latest = None


@final
@define(eq=False)
class Asking:
    """One request that is under way."""

    exchange: Exchange
    questions: Questions | None = None
    """Those that were put to its client; None as long as there were none."""
    strayed: Strayed | None = None
    """Its progress that came on the stream of no request; None as long as there was none."""


@final
class InFlight:
    """
    Args:
        ask: Asks the session's client what no request caused; None if it cannot be asked.
        answer: Takes the answers.
    """

    def __init__(self, ask: Asker | None, answer: Answer) -> None:
        self._answer = answer
        self._unsolicited = None if ask is None else Questions(ask, answer)
        self._asking: set[Asking] = set()

    def begin(self, exchange: Exchange) -> Asking:
        """A request goes out; the upstream may ask its client until `end`."""
        asking = Asking(exchange)
        self._asking.add(asking)
        return asking

    def end(self, asking: Asking) -> None:
        """It was answered or given up: nobody is asked any more."""
        self._asking.remove(asking)
        if asking.questions is not None:
            asking.questions.close()
        if asking.strayed is not None:
            asking.strayed.scope.cancel()

    def hear(self, progress: Notification, nursery: trio.Nursery) -> bool:
        """
        Take progress that came on the stream of no request to the one whose token it has.

        Returns:
            Whether there is exactly one; tokens are unique among the requests of one client that are under way.
        """
        token = progress.params.get(MetaKey.PROGRESS_TOKEN)
        found = [asking for asking in self._asking if _is_token(token, asking.exchange)]
        if len(found) != 1:
            return False
        strayed = found[0].strayed
        if strayed is None or strayed.latest is None:
            strayed = found[0].strayed = Strayed(found[0].exchange)
            nursery.start_soon(strayed.relay)
        strayed.latest = progress
        return True

    def questions_of(self, asking: Asking) -> Questions:
        """Through whom the client of one request is asked."""
        if asking.questions is None:
            asking.questions = Questions(asking.exchange.ask, self._answer)
        return asking.questions

    def asker(self) -> Questions | None:
        """
        Through whom the client is asked what does not say which request it belongs to; None if it cannot be.

        If there is one request in flight, that may well have caused it; if there are none or several, nobody can tell,
        and the question is the session's.
        """
        if len(self._asking) != 1:
            return self._unsolicited
        return self.questions_of(next(iter(self._asking)))

    def take_back(self, question_id: object) -> bool:
        """The upstream does not want to know any more; whether it had asked."""
        open_ = [asking.questions for asking in self._asking if asking.questions is not None]
        if self._unsolicited is not None:
            open_.append(self._unsolicited)
        return any(questions.take_back(question_id) for questions in open_)


def _is_token(token: object, exchange: Exchange) -> bool:
    wanted = exchange.request.meta.get(MetaKey.PROGRESS_TOKEN)
    return wanted is not None and wanted == token and type(wanted) is type(token)
