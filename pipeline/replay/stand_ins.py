"""
What stands in for components that reach the world outside while a tape is played.

Stages stay what they are, with options that keep them to themselves (`Component.secluded`): they write no file and
call nobody. Routers stay, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, final

import trio
from attrs import evolve

from ..model.component import Component, ComponentKind, Context, Middleware, Sink, Source
from ..model.document import Document, StageSpec
from ..model.exchange import Exchange, Service
from ..model.handle import Handle
from ..model.session import ANONYMOUS, Caller
from ..protocol.errors import GatewayError
from ..protocol.messages import Reply
from ..stores.memory import MemoryStore

IDENTITY: Final = frozenset({"auth", "tenant"})
"""Roles of stages that read what is on no tape."""

Key = tuple[ComponentKind, str]
"""What an engine's overrides go by."""

Found = Callable[[Exchange, str], Caller | GatewayError | None]
"""Tells what a stage, named by its component id, found out about an exchange."""


@final
class PlayedSource(Source):
    """Listens to nobody: the player speaks through what it is connected to."""

    def __init__(self, source_id: str) -> None:
        super().__init__(None, Context(id=f"sources.{source_id}"))
        self._handle: Handle | None = None
        self._serving = trio.Event()

    async def serve(self, handle: Handle) -> None:
        """See `Source`."""
        self._handle = handle
        self._serving.set()
        await trio.sleep_forever()

    async def handle(self) -> Handle:
        """What it is connected to, once it is."""
        await self._serving.wait()
        assert self._handle is not None
        return self._handle


@final
class PlayedSink(Sink):
    """Holds nothing open: the player answers in its place, at the edge."""

    def __init__(self, sink_id: str) -> None:
        super().__init__(None, Context(id=f"sinks.{sink_id}"))

    async def __call__(self, exchange: Exchange) -> Reply:
        """See `Sink`."""
        await trio.lowlevel.checkpoint()
        raise AssertionError(f"{self.context.id} is played, and was called")


@final
class PlayedIdentity(Middleware):
    """
    A stage that finds out who calls, from a credential that is on no tape: it knows what was found out then.

    Args:
        stage_id: Whose place it takes.
        found: Who makes an exchange, or how that stage turned it away; None if the tape does not say.
    """

    reads_results = False

    def __init__(self, stage_id: str, found: Found) -> None:
        super().__init__(None, Context(id=stage_id))
        self._found = found

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """See `Middleware`. Not a checkpoint of its own, as finding out is none as a rule."""
        found = self._found(exchange, self.context.id)
        if isinstance(found, GatewayError):
            raise found
        if found is not None and found is not ANONYMOUS:
            exchange.authenticate(found)
        return await call_next(exchange)


def stages_of(document: Document) -> Iterator[tuple[str, StageSpec]]:
    """Every stage, with the component id it runs under."""
    for owner, chains in (("pipelines", document.pipelines), ("sinks", document.sinks)):
        for each in chains.values():
            for stage in each.chain:
                yield f"{owner}.{each.id}.{stage.id}", stage


def is_identity(stage: StageSpec) -> bool:
    """Whether a stage is stood in for because it reads what is on no tape."""
    return (stage.cls.role or stage.cls.name) in IDENTITY


def played_sources(document: Document) -> dict[Key, PlayedSource]:
    """What is used in the place of every source."""
    return {(ComponentKind.SOURCE, source_id): PlayedSource(source_id) for source_id in document.sources}


def identities(document: Document, found: Found) -> dict[Key, Component]:
    """What is used in the place of stages that find out who calls."""
    return {
        (ComponentKind.MIDDLEWARE, stage.id): PlayedIdentity(component_id, found)
        for component_id, stage in stages_of(document)
        if is_identity(stage)
    }


def stand_ins(document: Document) -> dict[Key, Component]:
    """What is used in the place of sinks that lead to an upstream, and of stores."""
    sinks: Mapping[Key, Component] = {
        (ComponentKind.SINK, sink.id): PlayedSink(sink.id) for sink in document.sinks.values() if not sink.routes
    }
    stores: Mapping[Key, Component] = {
        (ComponentKind.STORE, store.id): MemoryStore(
            store.config if store.cls is MemoryStore else MemoryStore.Config(), Context(id=f"stores.{store.id}")
        )
        for store in document.stores.values()
    }
    return {**sinks, **stores}


def secluded(document: Document) -> Document:
    """A configuration whose stages keep to themselves."""

    def chain(stages: tuple[StageSpec, ...]) -> tuple[StageSpec, ...]:
        return tuple(evolve(stage, config=stage.cls.secluded(stage.config)) for stage in stages)

    pipelines = {key: evolve(each, chain=chain(each.chain)) for key, each in document.pipelines.items()}
    sinks = {key: evolve(each, chain=chain(each.chain)) for key, each in document.sinks.items()}
    return evolve(document, pipelines=pipelines, sinks=sinks)
