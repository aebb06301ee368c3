"""A user's function, sync or async, with what it takes from the client and what the server gives it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, final

import trio
from attrs import frozen

from .schema import Parameters

if TYPE_CHECKING:
    from .context import Context


@final
@frozen
class Handler:
    """
    A function ready to be called.

    An async one runs in the exchange's own task, so that cancelling the exchange cancels it exactly there. A sync one
    runs there too, and must not block; with `thread` it runs in a worker thread, where it cannot be interrupted: a
    cancelled exchange waits for it.
    """

    function: Callable[..., Any]
    parameters: Parameters
    thread: bool = False

    async def call(self, values: Mapping[str, Any], context: Context) -> Any:
        """Call the function with converted values, and with the injected ones. Not always a checkpoint."""
        injected = self.parameters.injected
        if injected:
            values = {**values, **await context.providers.fill(injected, context)}
        return await run_function(partial(self.function, **values), thread=self.thread)


async def run_function(function: Callable[[], Any], *, thread: bool = False) -> Any:
    """Call a function of either colour and give what it finally returns."""
    result = await trio.to_thread.run_sync(function) if thread else function()
    return await result if inspect.isawaitable(result) else result
