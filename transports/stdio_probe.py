"""
Whether a server that somebody waits for is still there: asked now and then, it has to say something.

A process that runs but does nothing any more (a deadlock, an endless loop) is noticed by nobody else: its calls end at
their deadlines, one after the other. Nothing is asked while nobody waits, so a server at rest is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.exchange import Exchange, Link
from sluiceway.pipeline.model.options import SECOND, Duration, option
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY, Era, Kind, MetaKey
from sluiceway.pipeline.protocol.messages import EMPTY, Json, Notification, Request

from .multiplex import Multiplexer

_MODERN: Final[Mapping[str, Json]] = {"_meta": {MetaKey.VERSION.value: LATEST, MetaKey.CLIENT_CAPABILITIES.value: {}}}


@final
@frozen
class ProbeConfig:
    """How a server is found to hang, that runs and does nothing."""

    every: Duration = option(
        Duration(30 * SECOND), gt=0, doc="Time between two questions, while somebody waits for an answer."
    )
    timeout: Duration = option(
        Duration(10 * SECOND), gt=0, doc="Time it gets to say anything at all: an answer, an error, some progress."
    )
    failures: int = option(
        3, ge=1,
        doc="Questions in a row it may miss; then it is ended, its calls fail, and the next one starts another. A "
        "server that cannot answer while it works on a call needs more of them than its longest call takes.",
    )  # fmt: skip


@final
class Probe:
    """
    Args:
        config: How often, how long, how many.
        era: In which words: a modern server is asked what it speaks, a legacy one to answer a ping.
    """

    def __init__(self, config: ProbeConfig, era: Era) -> None:
        self._config = config
        self._era = era

    async def watch(self, connection: Multiplexer, heard_at: Callable[[], float]) -> str:
        """
        Wait until the server hangs.

        Args:
            connection: Leads to it.
            heard_at: When it said something for the last time, in Trio clock seconds.

        Returns:
            What it did, as words that follow `the server`.
        """
        config, missed = self._config, 0
        while missed < config.failures:
            await trio.sleep(config.every)
            if not connection.in_flight:
                missed = 0
                continue
            asked_at = trio.current_time()
            with trio.move_on_after(config.timeout), suppress(GatewayError):
                await connection.call(self._question())
            missed = 0 if heard_at() >= asked_at else missed + 1
        return f"said nothing for {config.failures} probes of {config.timeout:g} s"

    def _question(self) -> Exchange:
        is_modern = self._era is Era.MODERN
        return Exchange(
            request=Request("probe", "server/discover", _MODERN) if is_modern else Request("probe", "ping", EMPTY),
            kind=Kind.CALL,
            client=Client(era=self._era, version=LATEST if is_modern else LATEST_LEGACY),
            source="probe",
            link=Link(_drop, None),
            way_back=_relay,
        )


async def _drop(_notification: Notification) -> None:
    await trio.lowlevel.checkpoint()


async def _relay(_exchange: Exchange, _notification: Notification) -> None:
    await trio.lowlevel.checkpoint()
