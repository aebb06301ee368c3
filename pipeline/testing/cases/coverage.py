"""
What of a configuration no test has touched: pipelines, sinks that lead outside, stages, guards and rules.

A guard is covered when some exchange passed it and some other did not. A rule (an entry of a list of options that says
which exchanges it is for) is covered when it was the first to match, or when its stage named it as the cause of a
decision. Overlapping rules are judged as the stages do: the first that matches counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, final

import attrs
from attrs import define, field, frozen
from msgspec.structs import replace

from ...model.document import Document, SinkSpec, Spec, StageSpec
from ...model.exchange import Exchange
from ...model.when import When
from ..in_flight import StageRun
from .observed import Arrival, Observed

Matches = Callable[[Exchange], bool]


@final
@frozen
class Item:
    """One thing that a test can touch."""

    kind: str
    """`pipeline`, `sink`, `stage`, `guard` or `rule`."""
    id: str
    place: str
    """`file:line:column`."""
    missing: str
    """What no test did, in words."""


@final
@define(eq=False)
class Coverage:
    """What the tests of one configuration have touched so far."""

    document: Document
    items: dict[Item, bool] = field(factory=dict)
    """Everything there is, and whether a test has touched it."""
    _plain: dict[tuple[str, str], Item] = field(factory=dict)
    _guards: dict[str, tuple[Matches, Item, Item]] = field(factory=dict)
    _rules: dict[str, list[list[tuple[Matches | None, str, Item]]]] = field(factory=dict)
    _chains: dict[str, list[str]] = field(factory=dict)
    """Component ids of the guarded stages of each pipeline or sink, by its path."""

    def __attrs_post_init__(self) -> None:
        for section, owners in (("pipelines", self.document.pipelines), ("sinks", self.document.sinks)):
            for owner in owners.values():
                path = f"{section}.{owner.id}"
                if not isinstance(owner, SinkSpec) or not (owner.routes or owner.cls.in_process):
                    self._add(section.removesuffix("s"), path, owner.place, "never reached")
                for stage in owner.chain:
                    if stage.enabled:
                        self._add_stage(path, stage)

    @property
    def touched(self) -> int:
        """How many things were touched."""
        return sum(self.items.values())

    @property
    def share(self) -> float:
        """Of everything, from 0 to 1."""
        return self.touched / len(self.items) if self.items else 1.0

    def missing(self) -> list[Item]:
        """What no test has touched, as it stands in the configuration."""
        return [item for item, is_touched in self.items.items() if not is_touched]

    def see(self, observed: Iterable[Observed], runs: Iterable[StageRun], arrivals: Iterable[Arrival]) -> None:
        """Note what one case has touched."""
        for seen in observed:
            owner = self._pipeline_of(seen.exchange)
            if owner is not None:
                self._touch("pipeline", owner)
                self._at_guards(owner, seen.exchange)
        decisions = {(each.stage, each.cause) for seen in observed for each in seen.link.decisions}
        for run in runs:
            self._touch("stage", run.component)
            owner = next((path for path in self._chains if run.component.startswith(f"{path}.")), None)
            if owner is not None and owner.startswith("sinks."):
                self._at_guards(owner, run.exchange)
            self._at_rules(run)
        for arrival in arrivals:
            self._touch("sink", f"sinks.{arrival.sink}")
        for component, lists in self._rules.items():
            for _matches, label, item in (row for rows in lists for row in rows):
                if any(stage == component and label in cause for stage, cause in decisions):
                    self.items[item] = True

    def _add(self, kind: str, id_: str, place: str, missing: str) -> Item:
        item = self._plain[kind, id_] = Item(kind, id_, place, missing)
        self.items[item] = False
        return item

    def _add_stage(self, owner: str, stage: StageSpec) -> None:
        id_ = f"{owner}.{stage.id}"
        self._add("stage", id_, stage.place, "never passed")
        if stage.when is not None:
            passed = self._add("guard", id_, stage.place, "its `when` never matched")
            held = self._add("guard", id_, stage.place, "its `when` always matched")
            self._guards[id_] = (stage.when.compile(), passed, held)
            self._chains.setdefault(owner, []).append(id_)
        for name, rules in rule_lists(stage):
            rows = [
                (matches, label, self._add("rule", f"{id_}: {name} {label}", stage.place, "never applied"))
                for matches, label in rules
            ]
            self._rules.setdefault(id_, []).append(rows)

    def _touch(self, kind: str, id_: str) -> None:
        item = self._plain.get((kind, id_))
        if item is not None:
            self.items[item] = True

    def _pipeline_of(self, exchange: Exchange) -> str | None:
        source = self.document.sources.get(exchange.source)
        return None if source is None else f"pipelines.{source.pipeline}"

    def _at_guards(self, owner: str, exchange: Exchange) -> None:
        exchange = replace(exchange, caller=exchange.link.caller)  # what auth stages found out on the way
        for id_ in self._chains.get(owner, ()):
            matches, passed, held = self._guards[id_]
            self.items[passed if matches(exchange) else held] = True

    def _at_rules(self, run: StageRun) -> None:
        for rows in self._rules.get(run.component, ()):
            for matches, _label, item in rows:
                if matches is not None and matches(run.exchange):
                    self.items[item] = True
                    break


def rule_lists(stage: Spec) -> Iterator[tuple[str, list[tuple[Matches | None, str]]]]:
    """
    The lists of rules among the options of a stage: name of the option, and for each rule whether an exchange is one
    of its (None if only the stage knows), and what its stage calls it.
    """
    for attribute in attrs.fields(type(stage.config)) if attrs.has(type(stage.config)) else ():
        value = getattr(stage.config, attribute.name)
        if not isinstance(value, tuple) or not value or not all(attrs.has(type(rule)) for rule in value):
            continue
        rows = [(_matcher(rule), getattr(rule, "id", None) or f"{attribute.name}[{i}]") for i, rule in enumerate(value)]
        if any(matches is not None or _is_policy(rule) for (matches, _), rule in zip(rows, value, strict=True)):
            yield attribute.name, rows


def _matcher(rule: Any) -> Matches | None:
    """Whether a rule is for an exchange, if it says so by `when`, or by methods and names."""
    when = getattr(rule, "when", None)
    if isinstance(when, When):
        return when.compile()
    if isinstance(getattr(rule, "method", None), tuple) and not _is_policy(rule):
        return When(method=tuple(rule.method), name=tuple(getattr(rule, "name", None) or ())).compile()
    return None


def _is_policy(rule: Any) -> bool:
    """It allows or denies, and its stage says in its decisions that it did."""
    return hasattr(rule, "allow") and hasattr(rule, "deny")


def as_json(coverage: Coverage) -> Mapping[str, Any]:
    """For programs."""
    return {
        "items": len(coverage.items),
        "touched": coverage.touched,
        "missing": [attrs.asdict(item) for item in coverage.missing()],
    }
