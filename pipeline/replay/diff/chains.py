"""
Two chains side by side: which stages came, went, moved, are guarded otherwise, or have other options.

Stages are the same if they say the same; else if they have the same id; else if they are of the same kind. What is
switched off is not there.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import final

from attrs import define, field, frozen

from ...config.declarations import flow, options_of, to_data
from ...model.document import StageSpec
from ...model.when import When
from ...protocol.messages import Json
from . import permits
from .change import Area, Change
from .plain import Side, Sides, in_force
from .telling import options
from .wording import EFFECTS, STAGES

Pair = tuple[StageSpec, StageSpec]
_ACCESS = "access"
_ANY = ("*",)


@final
@frozen
class Chain:
    """One chain in both configurations."""

    path: str
    """What it belongs to, as it is called now."""
    old: tuple[StageSpec, ...]
    new: tuple[StageSpec, ...]
    sides: Sides

    def changes(self) -> Iterator[Change]:
        """Everything that is different about it."""
        old = [stage for stage in self.old if stage.enabled]
        new = [stage for stage in self.new if stage.enabled]
        pairs = _Pairs(self.sides, old, new).found()
        kept = {after.id for _, after in pairs}
        for stage in old:
            if not any(before is stage for before, _ in pairs):
                yield self._gone(stage, old)
        for at, stage in enumerate(new):
            if stage.id not in kept:
                yield from self._come(stage, new[at - 1] if at else None)
        yield from self._moved([before.id for before in old], pairs)
        for before, after in pairs:
            yield from self._altered(before, after)

    def _gone(self, stage: StageSpec, old: Sequence[StageSpec]) -> Change:
        area, _, effect = EFFECTS.get(_role(stage), ("options", "", ""))
        off = any(each.id == stage.id and not each.enabled for each in self.new)
        if sum(_role(each) == _role(stage) for each in old) > 1:
            effect = ""  # others of its kind are still there, or have sentences of their own
        text = f"{stage.id} was {'switched off' if off else 'removed'}" + (f": {effect}" if effect else "")
        return Change(self.path, area, text, old=_brief(stage, self.sides.old))

    def _come(self, stage: StageSpec, before: StageSpec | None) -> Iterator[Change]:
        area, effect, _ = EFFECTS.get(_role(stage), ("options", "", ""))
        where = f"after {before.id}" if before is not None else "at the beginning"
        given = _brief(stage, self.sides.new)
        said = "" if not given or stage.cls.name == _ACCESS else f" ({flow(given)[1:-1]})"
        told = f": {effect}" if effect else ""
        guard = "" if _guard(stage.when) is None else f", for {flow(_guard(stage.when))[1:-1]}"
        yield Change(self.path, area, f"{stage.id} was added {where}{guard}{told}{said}", new=given)
        if stage.cls.name == _ACCESS:
            rules = self.sides.new.config(stage.config)["rules"]
            yield from permits.compare(f"{self.path}.{stage.id}", (), rules)

    def _moved(self, before: Sequence[str], pairs: Sequence[Pair]) -> Iterator[Change]:
        """As few stages as explain the new order, and whom each has passed."""
        place = {old: at for at, old in enumerate(before)}
        was = [place[old.id] for old, _ in pairs]
        stay = _rising(was)
        for at, (_, stage) in enumerate(pairs):
            if at in stay:
                continue
            later = [after.id for other, (_, after) in enumerate(pairs) if was[other] < was[at] and other > at]
            earlier = [after.id for other, (_, after) in enumerate(pairs) if was[other] > was[at] and other < at]
            passed = [f"before {_and(later)}"] if later else []
            passed += [f"after {_and(earlier)}"] if earlier else []
            yield Change(self.path, "order", f"{stage.id} runs {' and '.join(passed)} now")

    def _altered(self, old: StageSpec, new: StageSpec) -> Iterator[Change]:
        path = f"{self.path}.{new.id}"
        if old.id != new.id and not (_is_given(old) and _is_given(new)):
            yield Change(path, "naming", f"it was called {old.id}", old=old.id, new=new.id)
        was, now = _guard(old.when), _guard(new.when)
        if _set(was) != _set(now):
            text = f"it is for {_whom(now)} now, and not for {_whom(was)}"
            yield Change(path, _area(new), text, "when", was, now)
        before, after = in_force(old), in_force(new)
        found = options(path, _area(new), self.sides, before, after, STAGES.get(new.cls.name, {}))
        if new.cls.name != _ACCESS:
            yield from found
            return
        yield from permits.compare(path, self.sides.old.config(before)["rules"], self.sides.new.config(after)["rules"])
        yield from (change for change in found if not re.match(r"rules\b", change.option))


@define(eq=False)
class _Pairs:
    """Finds which stage is which."""

    sides: Sides
    old: Sequence[StageSpec]
    new: Sequence[StageSpec]
    _partner: dict[int, StageSpec] = field(factory=dict)
    """By index in `new`."""
    _taken: set[int] = field(factory=set)

    def found(self) -> list[Pair]:
        """The pairs in the order of the new chain."""
        self._match(lambda old, new: old.id == new.id and self._same(old, new))
        self._match(self._same)
        self._match(lambda old, new: old.id == new.id)
        self._match(lambda old, new: True)
        return [(self._partner[at], stage) for at, stage in enumerate(self.new) if at in self._partner]

    def _match(self, fits: Callable[[StageSpec, StageSpec], bool]) -> None:
        for at, new in enumerate(self.new):
            if at in self._partner:
                continue
            for index, old in enumerate(self.old):
                if index not in self._taken and old.cls.name == new.cls.name and fits(old, new):
                    self._partner[at] = old
                    self._taken.add(index)
                    break

    def _same(self, old: StageSpec, new: StageSpec) -> bool:
        same_guard = _set(_guard(old.when)) == _set(_guard(new.when))
        return same_guard and self.sides.same(in_force(old), in_force(new))


def _rising(places: Sequence[int]) -> set[int]:
    """Indices of a longest subsequence that rises; of several, the one that ends lowest."""
    ends: list[int] = []
    last: list[int] = []
    before: list[int | None] = []
    for at, place in enumerate(places):
        length = bisect_left(ends, place)
        before.append(last[length - 1] if length else None)
        ends[length : length + 1] = [place]
        last[length : length + 1] = [at]
    found: set[int] = set()
    step = last[-1] if last else None
    while step is not None:
        found.add(step)
        step = before[step]
    return found


def _role(stage: StageSpec) -> str:
    return stage.cls.role or stage.cls.name


def _area(stage: StageSpec) -> Area:
    return EFFECTS.get(_role(stage), ("options", "", ""))[0]


def _is_given(stage: StageSpec) -> bool:
    """Whether its id is the one that it gets if it says none: then nobody has named it."""
    name = stage.cls.name or stage.cls.__name__
    return re.fullmatch(rf"{re.escape(name)}(_\d+)?", stage.id) is not None


def _guard(when: When | None) -> dict[str, Json] | None:
    """A guard as written, without what is no restriction; None if nothing is left."""
    if when is None:
        return None
    found = {each.name: to_data(value, each.shape) for each in options_of(When) if (value := getattr(when, each.name))}
    for name in ("method", "source"):
        if tuple(found.get(name, ())) == _ANY:
            del found[name]
    return found or None


def _set(guard: dict[str, Json] | None) -> dict[str, list[Json]] | None:
    return None if guard is None else {name: sorted(set(patterns)) for name, patterns in guard.items()}


def _whom(guard: dict[str, Json] | None) -> str:
    return "everything" if guard is None else flow(guard)[1:-1]


def _brief(stage: StageSpec, side: Side) -> dict[str, Json]:
    """Its options that are not at their default, as they would be written."""
    return side.config(stage.config, brief=True)


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
