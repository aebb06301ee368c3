"""Active probes: a task for each upstream that asks now and then whether it is well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange, Link, Service
from sluiceway.pipeline.model.session import Client, Session
from sluiceway.pipeline.protocol.errors import ClientFault, GatewayError, SessionNotFound
from sluiceway.pipeline.protocol.failures import Failure, failure_of
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY, Era, MetaKey, method_of
from sluiceway.pipeline.protocol.messages import EMPTY, Json, Notification, Reply, Request, Result

from .config import HealthConfig
from .group import Group
from .member import Member
from .reach import Address, reach

_INFO: Final = {"name": "sluiceway", "version": "1"}
_AGAIN: Final = 0.1
"""Share of the interval after which a probe that failed is repeated."""
_JITTER: Final = 0.1
"""Share of the interval by which probes are spread, so that they do not come all at once."""

Probe = Callable[[], Awaitable[bool | None]]
"""Whether an upstream is well; None if that cannot be told now."""


async def _hear(_: Notification) -> None:
    """Nobody waits for notifications of a probe."""
    await trio.lowlevel.checkpoint()


def _verdict(outcome: Reply | GatewayError) -> bool | None:
    """What an outcome says: an answer is an answer, whatever is in it; our own limits say nothing."""
    failure = failure_of(outcome)
    return None if failure is Failure.REFUSED else failure is None


@final
class Prober:
    """
    Asks one upstream.

    Args:
        context: The sink's.
        service: Leads to the upstream.
        timeout_s: Time for an answer.
    """

    def __init__(self, context: Context, service: Service, timeout_s: float) -> None:
        self._context = context
        self._service = service
        self._timeout_s = timeout_s
        self._session: Session | None = None

    async def discover(self) -> bool | None:
        """Send `server/discover`."""
        client = Client(era=Era.MODERN, version=LATEST, info=_INFO, transport="probe")
        meta = {MetaKey.VERSION: LATEST, MetaKey.CLIENT_CAPABILITIES: {}, MetaKey.CLIENT_INFO: _INFO}
        params = {"_meta": {key.value: value for key, value in meta.items()}}
        return await self._ask(client, Request(self._context.new_id(), "server/discover", params))

    async def ping(self) -> bool | None:
        """Send `ping` in a session of our own, opened again where it is not known any more."""
        known = self._session is not None and not self._session.closed
        if not known and not await self._open():
            return False
        if self._session is None:
            return None
        well = await self._say("ping")
        if well is None and known and self._session is None:
            return await self._open() and await self._say("ping")
        return well

    def close(self) -> None:
        """End the session."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    async def _open(self) -> bool:
        """Shake hands; whether the upstream has answered, with consent or without."""
        self.close()
        session = Session(id=self._context.new_id(), source=self._context.id, last_activity=trio.current_time())
        self._session = session
        hello = {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "clientInfo": _INFO}
        well = await self._say("initialize", hello)
        if well and session.version is not None:
            await self._say("notifications/initialized")
        else:
            self.close()
        return bool(well)

    async def _say(self, method: str, params: dict[str, Json] | None = None) -> bool | None:
        session = self._session
        client = Client(
            era=Era.LEGACY,
            version=session.version if session else None,
            info=_INFO,
            session=session,
            transport="probe",
        )
        if method.startswith("notifications/"):
            return await self._ask(client, Notification(method, params or EMPTY))
        return await self._ask(client, Request(self._context.new_id(), method, params or EMPTY))

    async def _ask(self, client: Client, message: Request | Notification) -> bool | None:
        link = Link(_hear, deadline=trio.current_time() + self._timeout_s)
        exchange = Exchange(
            request=message, kind=method_of(message.method).kind, client=client, source=self._context.id, link=link
        )
        with trio.move_on_after(self._timeout_s):
            try:
                reply = await self._service(exchange)
            except SessionNotFound:
                self.close()
                return None
            except ClientFault:
                return True  # it is there, and wants something else
            except GatewayError as error:
                return _verdict(error)
            if message.method == "initialize" and isinstance(reply, Result) and client.session is not None:
                version = reply.value.get("protocolVersion")
                client.session.version = version if isinstance(version, str) else LATEST_LEGACY
            return _verdict(reply)
        return False


def probe_of(config: HealthConfig, prober: Prober, address: Address | None) -> Probe | None:
    """The probe that the options name; None for none."""
    if address is not None:
        timeout_s = config.timeout

        async def connect() -> bool:
            with trio.move_on_after(timeout_s):
                return await reach(address)
            return False

        return connect
    if config.probe == "none":
        return None
    return prober.discover if config.probe == "discover" else prober.ping


async def keep_probing(
    group: Group, member: Member, probe: Probe, interval_s: float, random: Callable[[], float]
) -> None:
    """Probe one upstream until cancelled."""
    pause = interval_s * random()
    while True:
        await trio.sleep(pause)
        well = await probe()
        now = trio.current_time()
        if well is not None:
            group.probed(member, now, well=well)
        doubtful = well is False and not member.vitals.probed.is_down
        pause = interval_s * (_AGAIN if doubtful else 1 - _JITTER * random())
