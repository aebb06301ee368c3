"""`mask`: keep some arguments of tool calls from the servers behind the gateway."""

from __future__ import annotations

from typing import Any, final

from attrs import frozen

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.options import option
from sluiceway.pipeline.model.when import matcher
from sluiceway.pipeline.protocol.errors import Forbidden
from sluiceway.pipeline.protocol.messages import Reply, Request


@final
@middleware("mask")
class Mask(Middleware):
    """
    Replace the values of some arguments before they leave the gateway, or refuse the call.

    Only `tools/call` has arguments; every other method passes untouched.

    Raises:
        Forbidden: An argument is one of those to mask, and `action` is `refuse`.
    """

    @frozen
    class Config:
        """Options of `mask`."""

        arguments: tuple[str, ...] = option(doc="Names of arguments, as globs.", example=["*iban*", "password"])
        replacement: str = option("***", doc="What the server sees instead of the value.")
        refuse: bool = option(False, doc="Whether to refuse the call instead of masking the argument.")

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._is_masked = matcher(config.arguments)

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Show the inner chain a request without the values."""
        request = exchange.request
        if request.method != "tools/call" or not isinstance(request, Request):
            return await call_next(exchange)
        arguments = request.params.get("arguments")
        found = [name for name in arguments if self._is_masked(name)] if isinstance(arguments, dict) else []
        if not found:
            return await call_next(exchange)
        if self.config.refuse:
            raise Forbidden(f"argument {found[0]!r} must not leave this gateway; leave it out")
        masked: dict[str, Any] = {**arguments, **dict.fromkeys(found, self.config.replacement)}
        return await call_next(exchange.with_request(request.with_params({**request.params, "arguments": masked})))
