"""The listening sockets of a configuration, held by the supervisor for as long as any worker may need them."""

from __future__ import annotations

from typing import final

from ...model.document import Document, SourceSpec
from ...model.worker import Binding, Shareable
from ...protocol.errors import ComponentError


def component_id(spec: SourceSpec) -> str:
    """What the component of a source is called."""
    return f"sources.{spec.id}"


@final
class Sockets:
    """
    Bound as the sources of one document want them.

    A later document takes over those whose addresses have not changed: nobody who connects is turned away meanwhile.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[object, Binding]] = {}

    def bind(self, document: Document, before: Sockets | None = None) -> None:
        """
        Open what is not open yet.

        Args:
            document: Whose sources are to be bound.
            before: The sockets of the document that is served; it keeps those that the new one has no use for.

        Raises:
            ComponentError: A source cannot be shared, or an address cannot be bound. Nothing new stays open.
        """
        fresh: list[Binding] = []
        try:
            for spec in document.sources.values():
                wanted = getattr(spec.config, "bind", None)
                known = None if before is None else before._held.get(component_id(spec))
                if known is None or known[0] != wanted:
                    known = wanted, _bound(spec)
                    fresh.append(known[1])
                self._held[component_id(spec)] = known
        except ComponentError:
            for each in fresh:
                each.close()
            raise

    def inherited(self) -> dict[str, list[int]]:
        """Descriptors for a worker, by component id of the source."""
        return {key: [each.fileno() for each in binding.sockets] for key, (_, binding) in self._held.items()}

    def addresses(self) -> dict[str, list[str]]:
        """Where each source listens, by its id in the configuration."""
        return {
            key.partition(".")[2]: list(binding.addresses)
            for key, (_, binding) in self._held.items()
            if binding.addresses
        }

    def close(self, but: Sockets | None = None) -> None:
        """Close them, but not those that others hold as well. Idempotent."""
        kept = [] if but is None else [binding for _, binding in but._held.values()]
        for _, binding in self._held.values():
            if binding not in kept:
                binding.close()


def _bound(spec: SourceSpec) -> Binding:
    if not isinstance(spec.cls, Shareable):
        raise ComponentError(component_id(spec), "open", f"{spec.cls.name} serves one process; set run.workers: 1")
    binding = spec.cls.binding(spec.config)
    try:
        binding.bind()
    except OSError as error:
        raise ComponentError(component_id(spec), "open", str(error)) from error
    return binding
