"""`initialize` and `server/discover`: several servers introduce themselves as one; and what goes to all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

from msgspec.structs import replace

from sluiceway.pipeline.model.exchange import Exchange, Link, deliver
from sluiceway.pipeline.protocol.errors import (
    GatewayError,
    UnsupportedVersion,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.mcp import LEGACY_VERSIONS, ErrorCode
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Request, Result

from .fabric import Fabric, Outcome, failure_of, missing
from .leg import say_nothing
from .merging import (
    Note,
    Part,
    common_versions,
    lowest_version,
    merge_capabilities,
    merge_hints,
    merge_instructions,
    merge_rest,
)
from .naming import Upstream
from .view import View

_RULED: Final = frozenset(
    {"protocolVersion", "supportedVersions", "capabilities", "instructions", "serverInfo", "ttlMs", "cacheScope"}
)


@final
class Handshake:
    """
    Introductions, and messages for everybody.

    Args:
        fabric: The route's.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric

    async def initialize(self, view: View, exchange: Exchange) -> Reply:
        """
        Introduce a legacy client to every upstream, with its own words; a late one is introduced in the background.

        Raises:
            UpstreamUnavailable: No upstream has answered.
        """
        promises = view.promises
        client = exchange.client
        params = exchange.request.params
        capabilities, info = params.get("capabilities"), params.get("clientInfo")
        if view.session is None:
            outcomes = await self._fabric.gather(
                exchange, self._fabric.upstreams, lambda u: u.service(self._fabric.part(exchange))
            )
            return self._introduce(exchange, outcomes)
        client = replace(
            client,
            capabilities=capabilities if isinstance(capabilities, dict) else {},
            info=info if isinstance(info, dict) else {},
        )
        link = Link(say_nothing, caller=exchange.caller)
        promises.initialize = replace(exchange, client=client, link=link, marks={}, reply_headers={}, way_back=deliver)
        for leg in view.legs.values():
            leg.renew()

        async def greet(upstream: Upstream) -> Reply:
            leg = view.legs[upstream.id]
            await leg.ready()
            return Result(leg.result)

        outcomes = await self._fabric.gather(exchange, self._fabric.upstreams, greet)
        view.answered = True
        return self._introduce(exchange, outcomes)

    def _introduce(self, exchange: Exchange, outcomes: dict[str, Outcome]) -> Reply:
        parts = self._parts(exchange, outcomes)
        if not parts:
            failure = failure_of(outcomes)
            assert isinstance(failure, ErrorReply)  # else `_parts` has raised
            return failure
        values = [value for _, value in parts]
        merged: dict[str, Json] = {
            "protocolVersion": lowest_version(value.get("protocolVersion") for value in values),
            **self._about(parts),
            "serverInfo": self._info(values),
        }
        return Result({**merged, **merge_rest(values, _RULED, {Note.MISSING: missing(outcomes)}, self._fabric.info)})

    async def discover(self, view: View, exchange: Exchange) -> Reply:
        """
        What all upstreams together are.

        While one of them speaks legacy revisions only, the whole does: a client that speaks both kinds then shakes
        hands and reaches everybody, where it would otherwise have lost that upstream without a word.

        Raises:
            UnsupportedVersion: One of them speaks revisions with a handshake only.
            UpstreamUnavailable: None has answered.
            UpstreamProtocolError: They have no version in common.
        """
        fabric = self._fabric
        outcomes = await fabric.gather(
            exchange, fabric.upstreams, lambda u: fabric.send(view, u, fabric.part(exchange))
        )
        legacy = [upstream_id for upstream_id, outcome in outcomes.items() if _lacks_the_era(outcome)]
        if legacy and not all(isinstance(outcome, ErrorReply) for outcome in outcomes.values()):
            raise UnsupportedVersion(
                f"{fabric.id}: {', '.join(legacy)} can be reached after a handshake only; initialize a session to have "
                "all upstreams, or go on without those",
                data={"supported": list(LEGACY_VERSIONS), "requested": exchange.client.version},
            )
        parts = self._parts(exchange, outcomes)
        if not parts:
            failure = failure_of(outcomes)
            assert isinstance(failure, ErrorReply)  # else `_parts` has raised
            return failure
        values = [value for _, value in parts]
        versions = common_versions([value.get("supportedVersions") for value in values])
        if not versions:
            raise UpstreamProtocolError(f"{', '.join(u.id for u, _ in parts)} have no protocol version in common")
        absent = missing(outcomes)
        merged: dict[str, Json] = {"supportedVersions": versions, **self._about(parts)}
        if any("serverInfo" in value for value in values):
            merged["serverInfo"] = self._info(values)
        merged.update(merge_hints(values, complete=not absent))
        return Result({**merged, **merge_rest(values, _RULED, {Note.MISSING: absent}, fabric.info)})

    def _parts(self, exchange: Exchange, outcomes: dict[str, Outcome]) -> list[Part]:
        parts = [(u, o.value) for u in self._fabric.upstreams if isinstance(o := outcomes[u.id], Result)]
        failure = failure_of(outcomes)
        if not parts and not isinstance(failure, ErrorReply):
            raise UpstreamUnavailable(
                f"{exchange.method}: none of {', '.join(outcomes)} has answered; try again"
            ) from (failure if isinstance(failure, GatewayError) else None)
        return parts

    def _about(self, parts: list[Part]) -> dict[str, Json]:
        declared = [value["capabilities"] for _, value in parts if isinstance(value.get("capabilities"), dict)]
        about: dict[str, Json] = {"capabilities": merge_capabilities(declared)}
        instructions = merge_instructions(parts)
        return about if instructions is None else {**about, "instructions": instructions}

    def _info(self, values: list[Mapping[str, Json]]) -> Json:
        return values[0].get("serverInfo") if len(self._fabric.upstreams) == 1 else self._fabric.info

    async def set_level(self, view: View, exchange: Exchange) -> Reply:
        """
        `logging/setLevel`, to everybody who logs; later ones hear of it in their handshake.

        Raises:
            UpstreamUnavailable: No upstream has answered.
        """
        fabric = self._fabric
        view.promises.level = exchange.request.params
        logging = [
            u for u in fabric.upstreams if (leg := view.legs.get(u.id)) is None or "logging" in leg.capabilities
        ] or list(fabric.upstreams)
        outcomes = await fabric.gather(exchange, logging, lambda u: fabric.send(view, u, fabric.part(exchange)))
        done = next((each for each in outcomes.values() if isinstance(each, Result)), None) or failure_of(outcomes)
        if isinstance(done, Result | ErrorReply):
            return done
        raise UpstreamUnavailable(f"logging/setLevel: none of {', '.join(outcomes)} has answered; try again") from done

    async def notify(self, view: View, exchange: Exchange) -> Reply:
        """A notification for all upstreams that know the client; one that is away does not keep it from the others."""
        notification = exchange.request
        assert isinstance(notification, Notification)
        if notification.method == "notifications/initialized":
            view.promises.initialized = True
        known = [u for u in self._fabric.upstreams if (leg := view.legs.get(u.id)) is None or leg.is_open]
        await self._fabric.gather(exchange, known, lambda u: self._fabric.send(view, u, self._fabric.part(exchange)))
        return Result()


def _lacks_the_era(outcome: Outcome) -> bool:
    """Whether an upstream's answer to `server/discover` says that it knows handshakes only."""
    if isinstance(outcome, ErrorReply):
        return outcome.code == ErrorCode.METHOD_NOT_FOUND
    return isinstance(outcome, UnsupportedVersion)


def request_of(exchange: Exchange) -> Request:
    """The exchange's message, which is a request."""
    assert isinstance(exchange.request, Request)
    return exchange.request
