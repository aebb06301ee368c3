"""What a legacy session has said once, for an upstream that has to be told in every request (2026-07-28, basic)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

import trio
from attrs import define, field
from msgspec.structs import replace

from sluiceway.pipeline.model.exchange import Exchange, Link
from sluiceway.pipeline.model.session import Client, Session
from sluiceway.pipeline.protocol.mcp import LATEST, Era, Kind, MetaKey
from sluiceway.pipeline.protocol.messages import EMPTY, Json, Notification, Request, RequestId

from .task_book import TaskBook
from .task_messages import with_extension
from .to_modern_listening import FILTERS, Wish
from .to_modern_messages import modern_capabilities

_LISTEN: Final = "subscriptions/listen"


@final
@define(eq=False, kw_only=True)
class Held:
    """What a legacy session has said, for an upstream that remembers nothing."""

    client: Client
    """Its client, as one of the modern era."""
    server: Mapping[str, Json] = EMPTY
    """The upstream's capabilities."""
    level: str | None = None
    """Of its latest `logging/setLevel`."""
    uris: dict[str, None] = field(factory=dict)
    """The resources it watches."""
    ready: bool = False
    """It has sent `notifications/initialized`: from then on it is told of changes."""
    knows_tasks: bool = False
    """The upstream has the extension for tasks."""
    runs_tasks: bool = False
    """Its own revision has tasks, too: it was offered them."""
    tasks: TaskBook = field(factory=TaskBook)
    """Those it has created."""

    def about(self, *, tasks: bool = False) -> dict[str, Json]:
        """
        What each of its requests says in `_meta`.

        Args:
            tasks: Whether it may be answered with a task, or is about one.
        """
        declared = self.client.capabilities
        about: dict[str, Json] = {
            MetaKey.VERSION.value: self.client.version,
            MetaKey.CLIENT_CAPABILITIES.value: with_extension(declared) if tasks else declared,
        }
        if self.client.info:
            about[MetaKey.CLIENT_INFO.value] = self.client.info
        if self.level is not None:
            about[MetaKey.LOG_LEVEL.value] = self.level
        return about

    @property
    def lists(self) -> tuple[str, ...]:
        """Of which lists it is told that they have changed, as keys of `FILTERS`."""
        return tuple(key for key, (kind, _) in FILTERS.items() if self.ready and self.offers(kind, "listChanged"))

    @property
    def watched_tasks(self) -> tuple[str, ...]:
        """Of which tasks it is told that they have changed."""
        return self.tasks.unfinished() if self.ready else ()

    def tasking(self) -> Client:
        """Its client, as one that knows the extension for tasks."""
        return replace(self.client, capabilities=with_extension(self.client.capabilities))

    def offers(self, kind: str, part: str) -> bool:
        """Whether the upstream has declared part of a capability."""
        declared = self.server.get(kind)
        return isinstance(declared, dict) and declared.get(part) is True

    def listener(
        self, session: Session, request_id: RequestId, wish: Wish, heard: Callable[[Notification], None]
    ) -> Exchange:
        """An exchange in the session's name that no request of its client caused: a subscription."""

        async def relay(_exchange: Exchange, notification: Notification) -> None:
            await trio.lowlevel.checkpoint()
            heard(notification)

        params = {"notifications": wish.notifications(), "_meta": self.about(tasks=bool(wish.tasks))}
        return Exchange(
            request=Request(request_id, _LISTEN, params),
            kind=Kind.LISTEN,
            client=self.tasking() if wish.tasks else self.client,
            source=session.source,
            caller=session.caller,
            link=Link(_nowhere, caller=session.caller),
            way_back=relay,
        )


def as_modern(exchange: Exchange) -> Client:
    """The client that sends `initialize`, as one of the modern era: nothing of what it sent in HTTP belongs to that."""
    params, client = exchange.request.params, exchange.client
    capabilities, info = params.get("capabilities"), params.get("clientInfo")
    return Client(
        era=Era.MODERN,
        version=LATEST,
        capabilities=modern_capabilities(capabilities if isinstance(capabilities, dict) else {}),
        info=info if isinstance(info, dict) else {},
        address=client.address,
        certificate=client.certificate,
    )


async def _nowhere(_: Notification) -> None:
    """A listener has no client of its own."""
    await trio.lowlevel.checkpoint()
