"""
Names to classes, and options to typed values, for everything that names a component. Knows where a key belongs that
stands in the wrong place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import define, field

from ..model.component import Component, ComponentKind
from ..model.registry import Registry, RegistryError, UnknownName
from .declarations import options_of
from .keys import COMPONENT_KEYS, LIMIT_KEYS, PIPELINE_KEYS, RUN_KEYS, TOP_KEYS, common_keys
from .nodes import Mapping, Node
from .problems import Problem, Span, unknown
from .structure import Structurer


@define(eq=False)
class Components:
    """Finds components and reads their options. What it leaves out it has reported."""

    registry: Registry
    problems: list[Problem] = field(factory=list)
    spans: dict[str, Span] = field(factory=dict)
    """Place of the key of everything that has a path."""
    nodes: dict[str, Node] = field(factory=dict)
    """What was written, by path of the component, pipeline or `run`."""
    broken: set[str] = field(factory=set)
    """Paths of pipelines whose limits are not as written, because those had errors."""
    incomplete: bool = False
    """A plugin could not be loaded: names that nobody knows may be its, and are not reported."""
    structurer: Structurer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.structurer = Structurer(self.problems, self.belongs)

    def report(self, rule: str, message: str, span: Span, **more: Any) -> None:
        """Note an error."""
        self.problems.append(Problem(rule=rule, message=message, span=span, **more))

    def belongs(self, key: str) -> str | None:
        """Where a key belongs that was found where nobody knows it: every place that knows it, or None."""
        places: list[str] = []
        if key in TOP_KEYS:
            places.append("at the top level of the file")
        if key in LIMIT_KEYS or key in PIPELINE_KEYS:
            places.append("under `pipelines.<id>:`")
        if key == "chain":
            places.append("under `sinks.<id>:`")
        if key in RUN_KEYS:
            places.append("under `run:`")
        if key in self.registry.names(ComponentKind.MIDDLEWARE):
            places.append("in `chain:`, as a stage")
        for kind, (section, _keys) in COMPONENT_KEYS.items():
            if key in self.registry.names(kind):
                places.append(f"under `{section}.<id>:`, as a {kind}")
        return f"`{key}` belongs {', or '.join(places)}" if places else None

    def unknown_key(self, key: str, span: Span, allowed: Iterable[str]) -> None:
        """Report a key that is not allowed where it stands, and where it would be."""
        where = self.belongs(key)
        if where is not None:
            self.report("config/misplaced-key", where, span)
        else:
            self.report("config/unknown-key", unknown("key", key, allowed), span)

    def transport(self, kind: ComponentKind, node: Mapping, path: str) -> tuple[type[Component], Any] | None:
        """The one transport key of a store, source or sink: its class and its options."""
        common = common_keys(kind)
        known = self.registry.names(kind)
        names = [key for key in node.entries if key in known or ":" in key]
        for key, entry in node.entries.items():
            if key not in names and key not in common and not self.incomplete:
                self.unknown_key(key, entry.key, [*known, *common])
        if len(names) > 1:
            places = tuple((f"`{name}`", node.entries[name].key) for name in names[1:])
            message = f"a {kind} has exactly one of its kind of key; found {', '.join(names)}"
            self.report("config/transport", message, node.entries[names[0]].key, others=places,
                        fix="keep one; an overlay removes a key with null")  # fmt: skip
        elif not names and all(key in common for key in node.entries):
            self.report("config/transport", f"{path} does not say what it is", self.spans[path],
                        fix=f"add one of {', '.join(known)}")  # fmt: skip
        if len(names) != 1:
            return None
        entry = node.entries[names[0]]
        return self.options(kind, names[0], entry.key, entry.value, path)

    def options(
        self, kind: ComponentKind, name: str, span: Span, node: Node, path: str, beside: tuple[str, ...] = ()
    ) -> tuple[type[Component], Any] | None:
        """A component's class and its typed options."""
        try:
            cls = self.registry.find(kind, name)
            taken = [option.name for option in options_of(cls.Config) if option.name in beside]
        except UnknownName as error:
            where = self.belongs(name)
            if where is None and self.incomplete:
                return None
            if where is not None:
                self.report("config/misplaced-key", where, span)
            else:
                self.report("component/unknown", unknown(str(kind), name, error.known, listed="installed"), span)
            return None
        except RegistryError as error:
            self.report("component/broken", str(error), span)
            return None
        except (TypeError, AttributeError) as error:
            self.report("component/broken", f"{kind} {name!r} declares no usable options: {error}", span)
            return None
        if taken:
            self.report("component/broken", f"{kind} {name!r} declares the reserved option {taken[0]!r}", span)
            return None
        self.nodes[path] = node
        config = self.structurer.structure(node, cls.Config, beside=beside)
        return None if config is None else (cls, config)
