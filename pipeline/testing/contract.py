"""
Contract checkers: hand one a component class, and it asserts every rule that the core relies on.

They are plain functions that bring their own event loops, because some rules are about what must work without one. A
failure is a `ContractViolation` that names the rule (`M-CALL-ONCE`) and what was found; `MUSTS` has them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import trio

from ..model.component import ComponentKind, Middleware, Sink, Source
from ..model.session import ANONYMOUS, Caller, Client
from ..model.store import Store
from .contract_endpoints import Drive, check_beginning, check_end
from .contract_exchanges import Traffic
from .contract_middleware import check_stage
from .contract_store import check_keeping
from .contract_subject import Clock, examine
from .contract_traffic import SAMPLES, Message, Sender
from .exchanges import MODERN_CLIENT


def check_middleware(
    cls: type[Middleware],
    config: Any = None,
    *,
    samples: Sequence[Message] = SAMPLES,
    client: Client = MODERN_CLIENT,
    caller: Caller = ANONYMOUS,
    stores: Mapping[str, Store] | None = None,
) -> None:
    """
    Assert that a stage keeps the contract of middleware, on the mock clock.

    Args:
        cls: The class.
        config: Its options: an instance of its `Config`, a mapping written as in YAML, or None for the defaults. With
            bounds small enough to be reached (`max_in_flight: 1`) more of the contract is seen.
        samples: Methods and params of requests that the stage has no reason to act on.
        client: Who sends them; give a stage that authenticates the headers it wants.
        caller: Who that is, for stages that stand behind one that authenticates.
        stores: Stores by name; a name that is not there gets one in memory.

    Raises:
        ContractViolation: A rule is broken.
        RuntimeError: Called inside `trio.run`.
    """
    _not_inside()
    subject = examine(cls, config, ComponentKind.MIDDLEWARE, clock=Clock.JUMPING, stores=stores)
    check_stage(Traffic(subject, samples, Sender(client, caller)))


def check_sink(
    cls: type[Sink],
    config: Any = None,
    *,
    samples: Sequence[Message] = SAMPLES,
    client: Client = MODERN_CLIENT,
    caller: Caller = ANONYMOUS,
    stores: Mapping[str, Store] | None = None,
    virtual_time: bool = True,
) -> None:
    """
    Assert that a sink keeps the contract of sinks. Arguments as for `check_middleware`.

    Args:
        cls: The class.
        config: Its options.
        samples: What it is sent; errors as replies are fine.
        client: Who sends them.
        caller: Who that is.
        stores: Stores by name.
        virtual_time: False for a sink with real sockets or processes: those do not keep the mock clock's time.

    Raises:
        ContractViolation: A rule is broken.
        RuntimeError: Called inside `trio.run`.
    """
    _not_inside()
    clock = Clock.JUMPING if virtual_time else Clock.REAL
    subject = examine(cls, config, ComponentKind.SINK, clock=clock, stores=stores)
    check_end(Traffic(subject, samples, Sender(client, caller)))


def check_source(
    cls: type[Source],
    config: Any = None,
    *,
    drive: Drive | None = None,
    stores: Mapping[str, Store] | None = None,
    virtual_time: bool = True,
) -> None:
    """
    Assert that a source keeps the contract of sources.

    Args:
        cls: The class.
        config: Its options; bind real sockets to port 0 of loopback.
        drive: Plays a client of the source it is given and returns when it was answered. Without it nothing is sent,
            and M-TICKET is not seen.
        stores: Stores by name.
        virtual_time: False for a source with real sockets or pipes.

    Raises:
        ContractViolation: A rule is broken.
        RuntimeError: Called inside `trio.run`.
    """
    _not_inside()
    clock = Clock.JUMPING if virtual_time else Clock.REAL
    subject = examine(cls, config, ComponentKind.SOURCE, clock=clock, stores=stores)
    check_beginning(subject, drive)


def check_store(cls: type[Store], config: Any = None) -> None:
    """
    Assert that a store keeps the contract of stores, on a mock clock that only moves when told.

    Args:
        cls: The class.
        config: Its options. The store is emptied: give it a path of its own. With a `max_entries` from 8 to 1000
            its bound is tried too.

    Raises:
        ContractViolation: A rule is broken.
        RuntimeError: Called inside `trio.run`.
    """
    _not_inside()
    check_keeping(examine(cls, config, ComponentKind.STORE, clock=Clock.STANDING, stores=None))


def _not_inside() -> None:
    if trio.lowlevel.in_trio_run():
        raise RuntimeError("contract checkers bring their own event loop; call them from a plain `def test_...()`")
