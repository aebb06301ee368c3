"""
Which modern caller has which session at a legacy upstream; how many there may be, and for how long.

One for each caller, source, set of declared capabilities and name of a client: what a legacy server keeps in a session
is then never another one's. Where nobody is authenticated the caller is whoever comes from one address.
"""

from __future__ import annotations

import contextvars
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, final

import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.keys import canonical, principal_of
from sluiceway.pipeline.protocol.errors import CapacityExceeded
from sluiceway.pipeline.protocol.messages import Json

from .config import TranslationConfig
from .held_session import HeldSession
from .held_task import HeldTask

_OF_CROWDS: Final = frozenset({"http", "sse", "websocket"})
"""Transports on which more than one person may come from the same address."""
_UNPROVED: Final = frozenset({"none", "fixed"})
"""How callers came to their names who did nothing for them: nobody asked, or the configuration says who they are."""

Owner = tuple[str, ...]
_Key = tuple[Owner, bytes]


def owner_of(exchange: Exchange) -> Owner:
    """Whose a held session is: tenant, subject and source; and the address, where nobody proved who it is."""
    proved = exchange.caller.how not in _UNPROVED
    return (*principal_of(exchange), exchange.source, "" if proved else str(exchange.client.address))


@final
class HeldSessions:
    """
    Args:
        name: The sink's id.
        call: Asks the upstream.
        context: The sink's.
        config: Bounds.
    """

    def __init__(self, name: str, call: Service, context: Context, config: TranslationConfig) -> None:
        self._name = name
        self._call = call
        self._context = context
        self._config = config
        self._held: OrderedDict[_Key, HeldSession] = OrderedDict()
        self._sweeping = False
        self._unheard = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def unheard(self) -> int:
        """Notifications of the upstream that were nobody's, of sessions that ended too."""
        return self._unheard + sum(held.audience.unheard for held in self._held.values())

    async def _sweep(self) -> None:
        """End sessions that nobody uses, for as long as there are any."""
        while self._held:
            now = trio.current_time()
            due = now + self._config.session_idle
            for key, held in list(self._held.items()):
                if held.users:
                    continue
                if held.last_used + self._config.session_idle <= now:
                    self._drop(key)
                else:
                    due = min(due, held.last_used + self._config.session_idle)
            if self._held:
                await trio.sleep_until(due)
        self._sweeping = False

    @contextmanager
    def of(self, exchange: Exchange, nursery: trio.Nursery) -> Iterator[HeldSession]:
        """
        The caller's session, to be used in the body; it may not be open yet.

        Raises:
            CapacityExceeded: There are too many sessions, and all are in use.
        """
        client = exchange.client
        owner = owner_of(exchange)
        key = owner, canonical([client.capabilities, client.info])
        held = self._held.get(key)
        if held is None:
            self._make_room(owner)
            held = self._held[key] = HeldSession(
                self._name,
                self._call,
                self._context,
                nursery,
                exchange,
                crowd=_is_crowd(exchange),
                make_room=self._drop_idlest,
            )
            if not self._sweeping:
                self._sweeping = True
                contextvars.Context().run(nursery.start_soon, self._sweep)
        self._held.move_to_end(key)
        with held.in_use():
            yield held

    @property
    def tasks(self) -> int:
        """How many tasks are held in them."""
        return sum(len(held.tasks) for held in self._held.values())

    def task(self, exchange: Exchange, task_id: Json) -> tuple[HeldSession, HeldTask] | None:
        """The caller's task with an id, and the session in which it is; None if it has none."""
        if not isinstance(task_id, str):
            return None
        owner = owner_of(exchange)
        own = (held for key, held in self._held.items() if key[0] == owner and task_id in held.tasks)
        held = next(own, None)
        return None if held is None else (held, held.tasks[task_id])

    def close(self) -> None:
        """End every session."""
        for key in list(self._held):
            self._drop(key)

    def _make_room(self, owner: Owner) -> None:
        config = self._config
        own = [key for key in self._held if key[0] == owner]
        if len(own) >= config.max_sessions_per_caller:
            self._drop_idle(own, "max_sessions_per_caller", config.max_sessions_per_caller)
        elif len(self._held) >= config.max_sessions:
            self._drop_idle(list(self._held), "max_sessions", config.max_sessions)

    def _drop_idlest(self) -> bool:
        """End the session that nobody has used for longest, if there is one that nobody uses."""
        idle = next((key for key, held in self._held.items() if not held.users), None)
        if idle is not None:
            self._drop(idle)
        return idle is not None

    def _drop_idle(self, among: list[_Key], limit: str, most: int) -> None:
        idle = next((key for key in among if not self._held[key].users), None)
        if idle is None:
            raise CapacityExceeded(
                f"{self._name}: {most} sessions are held at this upstream, which knows handshakes only, and all are in "
                f"use; raise translation.{limit} or try again"
            )
        self._drop(idle)

    def _drop(self, key: _Key) -> None:
        held = self._held.pop(key)
        self._unheard += held.audience.unheard
        held.close()


def _is_crowd(exchange: Exchange) -> bool:
    """Whether several people may look like one caller: nobody proved who they are, and they come over a network."""
    return exchange.caller.how in _UNPROVED and exchange.client.transport in _OF_CROWDS
