"""
The smallest tape and configuration that still show something: what is left is what it takes.

Left out are exchanges, stages, single events, options and members of messages, in turns, until nothing more can go.
What is tried next depends on nothing but the answers so far, so the same tape shrinks to the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, final

import msgspec
from attrs import define, evolve, field, frozen

from ..config.declarations import options_of
from ..model.document import Document
from ..protocol.mcp import method_of
from .assembly import exchange_of
from .config_parts import Part, config_text, owners_of, parts_of, reachable, with_chains
from .entries import (
    Begun,
    Called,
    CallEnded,
    Configured,
    Ended,
    Entry,
    Header,
    SessionAnswered,
    SessionAsked,
    SessionClosed,
    SessionOpened,
    SessionTold,
    Trailer,
)
from .reducing import least

Fails = Callable[[Sequence[Entry], Document], bool]
"""Whether a tape still shows it under a configuration."""

MAX_ROUNDS: Final = 8
"""Turns; each makes what it leaves smaller, and the second one finds little."""
MAX_DEPTH: Final = 6
"""Levels of a message's members that are tried."""
_KEPT: Final = (Header, Configured, Trailer, Begun, Called, CallEnded)
"""What is not left out by itself: an exchange goes as a whole, and a call that is never answered is another mistake."""
_OF_SESSION: Final = (SessionOpened, SessionTold, SessionAsked, SessionAnswered, SessionClosed)


@final
@frozen
class Shrunk:
    """What is left."""

    entries: tuple[Entry, ...]
    document: Document
    runs: int
    """How often it was tried."""
    is_least: bool
    """False if there were no more runs: it might get smaller yet."""

    @property
    def messages(self) -> int:
        """Messages of clients that are left."""
        return sum(isinstance(entry, Begun) for entry in self.entries)


def shrink(entries: Sequence[Entry], document: Document, fails: Fails, *, max_runs: int = 1000) -> Shrunk:
    """
    Make a tape and a configuration as small as they can be.

    Args:
        entries: Those of a tape, in order.
        document: Its configuration.
        fails: Whether it is still there. Deterministic; asked `max_runs` times at most.
        max_runs: More gets it smaller, perhaps.

    Raises:
        ValueError: It is not there in the first place.
    """
    shrinker = _Shrinker(list(entries), document, fails, max_runs)
    if not shrinker.holds(shrinker.entries, document):
        raise ValueError("the tape does not show it under this configuration, so there is nothing to shrink")
    for _ in range(MAX_ROUNDS):
        before = shrinker.size()
        shrinker.round()
        if shrinker.size() == before or shrinker.is_spent:
            break
    return Shrunk(tuple(shrinker.entries), shrinker.document, shrinker.runs, not shrinker.is_spent)


@define(eq=False)
class _Shrinker:
    entries: list[Entry]
    document: Document
    fails: Fails
    max_runs: int
    runs: int = 0
    is_spent: bool = False
    _known: dict[bytes, bool] = field(factory=dict)
    """Answers by digest of what was tried: different ways lead to the same."""

    def holds(self, entries: Sequence[Entry], document: Document) -> bool:
        """Whether it is still there; no, when there are no more runs."""
        key = _digest(entries, document)
        known = self._known.get(key)
        if known is not None:
            return known
        if self.runs >= self.max_runs:
            self.is_spent = True
            return False
        self.runs += 1
        found = self._known[key] = self.fails(entries, document)
        return found

    def size(self) -> tuple[int, int, int]:
        """What must get less in every round."""
        text = sum(len(msgspec.json.encode(entry)) for entry in self.entries)
        return len(self.entries), text, len(config_text(self.document))

    def round(self) -> None:
        """Try everything once."""
        self._groups(lambda entry: ("exchange", exchange_of(entry)) if exchange_of(entry) else None)
        self._groups(lambda entry: ("session", entry.session) if isinstance(entry, _OF_SESSION) else None)
        self._stages()
        self._groups(lambda entry: None if isinstance(entry, _KEPT) else ("entry", entry.n, id(entry)))
        for part in list(parts_of(self.document)):
            self._options(part)
        self._fields()

    def _groups(self, group: Callable[[Entry], Hashable | None]) -> None:
        """Leave out entries that belong together, together."""
        keys = list(dict.fromkeys(key for entry in self.entries if (key := group(entry)) is not None))

        def keeping(kept: list[Hashable]) -> list[Entry]:
            wanted = {None, *kept}
            return [entry for entry in self.entries if group(entry) in wanted]

        self.entries = keeping(least(keys, lambda kept: self.holds(keeping(kept), self.document)))

    def _stages(self) -> None:
        document = self.document
        keys = [(kind, spec.id, stage.id) for kind, spec in owners_of(document) for stage in spec.chain]

        def keeping(kept: list[tuple[str, str, str]]) -> Document:
            wanted = set(kept)
            return with_chains(document, lambda *key: key in wanted)

        self.document = keeping(least(keys, lambda kept: self.holds(self.entries, keeping(kept))))
        smaller = reachable(self.document)
        if smaller != self.document and self.holds(self.entries, smaller):
            self.document = smaller

    def _try(self, document: Document) -> bool:
        if document == self.document or not self.holds(self.entries, document):
            return False
        self.document = document
        return True

    def _options(self, part: Part) -> None:
        """Put options of a component to their defaults, all at once or one by one, or take items out of them."""
        config = part.config(self.document)
        cls: type = type(config)
        defaults = {each.name: each.default for each in options_of(cls) if not each.required}
        given = [name for name, default in defaults.items() if getattr(config, name) != default]

        def keeping(kept: list[str]) -> Document | None:
            return self._put(part, config, {name: defaults[name] for name in given if name not in kept})

        def holds(kept: list[str]) -> bool:
            document = keeping(kept)
            return document is not None and self.holds(self.entries, document)

        kept = least(given, holds) if given else []
        smaller = keeping(kept)
        if smaller is not None:
            self.document = smaller
        for option in options_of(cls):
            self._items(part, option.name)

    def _items(self, part: Part, name: str) -> None:
        config = part.config(self.document)
        value = getattr(config, name)
        if isinstance(value, tuple | list) and len(value) > 1:
            items: list[Any] = list(range(len(value)))
        elif isinstance(value, Mapping) and len(value) > 1:
            items = list(value)
        else:
            return

        def keeping(kept: list[Any]) -> Document | None:
            some = {key: value[key] for key in kept} if isinstance(value, Mapping) else tuple(value[at] for at in kept)
            return self._put(part, config, {name: some})

        def holds(kept: list[Any]) -> bool:
            document = keeping(kept)
            return document is not None and self.holds(self.entries, document)

        smaller = keeping(least(items, holds))
        if smaller is not None:
            self.document = smaller

    def _put(self, part: Part, config: Any, changes: Mapping[str, Any]) -> Document | None:
        """The document with other options; None if these cannot be together."""
        try:
            return part.put(self.document, evolve(config, **changes))
        except (ValueError, TypeError):
            return None

    def _fields(self) -> None:
        """Take members out of what was sent and answered."""
        for at, entry in enumerate(self.entries):
            for path in _messages(entry):
                self._members(at, path, 0)

    def _members(self, at: int, path: tuple[str, ...], depth: int) -> None:
        value = _get(self.entries[at], path)
        if not isinstance(value, dict) or not value or depth > MAX_DEPTH:
            return
        needed = [] if depth else [key for key in value if key == _target(self.entries[at], path)]

        def keeping(kept: list[str]) -> list[Entry]:
            some = {key: value[key] for key in value if key in kept or key in needed}
            return [*self.entries[:at], _put_at(self.entries[at], path, some), *self.entries[at + 1 :]]

        kept = least([key for key in value if key not in needed], lambda kept: self.holds(keeping(kept), self.document))
        self.entries = keeping(kept)
        for key in (*needed, *kept):
            self._members(at, (*path, key), depth + 1)


def _messages(entry: Entry) -> Iterator[tuple[str, ...]]:
    """Where an entry has members that are its sender's."""
    if isinstance(entry, Begun | Called) and entry.message is not None:
        yield "message", "params"
    if isinstance(entry, Begun) and entry.client is not None:
        yield from (("client", name) for name in ("headers", "info", "capabilities"))
    if isinstance(entry, CallEnded | Ended) and entry.reply is not None and entry.reply.result is not None:
        yield "reply", "result"


def _target(entry: Entry, path: tuple[str, ...]) -> str | None:
    """The param that says what a request is about; without it, a request is another mistake."""
    if path != ("message", "params") or not isinstance(entry, Begun | Called) or entry.message is None:
        return None
    row = method_of(entry.message.method)
    return None if row is None else row.target


def _get(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value[key] if isinstance(value, dict) else getattr(value, key)
    return value


def _put_at(value: Any, path: tuple[str, ...], new: Any) -> Any:
    """A copy of an entry with something else at one place."""
    if not path:
        return new
    key, *rest = path
    inner = _put_at(value[key] if isinstance(value, dict) else getattr(value, key), tuple(rest), new)
    return {**value, key: inner} if isinstance(value, dict) else msgspec.structs.replace(value, **{key: inner})


def _digest(entries: Sequence[Entry], document: Document) -> bytes:
    found = sha256(config_text(document).encode())
    for entry in entries:
        found.update(msgspec.json.encode(entry))
    return found.digest()
