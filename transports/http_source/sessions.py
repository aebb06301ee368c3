"""
The legacy sessions of an HTTP source: from `initialize` to DELETE, expiry or the end of the source.

A session is identity, not authentication: one that an authenticated principal opened answers 404 to everybody else
(MCP 2025-11-25, security best practices, session hijacking). Messages are checked where they are authenticated, in
the chain (`Exchange.authenticate`). GET, DELETE and posted responses never reach a chain, so they must carry a
credential with which this session's principal got through the chain before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, Protocol, final

import trio

from sluiceway.pipeline.model.handle import Ticket
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.codec import encode_message
from sluiceway.pipeline.protocol.errors import CapacityExceeded
from sluiceway.pipeline.protocol.messages import Json, Notification, Reply, Request, RequestId
from sluiceway.pipeline.runtime.deadlines import SLOT_S, Deadlines, Entry

from ..eras.questions import Questions
from .proofs import Proofs, unknown_session
from .stream import MessageStream, Replay


class Resumable(Protocol):
    """A response stream of a session that outlives its connection."""

    @property
    def stream(self) -> MessageStream:
        """What it says."""
        ...

    def resumed(self) -> None:
        """Its client is back."""

    def left(self) -> None:
        """Its client went away before the end."""

    def give_up(self) -> None:
        """Cancel what still runs and keep nothing. Idempotent."""


@final
class HttpSession:
    """
    A session and what HTTP adds to it.

    Args:
        session: What the rest of the gateway sees.
        new_id: Makes ids of questions and streams.
        replay: Keeps the messages of its streams.
    """

    def __init__(self, session: Session, new_id: Callable[[], str], replay: Replay) -> None:
        self.session = session
        self.questions = Questions(new_id)
        """What the client was asked and has not answered."""
        self.in_flight: dict[RequestId, Ticket] = {}
        """Its requests under way; pipelines bound their number."""
        self.responses: dict[str, Resumable] = {}
        """Its response streams that can be resumed, by id. They leave when their time is over."""
        self.standalone = MessageStream(new_id())
        """What no request caused; a GET reads it."""
        self.standalone.keep(replay)
        self.proofs: Final = Proofs()
        """What its principal proved itself with."""
        session.notify = self._notify
        session.ask = self._ask
        session.on_close(self._end)

    @property
    def busy(self) -> bool:
        """Whether it has a request under way, or somebody reads its stream: such a session does not expire."""
        return bool(self.in_flight) or self.standalone.attached

    def admit(self, headers: Mapping[str, str]) -> None:
        """
        Check a request that never reaches a chain.

        Raises:
            SessionNotFound: The session is an authenticated principal's, and this is not one of its credentials.
        """
        self.proofs.check(headers, self.session)

    def _notify(self, notification: Notification) -> None:
        self.standalone.put_nowait(encode_message(notification))

    async def _ask(self, method: str, params: Mapping[str, Json]) -> Reply:
        """Ask on the stream that no request caused; the question waits there until the client reads it."""

        async def send(message: Request | Notification) -> None:
            await trio.lowlevel.checkpoint()
            self.standalone.put_nowait(encode_message(message))

        return await self.questions.ask(send, method, params)

    def _end(self) -> None:
        for ticket in list(self.in_flight.values()):
            ticket.cancel("client")
        for response in list(self.responses.values()):
            response.give_up()
        self.standalone.end()
        self.standalone.discard()


@final
class Sessions:
    """
    All sessions of one source.

    Args:
        source: Id of the source component.
        idle_s: Seconds after which a session that is not busy ends.
        maximum: Sessions at the same time. A new one then ends the one that was idle longest; if all are busy it is
            refused.
        new_id: Makes unguessable ids.
        deadlines: Serves the expiry.
        replay: Keeps messages for resumption.
    """

    def __init__(
        self,
        source: str,
        *,
        idle_s: float,
        maximum: int,
        new_id: Callable[[], str],
        deadlines: Deadlines,
        replay: Replay,
    ) -> None:
        self._source = source
        self._idle_s = idle_s
        self._maximum = maximum
        self._new_id = new_id
        self._deadlines = deadlines
        self._replay = replay
        self._by_id: OrderedDict[str, tuple[HttpSession, Entry]] = OrderedDict()
        self.expired = 0
        """Sessions that ended for idleness."""
        self.evicted = 0
        """Sessions that ended to make room."""

    def __len__(self) -> int:
        return len(self._by_id)

    def open(self, capabilities: Mapping[str, Json], info: Mapping[str, Json]) -> HttpSession:
        """
        Begin a session; its version is set when `initialize` was answered.

        Raises:
            CapacityExceeded: There are as many as allowed, and all are busy.
        """
        if len(self._by_id) >= self._maximum:
            self._make_room()
        session = Session(id=self._new_id(), source=self._source, capabilities=capabilities, info=info)
        found = HttpSession(session, self._new_id, self._replay)
        entry = self._deadlines.add(trio.current_time() + self._idle_s, lambda: self._expire(session.id))
        self._by_id[session.id] = (found, entry)
        session.last_activity = trio.current_time()
        session.on_close(lambda: self._remove(session.id))
        return found

    def find(self, session_id: str) -> HttpSession:
        """
        The session of that id, which has now been active.

        Raises:
            SessionNotFound: There is none, or none any more. The same answer in every case.
        """
        found = self._by_id.get(session_id)
        if found is None:
            raise unknown_session()
        self.touch(found[0])
        return found[0]

    def end_streams(self) -> None:
        """End every standalone stream: no message without a request will come any more."""
        for found, _ in self._by_id.values():
            found.standalone.end()

    def close(self) -> None:
        """End all."""
        for found, _ in list(self._by_id.values()):
            found.session.close()

    def touch(self, found: HttpSession) -> None:
        """Note that it was active. Its entry among the deadlines stays where it is, and looks again when it fires."""
        found.session.last_activity = self._deadlines.now()
        self._by_id.move_to_end(found.session.id)

    def _expire(self, session_id: str) -> None:
        found, entry = self._by_id[session_id]
        if found.busy:
            self.touch(found)
        due = found.session.last_activity + self._idle_s
        if due > trio.current_time() + SLOT_S:  # as exact as deadlines are
            self._deadlines.move(entry, due)
        else:
            self.expired += 1
            found.session.close()

    def _make_room(self) -> None:
        for found, _ in self._by_id.values():
            if not found.busy:
                self.evicted += 1
                found.session.close()
                return
        raise CapacityExceeded(
            f"all {self._maximum} sessions are busy; raise max_sessions or try again later", retry_after_s=1.0
        )

    def _remove(self, session_id: str) -> None:
        _, entry = self._by_id.pop(session_id)
        self._deadlines.cancel(entry)
