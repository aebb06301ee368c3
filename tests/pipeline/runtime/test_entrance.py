"""The auth stages alone, as a source asks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.model.when import When
from sluiceway.pipeline.protocol.errors import Forbidden, SessionNotFound, Unauthenticated
from sluiceway.pipeline.protocol.messages import Notification, Reply
from sluiceway.pipeline.runtime.chain import Stage, compile_chain
from sluiceway.pipeline.runtime.entrance import Entrance, Entrances
from sluiceway.pipeline.testing.exchanges import MODERN_CLIENT, legacy_client


@middleware("toy_auth")
class ToyAuth(Middleware):
    """Says who everybody is."""

    role = "auth"

    def __init__(self, subject: str, publishes: Mapping[str, Any] | None = None) -> None:
        super().__init__(None, Context(id=subject))
        self._publishes = publishes
        self.seen: list[tuple[str, str]] = []

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        self.seen.append((exchange.method, exchange.source))
        if self.context.id == "nobody":
            raise Unauthenticated("who?", challenge="Toy")
        exchange.authenticate(Caller(self.context.id, how="bearer"))
        return await call_next(exchange)

    def resource_metadata(self, source: str) -> Mapping[str, Any] | None:
        """With the source in it."""
        return None if self._publishes is None else {**self._publishes, "source": source}


@middleware("toy_counter")
class ToyCounter(Middleware):
    """No auth stage: must not be run."""

    def __init__(self) -> None:
        super().__init__(None, Context(id="counter"))

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        raise AssertionError("only auth stages are asked")


async def _sink(_exchange: Exchange) -> Reply:
    raise AssertionError("the sink is not asked")


def chain(*stages, guard=None):
    return compile_chain([Stage(s.context.id, s, guard) for s in stages], _sink)


async def test_only_auth_stages_are_asked():
    """In their order, about what stands for the missing message, in the name of the source."""
    first, last = ToyAuth("ana"), ToyAuth("bob")
    caller = await Entrance(chain(ToyCounter(), first, ToyCounter(), last), "web").identify(MODERN_CLIENT)

    assert caller == Caller("bob", how="bearer")
    assert first.seen == last.seen == [("ping", "web")]


async def test_a_notification_is_asked_about_as_itself():
    """So that guards see its method."""
    auth = ToyAuth("ana")
    entrance = Entrance(chain(auth, guard=When(method=("notifications/*",)).compile()), "web")

    assert (await entrance.identify(MODERN_CLIENT)).subject == "anonymous"
    assert (await entrance.identify(MODERN_CLIENT, Notification("notifications/x"))).subject == "ana"
    assert auth.seen == [("notifications/x", "web")]


async def test_refusals_come_out():
    """With their challenge; and so does that a session is somebody else's."""
    with pytest.raises(Unauthenticated) as caught:
        await Entrance(chain(ToyAuth("nobody")), "web").identify(MODERN_CLIENT)
    client = legacy_client()
    assert client.session is not None
    client.session.caller = Caller("bob", how="bearer")
    with pytest.raises(SessionNotFound):
        await Entrance(chain(ToyAuth("ana")), "web").identify(client)

    assert caught.value.challenge == "Toy"


async def test_without_auth_stages_nobody_is_asked():
    """None, and not anonymous: who asks may know better."""
    entrance = Entrance(chain(ToyCounter()), "web")

    assert await entrance.identify(MODERN_CLIENT) is None
    assert entrance.resource_metadata() is None


def test_the_first_stage_with_something_to_publish_publishes():
    """For this source."""
    entrance = Entrance(chain(ToyAuth("a"), ToyAuth("b", {"n": 1}), ToyAuth("c", {"n": 2})), "web")

    assert entrance.resource_metadata() == {"n": 1, "source": "web"}


async def test_another_chain_is_another_entrance():
    """After a reload the new stages are asked; before, the entrance is made once."""
    current = [chain(ToyAuth("ana"))]
    entrances = Entrances(lambda: current[0], "web")
    before = entrances.entrance
    assert entrances.entrance is before
    assert (await entrances.identify(MODERN_CLIENT)).subject == "ana"
    current[0] = chain(ToyAuth("bob", {"n": 1}))

    assert (await entrances.identify(MODERN_CLIENT)).subject == "bob"
    assert entrances.resource_metadata() == {"n": 1, "source": "web"}


@middleware("toy_reader")
class HeaderAuth(ToyAuth):
    """Needs no more than headers."""

    by_headers = True

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        if self.context.id == "scoped":
            raise Forbidden("not this one")
        return await super().__call__(exchange, call_next)


@middleware("log")
class Witness(Middleware):
    """Stands in front, and lets everybody pass."""

    def __init__(self, name: str = "witness") -> None:
        super().__init__(None, Context(id=name))
        self.told: list[tuple[str, str]] = []

    def turned_away(self, exchange: Exchange, error: Any) -> None:
        """Told of it."""
        self.told.append((exchange.method, error.reason))


async def test_who_is_refused_whatever_it_says_is_refused_unread():
    """The stages in front are told; those behind are not, for they would never have seen it."""
    ahead, behind = Witness("ahead"), Witness("behind")
    entrances = Entrances(lambda: chain(ahead, HeaderAuth("ana"), HeaderAuth("nobody"), behind), "web")
    with pytest.raises(Unauthenticated) as caught:
        await entrances.refuse_unread(MODERN_CLIENT)

    assert caught.value.challenge == "Toy"
    assert (ahead.told, behind.told) == ([("(unread)", "unauthenticated")], [])


@pytest.mark.parametrize(
    "stages",
    [
        [], [ToyAuth("nobody")], [ToyCounter(), HeaderAuth("nobody")], [HeaderAuth("ana"), ToyCounter()],
        [HeaderAuth("scoped")],
    ],
    ids=["open", "reads the request", "another stage first", "let in", "refused for what it wants"],
)  # fmt: skip
async def test_who_might_be_let_in_or_refused_for_another_reason_is_read(stages):
    """Nothing is raised."""
    await Entrance(chain(*stages), "web").refuse_unread(MODERN_CLIENT)


async def test_a_guard_must_see_the_request():
    """So nobody is refused before it can."""
    auth = HeaderAuth("nobody")
    await Entrance(chain(auth, guard=lambda _: True), "web").refuse_unread(MODERN_CLIENT)

    assert auth.seen == []
