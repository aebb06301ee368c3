"""What the contract checkers of all kinds share: making a component, running checks, declaration and life cycle."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any, Final, final

import attrs
import trio
from attrs import define, field
from trio.testing import MockClock

from ..model.component import API_VERSION, Component, ComponentKind, Context
from ..model.options import option_info
from ..model.store import Store
from ..runtime.nursery import unwrap_single
from ..stores.memory import MemoryStore
from .cancelling import cancel_everywhere
from .configs import make_config
from .leaks import Leak, leak_check, run_clean
from .musts import ContractViolation
from .purity import watch_io

VIRTUAL_BOUND_S: Final = 365 * 86_400.0
"""What one group of checks may take on the mock clock; reached only by something that never ends."""
REAL_BOUND_S: Final = 30.0


class Clock(Enum):
    """The clock of a check."""

    JUMPING = "jumping"
    """A mock clock that jumps to whatever is due next."""
    STANDING = "standing"
    """A mock clock that the check moves; for what uses threads, which a jumping clock would not wait for."""
    REAL = "real"


@final
@define(eq=False)
class Subject:
    """A component class under examination."""

    cls: type[Component]
    config: Any
    clock: Clock
    stores: Mapping[str, Store]
    _made: dict[str, Store] = field(factory=dict, init=False)

    @property
    def virtual_time(self) -> bool:
        """Whether a sleep takes no time."""
        return self.clock is Clock.JUMPING

    def make(self) -> Any:
        """Construct it, in surroundings that are the same every time."""
        rng = random.Random(0)  # noqa: S311  # determinism is the point
        context = Context(
            id=f"pipelines.main.{self.cls.name or 'stage'}",
            path="pipelines.main.chain[0]",
            random=random.Random(1),  # noqa: S311  # likewise
            new_id=lambda: f"{rng.getrandbits(128):032x}",
            stores=self._store,
        )
        return self.cls(self.config, context)

    def _store(self, name: str) -> Store:
        """The store that was given for a name, or one in memory."""
        if name in self.stores:
            return self.stores[name]
        if name not in self._made:
            self._made[name] = MemoryStore(MemoryStore.Config(), Context(id=name))
        return self._made[name]

    def run(self, check: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """
        Run one group of checks in a Trio run of its own, under the leak oracle.

        Raises:
            ContractViolation: The component left something behind, or never came to an end.
        """
        clock = None
        if self.clock is not Clock.REAL:
            clock = MockClock(autojump_threshold=0 if self.virtual_time else math.inf)
        bound_s = REAL_BOUND_S if self.clock is Clock.REAL else VIRTUAL_BOUND_S

        async def main() -> Any:
            with trio.fail_after(bound_s), unwrap_single():
                return await check(*args)

        try:
            with leak_check():
                return run_clean(main, clock=clock)
        except Leak as leak:
            raise ContractViolation("M-CLEAN", str(leak)) from leak
        except trio.TooSlowError as error:
            raise ContractViolation("M-END", f"{self.cls.__name__} was still busy when it was given up") from error


def examine(
    cls: type[Component], config: Any, kind: ComponentKind, *, clock: Clock, stores: Mapping[str, Store] | None
) -> Subject:
    """
    Check what holds for every kind of component: declaration, constructor, opening and closing.

    Returns:
        The subject, for the checks of its kind.
    """
    check_declaration(cls, kind)
    subject = Subject(cls, make_config(cls, config), clock, stores or {})
    check_frozen(subject.config)
    check_pure(subject)
    subject.run(check_reopens, subject)
    subject.run(check_cancelled_opening, subject)
    return subject


def check_declaration(cls: type[Component], kind: ComponentKind) -> None:
    """M-NAME and M-OPTIONS, as far as the class shows them."""
    if not cls.name:
        raise ContractViolation("M-NAME", f"{cls.__name__} has no name; decorate it with @{kind}(...)")
    if getattr(cls, "kind", None) is not kind:
        raise ContractViolation("M-NAME", f"{cls.__name__} is a {getattr(cls, 'kind', 'nothing')}, not a {kind}")
    if cls.api != API_VERSION:
        raise ContractViolation("M-NAME", f"{cls.__name__} speaks component API {cls.api}, not {API_VERSION}")
    if not (cls.__dict__.get("__doc__") or "").strip():
        raise ContractViolation("M-NAME", f"{cls.__name__} has no docstring")
    options = getattr(cls, "Config", None)
    if not (isinstance(options, type) and attrs.has(options)):
        raise ContractViolation("M-OPTIONS", f"{cls.__name__}.Config is {options!r}")
    for attribute in attrs.fields(options):
        _check_option(cls.__name__, attribute)


def _check_option(owner: str, attribute: attrs.Attribute[Any]) -> None:
    name = f"{owner}.Config.{attribute.name}"
    try:
        info = option_info(attribute)
    except TypeError as error:
        raise ContractViolation("M-OPTIONS", f"{name} is not an option()") from error
    if not info.doc.strip():
        raise ContractViolation("M-OPTIONS", f"{name} has an empty doc")
    default = attribute.default
    shows = default is not attrs.NOTHING and default is not None and default != () and not _is_factory(default)
    if info.example is None and not shows:
        raise ContractViolation("M-OPTIONS", f"{name} has no example, and its default shows none")


def _is_factory(default: Any) -> bool:
    return type(default).__name__ == "Factory"


def check_frozen(config: Any) -> None:
    """M-OPTIONS: an instance must not let itself be changed."""
    for attribute in attrs.fields(type(config))[:1]:
        try:
            setattr(copy.copy(config), attribute.name, None)
        except attrs.exceptions.FrozenInstanceError:
            continue
        raise ContractViolation("M-OPTIONS", f"{type(config).__qualname__} is not frozen; use attrs.frozen")


def check_pure(subject: Subject) -> None:
    """M-PURE, outside any event loop. Twice, for what is imported the first time is no I/O of the constructor's."""
    name = subject.cls.__name__
    try:
        with leak_check():
            subject.make()
            with watch_io() as seen:
                subject.make()
    except Leak as leak:
        raise ContractViolation("M-PURE", f"{name}: {leak}") from leak
    except Exception as error:  # whatever it is, a constructor must not raise it
        raise ContractViolation("M-PURE", f"{name} raised {type(error).__name__}: {error}") from error
    if seen:
        raise ContractViolation("M-PURE", f"{name} did I/O: {'; '.join(seen[:3])}")


async def check_reopens(subject: Subject) -> None:
    """M-REOPEN and M-CLEAN."""
    component = subject.make()
    for attempt in ("the first time", "the second time"):
        with leak_check():
            try:
                async with component.open():
                    await trio.lowlevel.checkpoint()
            except Exception as error:  # whatever it is, opening must not raise it
                raise ContractViolation("M-REOPEN", f"{attempt}: {type(error).__name__}: {error}") from error


async def check_cancelled_opening(subject: Subject) -> None:
    """M-CANCEL, for opening and closing."""
    component = subject.make()

    async def open_and_close() -> None:
        async with component.open():
            await trio.lowlevel.checkpoint()

    await cancelled_anywhere(open_and_close)


async def cancelled_anywhere(make: Callable[[], Any]) -> None:
    """
    Run `cancel_everywhere` and name the rule if something breaks.

    Raises:
        ContractViolation: Of M-CANCEL, with the place of the cancellation.
    """
    try:
        await cancel_everywhere(make)
    except Exception as error:  # whatever breaks when it is cancelled
        place = getattr(error, "__notes__", ["not cancelled at all"])[0]
        raise ContractViolation("M-CANCEL", f"{place}: {type(error).__name__}: {error}") from error
