"""Requests that go to one upstream: whose name, uri, reference or task it is, and what it is called there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import GatewayError, UnknownMethod
from sluiceway.pipeline.protocol.mcp import Era, ErrorCode, Kind
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Reply, Result

from ..seals import BadSeal
from .fabric import Fabric
from .handshake import request_of
from .lists import Lists
from .naming import Target, Upstream
from .rules import compile_rules
from .splice import with_param
from .view import View

_NOT_FOUND: Final = frozenset({ErrorCode.RESOURCE_NOT_FOUND, ErrorCode.INVALID_PARAMS, ErrorCode.METHOD_NOT_FOUND})
"""How servers say that a resource is not theirs (2026-07-28, server/resources; -32002 before)."""
_NOUN: Final = {"tools": "tool", "prompts": "prompt"}


@final
class Calls:
    """
    Requests for one upstream.

    Args:
        fabric: The route's.
        lists: Looks names up where they do not say whose they are.
    """

    def __init__(self, fabric: Fabric, lists: Lists) -> None:
        self._fabric = fabric
        self._lists = lists
        self._by_id = {upstream.id: upstream for upstream in fabric.upstreams}
        self._named = compile_rules(fabric.config.rules, "name")
        self._methods = compile_rules(fabric.config.rules, "method")

    async def call(self, view: View, exchange: Exchange) -> Reply:
        """`tools/call`."""
        found = await self._target(view, exchange, "tools", exchange.request.params.get("name"))
        return found if isinstance(found, ErrorReply) else await self._send_as(view, exchange, found, ("name",))

    async def get_prompt(self, view: View, exchange: Exchange) -> Reply:
        """`prompts/get`."""
        found = await self._target(view, exchange, "prompts", exchange.request.params.get("name"))
        return found if isinstance(found, ErrorReply) else await self._send_as(view, exchange, found, ("name",))

    async def complete(self, view: View, exchange: Exchange) -> Reply:
        """`completion/complete`: to whom the prompt or the template belongs."""
        ref = exchange.request.params.get("ref")
        if isinstance(ref, dict) and ref.get("type") == "ref/prompt":
            found = await self._target(view, exchange, "prompts", ref.get("name"))
            return (
                found if isinstance(found, ErrorReply) else await self._send_as(view, exchange, found, ("ref", "name"))
            )
        uri = ref.get("uri") if isinstance(ref, dict) else None
        if not isinstance(uri, str):
            return _refused("ref: must name a prompt, or a resource or template by its uri")
        return await self._ask_owners(view, exchange, uri)

    async def read(self, view: View, exchange: Exchange) -> Reply:
        """`resources/read`, and anything else about a uri that changes nothing."""
        uri = exchange.request.params.get("uri")
        if not isinstance(uri, str):
            return _refused("uri: must be a string")
        return await self._ask_owners(view, exchange, uri)

    async def subscribe(self, view: View, exchange: Exchange) -> Reply:
        """`resources/subscribe`; remembered, to be repeated should the upstream forget."""
        reply = await self.read(view, exchange)
        uri = exchange.request.params.get("uri")
        if isinstance(reply, Result) and isinstance(uri, str):
            for upstream in view.uris.of(uri)[:1]:
                view.promises.uris.setdefault(upstream.id, set()).add(uri)
        return reply

    async def unsubscribe(self, view: View, exchange: Exchange) -> Reply:
        """`resources/unsubscribe`: to where the subscription is; else as any other uri."""
        uri = exchange.request.params.get("uri")
        for upstream_id, uris in view.promises.uris.items():
            if uri in uris:
                uris.discard(uri)
                return await self._fabric.send(view, self._by_id[upstream_id], exchange)
        return await self.read(view, exchange)

    async def task(self, view: View, exchange: Exchange) -> Reply:
        """`tasks/get` and its like: to whoever made the task, which its id says."""
        task = exchange.request.params.get("taskId")
        try:
            owner, own = self._fabric.tasks.open(exchange.caller, task)
        except BadSeal:
            return _refused(f"unknown task: {task!s:.200}")
        if owner not in self._by_id:
            return _refused(f"the task is {owner}'s, which is not in {self._fabric.id} any more")
        return await self._send_as(view, exchange, (self._by_id[owner], own), ("taskId",))

    async def other(self, view: View, exchange: Exchange) -> Reply:
        """
        A method or notification that MCP does not define: by rule, or to the only upstream there is.

        Raises:
            UnknownMethod: Neither applies.
        """
        to = self._methods(exchange.method)
        if to is None and len(self._fabric.upstreams) > 1:
            if exchange.kind is Kind.NOTIFY:
                return Result()
            raise UnknownMethod(f"method not found: {exchange.method}; no rule of {self._fabric.id} names an upstream")
        return await self._fabric.send(view, self._by_id[to] if to is not None else self._fabric.upstreams[0], exchange)

    def owners(self, view: View, uri: str) -> tuple[Upstream, ...]:
        """Whose a uri is as far as is known: by rule, by list, by template; nobody's if nothing is known."""
        to = self._named(uri)
        if to is not None:
            return (self._by_id[to],)
        known = view.uris.of(uri)
        if known:
            return known
        owner = view.templates.owner(uri)
        return () if owner is None else (owner,)

    async def _target(self, view: View, exchange: Exchange, kind: str, name: Json) -> Target | ErrorReply:
        """Whose a name is, and the upstream's own; or why it is nobody's."""
        if not isinstance(name, str):
            return _refused("name: must be a string")
        fabric = self._fabric
        to = self._named(name)
        if to is not None:
            upstream = self._by_id[to]
            own = upstream.names(kind).own(name if upstream.bare else name.removeprefix(upstream.prefix))
            found = None if own is None else (upstream, own)
        elif not fabric.directory.needs_table:
            found = fabric.directory.find(kind, name)
        else:
            table = await self._lists.table(view, exchange, kind)
            if name not in table.targets and name not in table.collisions:
                table = await self._lists.table(view, exchange, kind, fresh=True)
            found = table.targets.get(name)
            if found is None and name in table.collisions:
                return _ambiguous(f"the {_NOUN[kind]} {name!r}", table.collisions[name])
        return found if found is not None else _refused(f"unknown {_NOUN[kind]}: {name:.200}")

    async def _send_as(self, view: View, exchange: Exchange, target: Target, path: tuple[str, ...]) -> Reply:
        upstream, own = target
        request = request_of(exchange)
        member: Json = request.params
        for key in path:
            member = member[key]
        return await self._fabric.send(
            view, upstream, exchange, request if member == own else with_param(request, path, own)
        )

    async def _ask_owners(self, view: View, exchange: Exchange, uri: str) -> Reply:
        """The owner of a uri; where none is known, everybody in turn until one has it."""
        owners = self.owners(view, uri)
        if len(owners) > 1 and self._fabric.config.collisions == "error":
            return _ambiguous(f"the resource {uri:.200}", [u.id for u in owners])
        asked = [u for u in owners[:1] or self._may_have(view) if u.resources.shows(uri)]
        if not asked:
            code = ErrorCode.RESOURCE_NOT_FOUND if exchange.client.era is Era.LEGACY else ErrorCode.INVALID_PARAMS
            return ErrorReply(code, f"resource not found: {uri:.200}", {"uri": uri}, http_status=200)
        reply, owner = await self._first(view, exchange, asked)
        if owner is not None and not owners:
            view.uris.learn(uri, owner)
        return reply

    def _may_have(self, view: View) -> Iterable[Upstream]:
        """Upstreams that have resources, or may have for all that is known."""
        for upstream in self._fabric.upstreams:
            leg = view.legs.get(upstream.id)
            if leg is None or not leg.is_open or not leg.result or "resources" in leg.capabilities:
                yield upstream

    async def _first(
        self, view: View, exchange: Exchange, upstreams: Iterable[Upstream]
    ) -> tuple[Reply, Upstream | None]:
        """
        Ask in turn until one does not say that it is not there.

        Returns:
            The answer and who gave it; nobody, if all said no.

        Raises:
            GatewayError: One has failed, and no other has it.
        """
        refusal: ErrorReply | None = None
        failure: GatewayError | None = None
        for upstream in upstreams:
            try:
                reply = await self._fabric.send(view, upstream, exchange)
            except GatewayError as error:
                failure = failure or error
                continue
            if not (isinstance(reply, ErrorReply) and reply.code in _NOT_FOUND):
                return reply, upstream
            if refusal is None or refusal.code == ErrorCode.METHOD_NOT_FOUND:
                refusal = reply
        if failure is not None:
            raise failure
        assert refusal is not None  # there was somebody to ask
        return refusal, None


def _refused(message: str) -> ErrorReply:
    """An answer of the server that the route is, not a failure of the gateway."""
    return ErrorReply(ErrorCode.INVALID_PARAMS, message, http_status=200)


def _ambiguous(what: str, ids: Iterable[str]) -> ErrorReply:
    return _refused(f"{what} is offered by {' and by '.join(ids)}; give one of them a prefix, or hide it there")
