"""The census finds what a component holds, wherever it hangs, and nothing that is not its own."""

from collections import OrderedDict, deque
from enum import Enum
from types import MappingProxyType

import pytest
import structlog
import trio
from attrs import define, frozen
from trio.testing import wait_all_tasks_blocked

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.stores.memory import MemoryStore
from sluiceway.pipeline.testing.census import take_census


class Holder:
    """A component with whatever it is given."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


@define
class Slotted:
    """No `__dict__`."""

    rows: list[int]
    unset: int = 0


class OneSlot:
    """A single slot, named by a plain string."""

    __slots__ = "rows"


class Colour(Enum):
    """Not entered."""

    RED = ["a", "b"]


@frozen
class Config:
    """Not the component's own."""

    names: tuple[str, ...] = ("a", "b")


@pytest.mark.parametrize(
    ("value", "sizes"),
    [
        ({"a": 1}, {"self.x": 1}),
        (OrderedDict(a=1, b=2), {"self.x": 2}),
        ([1, 2, 3], {"self.x": 3}),
        ({1, 2}, {"self.x": 2}),
        (bytearray(b"abcd"), {"self.x": 4}),
        (deque([1, 2]), {"self.x": 2}),
        (deque([1, 2], maxlen=2), {}),
        (deque([[1, 2]], maxlen=2), {}),
        ({"a": [1], "b": [2, 3]}, {"self.x": 2, "self.x[...]": 3}),
        (([1], [2, 3]), {"self.x[...]": 3}),
        (frozenset({(1, 2)}), {}),
        (MappingProxyType({"a": [1]}), {"self.x[...]": 1}),
        (Slotted([1]), {"self.x.rows": 1}),
        (OneSlot(), {}),
        (Holder(y=Holder(z=[1])), {"self.x.y.z": 1}),
        (Colour.RED, {}),
        (Holder, {}),
        (structlog.get_logger(), {}),
        ("text", {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_tables_are_counted_wherever_they_hang(value, sizes):
    """Containers that can grow count; bounded, immutable and foreign things do not."""
    assert dict(take_census(Holder(x=value)).sizes) == sizes


def test_a_cycle_is_walked_once():
    """A component may refer to itself."""
    holder = Holder(rows=[1])
    holder.me = holder

    assert dict(take_census(holder).sizes) == {"self.rows": 1}


def test_context_and_config_are_not_the_components_own():
    """They are shared, and may be large."""
    assert dict(take_census(Holder(config=Config(), context=Holder(rows=[1]))).sizes) == {}


def test_a_store_belongs_to_all_who_use_it():
    """What it holds is counted when it is itself what is looked at."""
    store = MemoryStore(MemoryStore.Config(), Context(id="state"))
    store._expiring.append((1.0, "key"))

    assert dict(take_census(Holder(store=store)).sizes) == {}
    assert take_census(store).sizes["self._expiring"] == 1


def test_depth_is_bounded():
    """A chain of holders is followed to a depth of twelve."""
    holder = Holder(rows=[1])
    for _ in range(20):
        holder = Holder(next=holder)

    assert dict(take_census(holder).sizes) == {}


def test_growth_is_reported_by_path():
    """What shrank or stayed is not mentioned."""
    holder = Holder(grows=[1], stays=[1], shrinks=[1])
    before = take_census(holder)
    holder.grows.append(2)
    holder.shrinks.clear()
    holder.new = [1]

    assert take_census(holder).grown_since(before) == [
        "self.grows has 2 entries, 1 before",
        "self.new has 1 entries, 0 before",
    ]


async def test_what_is_taken_is_counted(nursery):
    """Tokens, values, locks, buffered messages, and whoever waits."""
    limiter, semaphore, unbounded = trio.CapacityLimiter(2), trio.Semaphore(2, max_value=2), trio.Semaphore(3)
    lock, condition, event = trio.Lock(), trio.Condition(), trio.Event()
    send, receive = trio.open_memory_channel[int](5)
    holder = Holder(a=limiter, b=semaphore, c=unbounded, d=lock, e=condition, f=event, g=send, h=receive)
    before = take_census(holder)

    assert not any(count > 0 for count in before.taken.values())

    async def wait_for_notify():
        async with condition:
            await condition.wait()

    limiter.acquire_on_behalf_of_nowait("somebody")
    semaphore.acquire_nowait()
    unbounded.acquire_nowait()
    lock.acquire_nowait()
    send.send_nowait(1)
    nursery.start_soon(event.wait)
    nursery.start_soon(wait_for_notify)
    await wait_all_tasks_blocked()

    assert take_census(holder).taken_since(before) == [
        "self.a: 1 taken, 0 before",
        "self.b: 1 taken, 0 before",
        "self.c: -2 taken, -3 before",
        "self.d: 1 taken, 0 before",
        "self.e: 1 taken, 0 before",
        "self.f: 1 taken, 0 before",
        "self.g: 1 taken, 0 before",
        "self.h: 1 taken, 0 before",
    ]

    lock.release()
