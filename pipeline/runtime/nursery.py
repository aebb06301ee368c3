"""Two helpers for structured concurrency that components need and Trio does not have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager

import trio


@contextmanager
def unwrap_single() -> Iterator[None]:
    """Let an exception group with a single member out as that member: users never see a group of one."""
    try:
        yield
    except BaseExceptionGroup as group:
        inner: BaseException = group
        while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
            inner = inner.exceptions[0]
        if inner is group:
            raise
        raise inner from inner.__cause__


async def _host(*, task_status: trio.TaskStatus[tuple[trio.CancelScope, trio.Nursery]]) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as children:
            # a start that is cancelled ignores `started`, and would wait for a shielded task without end
            await trio.lowlevel.checkpoint_if_cancelled()
            scope.shield = True
            task_status.started((scope, children))
            await trio.sleep_forever()


@asynccontextmanager
async def open_background_nursery() -> AsyncIterator[trio.Nursery]:
    """
    A nursery for tasks that serve its body: readers, writers, reapers.

    They are cancelled when the body has left, and not before: not even a cancel from outside reaches them while the
    body still unwinds, so an exchange that is being cancelled can still tell its upstream. A child that crashes
    cancels the body at once, and its exception comes out.
    """
    with unwrap_single():
        async with trio.open_nursery() as outer:
            scope, children = await outer.start(_host)
            try:
                yield children
            finally:
                scope.cancel()


def farewell(seconds: float) -> AbstractContextManager[trio.CancelScope]:
    """
    A bounded shield for the last word to an upstream: the only place where shielding is allowed.

    Args:
        seconds: How long the word may take at most.
    """
    return trio.move_on_after(seconds, shield=True)
