"""What a case finds wrong, and where in the case it is said otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias, final

from attrs import frozen

from ...model.patterns import ABSENT, Mismatch
from ...protocol.messages import Json

Path: TypeAlias = tuple[str | int, ...]
"""Keys and indices from the root of a case."""


@final
@frozen
class Finding:
    """One thing that is not as expected."""

    path: Path
    """Where in the case the expectation stands."""
    message: str
    """What is wrong, in a sentence."""
    where: str = ""
    """The place in the value, such as `error.data.reason`; empty if there is none."""
    expected: Json = ABSENT
    actual: Json = ABSENT
    hint: str = ""
    """What may be meant, or may help."""
    subject: object = None
    """The exchange's link, if it is about one: for the way it took."""


def findings_of(
    found: Iterable[Mismatch], path: Path, message: str, prefix: str = "", subject: object = None
) -> list[Finding]:
    """Mismatches as findings."""
    return [
        Finding(
            (*path, *each.pattern_path), message, _dotted(prefix, each.path), each.expected, each.actual,
            subject=subject,
        )
        for each in found
    ]  # fmt: skip


def _dotted(prefix: str, path: Path) -> str:
    return ".".join([prefix] * bool(prefix) + [str(step) for step in path])
