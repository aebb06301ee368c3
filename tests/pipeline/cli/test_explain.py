"""`explain`: components and places."""

import pytest

from sluiceway.pipeline.cli.exits import Exit

PLUGIN = '''\
from attrs import frozen

from sluiceway.pipeline.model.component import Middleware, middleware
from sluiceway.pipeline.model.options import option


@middleware("whiten")
class Whiten(Middleware):
    """Make everything white. Really."""

    @frozen
    class Config:
        """Options."""

        tint: str = option("pure", doc="How white.")
'''


def test_a_component_is_explained_with_its_options(sluiceway):
    """Names, types, defaults, docs."""
    outcome = sluiceway("explain", "concurrency_limit")

    assert (Exit.OK, "") == (outcome.code, outcome.err)
    assert outcome.out.startswith("concurrency_limit (middleware)")
    assert "max_in_flight: " in outcome.out


def test_a_name_that_two_kinds_share_shows_both(sluiceway):
    """`stdio` is a source and a sink; a kind in front picks one."""
    both, one = sluiceway("explain", "stdio"), sluiceway("explain", "sink.stdio")

    assert "stdio (source)" in both.out
    assert "stdio (sink)" in both.out
    assert "stdio (source)" not in one.out


def test_a_place_is_explained_with_what_is_in_force(sluiceway, write, good):
    """By index, by id, and everything at once."""
    path = write("a.yaml", good)

    for place in ("pipelines.main.chain[0]", "pipelines.main.chain.request_id"):
        assert "middleware 'request_id'" in sluiceway("explain", place, path).out
    everything = sluiceway("explain", ".", path).out
    assert all(f"\n{place}: " in f"\n{everything}" for place in ("pipelines.main", "sinks.demo", "sources.local"))


def test_an_overlay_is_in_force_too(sluiceway, write, good):
    """The effective configuration is what is shown."""
    write("a.production.yaml", "run: {log_level: error}\n")

    assert "log_level: error" in sluiceway("explain", "run", write("a.yaml", good), "--env", "production").out


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["requst_id"], Exit.FOUND, "did you mean 'request_id'?"),
        (["sink.request_id"], Exit.FOUND, "unknown component 'sink.request_id'"),
        (["pipelines.main.chain[0]"], Exit.USAGE, "name the file"),
        (["pipelines.man", "a.yaml"], Exit.FOUND, "did you mean 'pipelines.main'?"),
        (["no.module.anywhere:Class"], Exit.FOUND, "cannot be imported"),
        (["x", "--plugin", "./missing.py"], Exit.FOUND, "missing.py' does not exist"),
    ],
)
def test_what_does_not_exist_is_named_with_a_suggestion(sluiceway, write, good, words, code, text):
    """On stderr, with nothing on stdout."""
    write("a.yaml", good)
    outcome = sluiceway("explain", *words)

    assert (code, "") == (outcome.code, outcome.out)
    assert text in outcome.err


def test_plugins_are_explained_listed_and_in_the_schema(sluiceway, write):
    """What a configuration can load, these verbs can show."""
    plugin = f"./{write('whiten.py', PLUGIN)}"

    assert "tint: " in sluiceway("explain", "whiten", "--plugin", plugin).out
    assert "Make everything white" in sluiceway("list", "middleware", "--plugin", plugin).out
    assert '"middleware.whiten"' in sluiceway("schema", "--plugin", plugin).out
