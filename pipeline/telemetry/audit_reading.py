"""Reading an audit trail, wherever it is: its lines in order, whether they are as they were written, and a choice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, final

import msgspec
from attrs import frozen

from ..model.options import parse_duration
from ..model.when import matcher
from ..protocol.messages import Json
from .audit_chain import Verdict, verify
from .audit_file import files_of
from .audit_journal import stamp

MAX_ROWS: Final = 1000
"""Entries that one query gives at most."""
DEFAULT_ROWS: Final = 100
TEXT_FILTERS: Final = ("principal", "operation", "resource", "outcome", "tenant", "event")
_decode = msgspec.json.Decoder().decode


def checkpoints_of(path: Path) -> Path:
    """Where the checkpoints of a trail are, unless the configuration says otherwise."""
    return path.with_name(f"{path.name}.checkpoints")


def lines_of(path: Path) -> Iterator[bytes]:
    """
    The lines of a trail, oldest first: of its database, or of all its files. Blocks.

    Raises:
        OSError: There is none, or it cannot be read.
    """
    if path.exists():
        from . import audit_sqlite  # a database driver, for those who have a database

        if audit_sqlite.is_sqlite(path):
            yield from audit_sqlite.lines_of(path)
            return
    files = files_of(path)
    if not files:
        raise FileNotFoundError(2, "there is no audit trail", str(path))
    for file in files:
        with file.open("rb") as lines:
            yield from lines


def verify_trail(path: Path, checkpoints: Path | None = None, key: bytes | None = None) -> Verdict:
    """
    Check a trail against its chain and its checkpoints; see `audit_chain.verify`. Blocks.

    Raises:
        OSError: It cannot be read.
    """
    where = checkpoints_of(path) if checkpoints is None else checkpoints
    if not where.exists():
        return verify(lines_of(path), (), key)
    # Checkpoints first: what is written meanwhile is in the trail, and no checkpoint names what we have not seen.
    named = where.read_bytes().splitlines(keepends=True)
    return verify(lines_of(path), named, key)


@final
@frozen
class Query:
    """Which entries: all that fit every filter given, the latest of them."""

    texts: Mapping[str, str]
    """Globs by field, of `TEXT_FILTERS`."""
    since: str = ""
    """The earliest date, as in entries; empty for any."""
    until: str = ""
    """The date before which they are; empty for any."""
    limit: int = DEFAULT_ROWS

    def run(self, lines: Iterator[bytes]) -> list[dict[str, Json]]:
        """The entries, oldest first. Lines that are no entries are left out: `verify` is about them."""
        fits = self.compile()
        found: deque[dict[str, Json]] = deque(maxlen=self.limit)
        for line in lines:
            entry = entry_of(line)
            if entry is not None and fits(entry):
                found.append(entry)
        return list(found)

    def compile(self) -> Callable[[Mapping[str, Any]], bool]:
        """A predicate over entries: whether one fits every filter."""
        filters = {name: matcher((glob,)) for name, glob in self.texts.items()}
        return lambda entry: self._fits(entry, filters)

    def _fits(self, entry: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
        at = str(entry.get("at", ""))
        if at < self.since or (self.until and at >= self.until):
            return False
        return all(name in entry and fits(str(entry[name])) for name, fits in filters.items())


def entry_of(line: bytes) -> dict[str, Any] | None:
    """The entry of a line of a trail, its number and hashes included; None of one that is none."""
    try:
        entry: Any = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return entry if isinstance(entry, dict) else None


def parse_query(given: Mapping[str, Json], now: float) -> Query:
    """
    A query from what somebody wrote: any of `TEXT_FILTERS`, `since`, `until`, `limit`.

    Args:
        given: Texts; `limit` may be a number.
        now: Seconds since the epoch, for `since: 1h`.

    Raises:
        ValueError: With a sentence that says what to write instead.
    """
    unknown = given.keys() - {*TEXT_FILTERS, "since", "until", "limit"}
    if unknown:
        raise ValueError(f"no filter {min(unknown)!r}; there are {', '.join(TEXT_FILTERS)}, since, until, limit")
    texts: dict[str, str] = {}
    for name in TEXT_FILTERS:
        value = given.get(name)
        if value is not None:
            if not isinstance(value, str) or not value:
                raise ValueError(f"{name} is a text, with * for anything")
            texts[name] = value
    limit = given.get("limit", DEFAULT_ROWS)
    if isinstance(limit, str) and limit.isascii() and limit.isdigit():
        limit = int(limit)
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_ROWS:
        raise ValueError(f"limit is a number from 1 to {MAX_ROWS}")
    return Query(texts, _date("since", given.get("since"), now), _date("until", given.get("until"), now), limit)


def _date(name: str, given: Json, now: float) -> str:
    if given is None:
        return ""
    hint = f"{name} is a date such as 2027-01-31T00:00:00Z, or a time before now such as 1h"
    if not isinstance(given, str):
        raise ValueError(hint)
    try:
        at = datetime.fromtimestamp(now, UTC) - timedelta(seconds=parse_duration(given))
    except ValueError:
        try:
            at = datetime.fromisoformat(given)
        except ValueError as error:
            raise ValueError(f"{hint}; not {given!r}") from error
        if at.tzinfo is None:
            raise ValueError(f"{name} {given} needs a time zone, such as {given}Z") from None
    return stamp(at.timestamp())
