"""Components: named by decorators, pure to make, with nothing global but their context."""

import random

import attrs
import pytest
from attrs import frozen

from sluiceway.pipeline.model.component import (
    API_VERSION,
    Component,
    ComponentKind,
    Context,
    Middleware,
    Sink,
    Source,
    State,
    middleware,
    sink,
    source,
)
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.model.store import Store, store
from sluiceway.pipeline.protocol.messages import Notification, Result
from sluiceway.pipeline.testing.exchanges import memory_exchange


@frozen
class NoOptions:
    """No options."""


def make(cls):
    """A component as the engine makes it."""
    return cls(NoOptions(), Context(id="it"))


@pytest.mark.parametrize(
    ("decorate", "base", "kind"),
    [
        (middleware, Middleware, ComponentKind.MIDDLEWARE),
        (sink, Sink, ComponentKind.SINK),
        (source, Source, ComponentKind.SOURCE),
        (store, Store, ComponentKind.STORE),
    ],
)
def test_a_decorator_names_a_class_of_its_kind(decorate, base, kind):
    """The class comes back, with its name in YAML."""
    cls = type("Mine", (base,), {})

    assert decorate("mine")(cls) is cls
    assert (cls.name, cls.kind, cls.api) == ("mine", kind, API_VERSION)


@pytest.mark.parametrize("decorate", [middleware, sink, source, store])
def test_a_decorator_refuses_a_class_of_another_kind(decorate):
    """The message says which base it wants."""
    with pytest.raises(TypeError, match="Mine must be a subclass of"):
        decorate("mine")(type("Mine", (Component,), {}))


def test_a_component_keeps_its_config_and_context():
    """That is all its constructor does."""
    config, context = NoOptions(), Context(id="it")
    component = Middleware(config, context)

    assert component.config is config
    assert component.context is context


async def test_opening_is_optional():
    """A component without resources need not override `open`."""
    entered = False
    async with make(Middleware).open():
        entered = True

    assert entered


async def test_a_plain_stage_passes_everything():
    """`__call__` awaits the inner chain, `relay` forwards."""
    stage, exchange, forwarded = make(Middleware), memory_exchange(), []
    reply = Result({"a": 1})

    async def call_next(inner):
        assert inner is exchange
        return reply

    async def forward(inner, notification):
        forwarded.append((inner, notification))

    notification = Notification("notifications/progress")
    await stage.relay(exchange, notification, forward)

    assert await stage(exchange, call_next) is reply
    assert forwarded == [(exchange, notification)]


@pytest.mark.parametrize(
    ("base", "call", "missing"),
    [
        (Sink, lambda it: it(memory_exchange()), "__call__"),
        (Source, lambda it: it.serve(None), "serve"),
        (Store, lambda it: it.get("key"), "get"),
        (Store, lambda it: it.put("key", b""), "put"),
        (Store, lambda it: it.delete("key"), "delete"),
        (Store, lambda it: it.keys(), "keys"),
    ],
)
async def test_what_a_kind_must_implement_is_named(base, call, missing):
    """Calling what is missing is a programming error that names class and method."""
    cls = type("Mine", (base,), {})

    with pytest.raises(TypeError, match=f"^Mine does not implement {missing}$"):
        await call(make(cls))


def test_a_store_must_tell_its_size():
    """For status and the leak oracle."""
    with pytest.raises(TypeError, match="does not implement size"):
        make(type("Mine", (Store,), {})).size()


def test_a_source_may_have_nothing_to_stop():
    """The default takes no notice."""
    assert make(Source).stop_accepting() is None


def test_a_context_alone_is_enough_to_make_a_component():
    """Ids differ and have 128 bits, randomness is there, status goes nowhere."""
    context = Context(id="it")

    assert context.new_id() != context.new_id()
    assert len(bytes.fromhex(context.new_id())) == 16
    assert isinstance(context.random, random.Random)
    assert context.report(State.DEGRADED, "why") is None
    assert context.listen


def test_a_store_that_is_not_declared_is_named():
    """With the place where it belongs."""
    with pytest.raises(LookupError, match="no store named 'shared'; declare it under stores:"):
        Context(id="it").store("shared")


def test_a_store_comes_from_the_surroundings():
    """By name."""
    shared = make(type("Mine", (Store,), {}))

    assert Context(id="it", stores={"shared": shared}.__getitem__).store("shared") is shared


def test_a_stage_says_nothing_about_its_order_unless_it_does():
    """No role but its name, no rules, no repetition."""
    assert (Middleware.role, Middleware.order, Middleware.replays) == ("", (), False)
    assert Order("first", "", "info", "because").level == "info"


def test_a_component_need_not_declare_options():
    """The stage of the README has none."""

    class Plain(Middleware):
        """No options."""

    assert () == attrs.fields(Plain.Config)
