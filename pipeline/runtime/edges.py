"""
Where a gateway meets what it does not decide itself: clients, upstreams, chance, the date, an operator.

Everything else is a function of these. An engine asks its edges while it is built, once per component and not per
message; those of the base class hand back what they are given, so that nothing is left to skip. A recorder stands here
and writes down what passes; a player stands here and gives what was written down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..model.changes import Changes
from ..model.component import State
from ..model.document import Document
from ..model.exchange import Service
from ..model.figures import Figure
from ..model.handle import Handle
from .chain import Probe


class Edges:
    """Stands nowhere. Override what is of interest; nothing here may block."""

    def now(self, now: Callable[[], float]) -> Callable[[], float]:
        """The `Context.now` of every component, in place of `now`; may be called from threads. Asked once."""
        return now

    def configured(self, document: Document, generation: int, changes: Changes) -> None:
        """
        Told that a configuration is about to be built, before anything else about it.

        Args:
            document: The configuration.
            generation: 1 for the first, then one more for each reload.
            changes: What sinks announce; the same for all generations.
        """

    def client(self, source: str, pipeline: Callable[[], str], handle: Handle) -> Handle:
        """
        What a source feeds.

        Args:
            source: Id of the source.
            pipeline: Tells the id of the pipeline that it feeds now.
            handle: Feeds that pipeline.
        """
        return handle

    def sink(self, sink: str, service: Service) -> Service:
        """A sink that leads to an upstream, behind its chain and its `max_in_flight`; called once for every attempt."""
        return service

    def probe(self) -> Probe | None:
        """What stands around every stage, told its component id; None for nothing. Asked once."""
        return None

    def seed(self, component: str, seed: int) -> int:
        """The seed of a component's `Context.random`, of 64 bits."""
        return seed

    def new_id(self, component: str, new_id: Callable[[], str]) -> Callable[[], str]:
        """A component's `Context.new_id`, or with `pipelines.<id>` what makes a pipeline's incidents."""
        return new_id

    def became(self, component: str, state: State, reason: str) -> None:
        """Told of every change of a component's state."""

    def figures(self) -> Iterable[Figure]:
        """What is counted here, for metrics."""
        return ()


def both(outer: Probe | None, inner: Probe | None) -> Probe | None:
    """Two probes around every stage."""
    if outer is None or inner is None:
        return outer or inner
    return lambda stage, exchange, service: outer(stage, exchange, lambda seen: inner(stage, seen, service))
