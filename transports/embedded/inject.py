"""
Dependencies by type: what the server gives to handlers, made once or once per request.

A handler says what it needs with a parameter annotated with a provided type; the parameter is not part of the tool's
schema. A factory may be a function, an async function or an async context manager function, and may itself take
provided types.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any, Literal, final

from attrs import define, field, frozen

if TYPE_CHECKING:
    from .context import Context

Scope = Literal["singleton", "request"]
"""`singleton`: made when the server opens, closed when it closes. `request`: made for one request, closed after it."""


@final
@frozen
class Provider:
    """How one type comes about."""

    provided: type[Any]
    factory: Callable[..., Any] | None
    """None when there is an instance."""
    instance: Any
    scope: Scope
    needs: Mapping[str, type[Any]]
    """The factory's own parameters."""


@define(eq=False)
class Providers:
    """The registered providers of a server."""

    _context: type[Any]
    """The type of the request's own context, which is always provided."""
    _by_type: dict[type[Any], Provider] = field(factory=dict, init=False)

    def add(self, provided: type[Any], value: Any, factory: Callable[..., Any] | None, scope: Scope) -> None:
        """
        Register a provider.

        Raises:
            ValueError: The type is provided already.
            TypeError: The factory takes something that is not provided, or a singleton takes what lives shorter.
        """
        if provided in self._by_type or provided is self._context:
            raise ValueError(f"{provided.__qualname__} is provided already")
        needs = {} if factory is None else self._needs(factory)
        for name, needed in needs.items():
            if not self.knows(needed):
                raise TypeError(f"the factory of {provided.__qualname__} takes {name!r}, whose type nobody provides")
            if scope == "singleton" and self.lives_for_request(needed):
                raise TypeError(
                    f"{provided.__qualname__} is a singleton and cannot hold {name!r}, which lives for one request; "
                    "give it scope='request'"
                )
        self._by_type[provided] = Provider(provided, factory, value, scope, needs)

    def _needs(self, factory: Callable[..., Any]) -> dict[str, type[Any]]:
        """A factory's parameters, except those with a default that nobody provides."""
        return {
            parameter.name: parameter.annotation
            for parameter in inspect.signature(factory, eval_str=True).parameters.values()
            if parameter.default is parameter.empty or self.knows(parameter.annotation)
        }

    def knows(self, wanted: Any) -> bool:
        """Whether a type is provided."""
        return wanted is self._context or (isinstance(wanted, type) and wanted in self._by_type)

    def lives_for_request(self, wanted: type[Any]) -> bool:
        """Whether a provided type is made anew for each request."""
        return wanted is self._context or self._by_type[wanted].scope == "request"

    async def open_singletons(self, stack: AsyncExitStack) -> dict[type[Any], Any]:
        """Make every singleton, in order of registration; `stack` closes them, latest first."""
        made: dict[type[Any], Any] = {}
        for provider in self._by_type.values():
            if provider.factory is None:
                made[provider.provided] = provider.instance
            elif provider.scope == "singleton":
                needs = {name: made[wanted] for name, wanted in provider.needs.items()}
                made[provider.provided] = await _make(provider.factory, needs, stack)
        return made

    async def fill(self, injected: Mapping[str, type[Any]], context: Context) -> dict[str, Any]:
        """Values for the injected parameters of one call; within a request each type is made once."""
        return {name: await self._value(wanted, context) for name, wanted in injected.items()}

    async def _value(self, wanted: type[Any], context: Context) -> Any:
        if wanted is self._context:
            return context
        for known in (context.singletons, context.made):
            if wanted in known:
                return known[wanted]
        provider = self._by_type[wanted]
        assert provider.factory is not None
        needs = await self.fill(provider.needs, context)
        context.made[wanted] = made = await _make(provider.factory, needs, context.stack)
        return made


async def _make(factory: Callable[..., Any], needs: Mapping[str, Any], stack: AsyncExitStack) -> Any:
    made = factory(**needs)
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, AbstractAsyncContextManager):
        made = await stack.enter_async_context(made)
    return made
