"""What a stage says about its place in a chain: rules about order, and advice about options at that place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, final, runtime_checkable

from attrs import frozen

Level = Literal["error", "warning", "info"]


def _always(_config: Any) -> bool:
    """Whatever the options are."""
    return True


@frozen
class Order:
    """A rule about a stage's place in the chain, which `check` reports and `explain` prints."""

    relation: Literal["before", "after", "first"]
    """This stage must stand before, after, or first; `first` takes no role."""
    role: str
    """The role the rule is about (see `Middleware.role`); empty for `first`."""
    level: Level
    reason: str
    """What goes wrong otherwise, in one sentence."""
    applies: Callable[[Any], bool] = _always
    """Whether the rule binds a stage with these options: an instance of its `Config`."""


@final
@frozen
class Advice:
    """What `check` says about the options of a stage at the place where it stands."""

    rule: str
    """Stable name of the rule: `retry/not-repeatable`."""
    level: Level
    message: str
    """What is wrong; the stage's id is put in front of it."""
    reason: str
    """What goes wrong, in one sentence."""
    fix: str
    """What to do about it."""


@runtime_checkable
class WantsCertificates(Protocol):
    """A stage class that can only tell who calls from the certificate that a source's own TLS layer has verified."""

    def wants_certificates(self, config: Any) -> bool:
        """Whether that is so with these options; a class method, asked by `check`."""
        ...
