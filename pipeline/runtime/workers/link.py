"""The worker's end of the connection to its supervisor: does what it is told while the engine runs."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, TypeVar, final

import msgspec
import structlog
import trio

from ...admin.inside import ask_inside
from ...model.document import Document
from ...model.figures import Distribution, Figure
from ...model.worker import Relayed
from ...protocol.errors import SluicewayError
from ..engine import Engine
from .channel import Channel
from .messages import (
    Announce,
    Answered,
    Ask,
    Begin,
    Count,
    Counted,
    Drain,
    Hand,
    Order,
    Ping,
    Pong,
    Prepare,
    Prepared,
    Ready,
    Snapshot,
    Stop,
    Switched,
    Take,
    Verdict,
)
from .place import Place

_Asked = TypeVar("_Asked", Prepare, Ask, Count)

ORPHANED: Final = 4
"""Exit code of a worker that cannot even drain when its supervisor is gone."""


@final
class Link:
    """
    Args:
        connection: To the supervisor; the first word was read from it. Closed with the process.
        begin: That word.
        load: Makes a document of a configuration that the supervisor has read.
    """

    def __init__(self, connection: socket.socket, begin: Begin, load: Callable[[Snapshot], Document]) -> None:
        self._channel: Channel[Order] = Channel(connection, Order)
        self._load = load
        self._served: tuple[Engine, trio.Nursery] | None = None
        """What is open, and where tasks live that do something with it."""
        self._verdicts: dict[int, tuple[trio.Event, list[tuple[bool, int]]]] = {}
        self.place = Place(begin, self._hand)
        self._log: Any = structlog.get_logger()

    async def _hand(self, message: Hand, descriptor: int) -> bool:
        return await self._channel.send(message, descriptor)

    async def obey(self, stop: Callable[[], None], stop_at_once: Callable[[], None]) -> None:
        """
        Do what the supervisor says until cancelled. When it is gone, that is an order to drain.

        Args:
            stop: Drains, if there is something to drain, and ends the process.
            stop_at_once: Ends it without waiting for anybody.
        """
        async with aclosing(self._channel.messages()) as orders:
            async for order, descriptor in orders:
                match order:
                    case Announce():
                        self.place.is_announced = True
                    case Drain():
                        stop()
                    case Stop():
                        stop_at_once()
                    case Ping():
                        await self._channel.send(Pong(number=order.number))
                    case Verdict():
                        self._judge(order.prepared, serve=order.serve, answer=order.number)
                    case Take():
                        if descriptor is not None:
                            self._take(order, descriptor)
                    case Prepare():
                        self._start(self._reload, order)
                    case Ask():
                        self._start(self._answer, order)
                    case Count():
                        self._start(self._count, order)
        for number in list(self._verdicts):
            self._judge(number, serve=False, answer=0)
        self._log.warning("the supervisor is gone; this worker drains")
        stop()

    @asynccontextmanager
    async def serving(self, engine: Engine) -> AsyncIterator[None]:
        """
        Say that everything is open; clients are welcome. What is asked of the engine is done within the block, and
        given up when it is left.
        """
        async with trio.open_nursery() as nursery:
            self._served = engine, nursery
            try:
                self.place.open()
                await self._channel.send(Ready())
                yield
            finally:
                self._served = None
                nursery.cancel_scope.cancel()

    def close(self) -> None:
        """Let go of everything; the process ends."""
        self._channel.close()
        self.place.close()

    def _start(self, act: Callable[[Engine, _Asked], Coroutine[Any, Any, None]], order: _Asked) -> None:
        """Nobody is answered by a worker that does not serve yet, or any more: its supervisor sees to that."""
        if self._served is not None:
            engine, nursery = self._served
            nursery.start_soon(act, engine, order)

    async def _reload(self, engine: Engine, order: Prepare) -> None:
        number = order.number
        verdict, words = self._verdicts[number] = (trio.Event(), [])
        prepared = False

        async def agreed() -> bool:
            nonlocal prepared
            prepared = True
            await self._channel.send(Prepared(number=number))
            await verdict.wait()
            return words[0][0]

        notes: list[str] = []
        try:
            notes = await engine.reload(self._load(order.snapshot), agreed)
            self._log.info("reloaded", generation=engine.status()["generation"])
        except Exception as error:  # the boundary: what is made here may raise anything, and this worker serves
            problem = str(error)
            if not isinstance(error, SluicewayError):
                self._log.exception("reload failed")
                problem = f"{type(error).__name__}: {error}"
            if not prepared:
                await self._channel.send(Prepared(number=number, problem=problem))
                await verdict.wait()
        finally:
            del self._verdicts[number]
        await self._channel.send(Switched(number=words[0][1], notes=notes))

    def _judge(self, number: int, *, serve: bool, answer: int) -> None:
        if number in self._verdicts:
            event, words = self._verdicts[number]
            words.append((serve, answer))
            event.set()

    def _take(self, order: Take, descriptor: int) -> None:
        """Give a connection to its source; closed where there is none that takes any."""
        connection = socket.socket(fileno=descriptor)
        connection.setblocking(False)
        source = None if self._served is None else self._served[0].sources.get(order.source.partition(".")[2])
        if not isinstance(source, Relayed):
            connection.close()
        elif order.client:
            source.adopt(connection)
        else:
            source.take(trio.SocketStream(trio.socket.from_stdlib_socket(connection)))

    async def _answer(self, engine: Engine, order: Ask) -> None:
        try:
            status, kind, body = await ask_inside(engine, order.method, order.path, order.query, order.body)
        except Exception as error:  # the boundary: components say what is shown, and may raise anything
            self._log.exception("admin endpoint failed", path=order.path)
            status, kind, body = 500, "application/json", msgspec.json.encode({"error": type(error).__name__})
        await self._channel.send(Answered(number=order.number, status=status, content_type=kind, body=body))

    async def _count(self, engine: Engine, order: Count) -> None:
        samples = engine.snapshot()
        await self._channel.send(
            Counted(
                number=order.number,
                figures=[each for each in samples if isinstance(each, Figure)],
                distributions=[each for each in samples if isinstance(each, Distribution)],
            )
        )


def end_when_orphaned(connection: socket.socket, patience_s: float) -> None:
    """
    End this process if its supervisor is gone and it has not ended by itself after `patience_s`, whatever it is doing.

    A thread, because the event loop may be what hangs.
    """
    watched = os.dup(connection.fileno())

    def watch() -> None:
        poll = select.poll()
        poll.register(watched, 0)  # the end is told without being asked for
        poll.poll()
        time.sleep(patience_s)
        os._exit(ORPHANED)

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
