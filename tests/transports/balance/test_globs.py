"""Members that are named by a glob: whoever is declared under such a name."""

from __future__ import annotations

import pytest

from sluiceway.pipeline.config import ConfigError, from_data, load
from sluiceway.pipeline.testing import FakeSink, PipelineHarness


def gateway(to, *ids):
    """A configuration with a group and some sinks."""
    sinks = {name: {"embedded": {"expose": []}} for name in ids}
    balance = {"to": to, "strategy": "round_robin", "health": {"probe": "none"}}
    return {
        "version": 1,
        "sources": {"test": {"stdio": {}}},
        "pipelines": {"main": {"sink": "search"}},
        "sinks": {"search": {"balance": balance}, **sinks},
    }


def members(to, *ids):
    """Who is in the group, with what weight."""
    spec = from_data(gateway(to, *ids)).sinks["search"]
    assert set(spec.sends_to) == set(spec.config.members())
    return {name: member.weight for name, member in spec.config.members().items()}


def test_a_glob_stands_for_all_that_match_but_the_group_itself():
    """In the order declared; what is named by itself stays where it is."""
    assert list(members(["search*"], "search_2", "search_1")) == ["search_2", "search_1"]
    assert list(members(["search_3", "search_*"], "search_1", "search_3")) == ["search_3", "search_1"]
    assert list(members(["search_1", "search_*"], "search_1")) == ["search_1"]


def test_what_is_named_by_itself_has_its_own_settings():
    """Wherever it stands; the others have those of the glob."""
    to = {"search_*": {"weight": 3}, "search_2": {"weight": 7}}

    assert members(to, "search_1", "search_2", "search_3") == {"search_1": 3, "search_2": 7, "search_3": 3}


def test_a_glob_that_matches_nothing_is_unknown():
    """As any other name."""
    with pytest.raises(ConfigError, match=r"find_\*"):
        from_data(gateway(["find_*"], "search_1"))


async def test_a_file_that_comes_into_the_folder_joins_the_group(autojump_clock, tmp_path):
    """The file that names the folder stays as it is."""
    (tmp_path / "sinks").mkdir()
    main = tmp_path / "gateway.yaml"
    main.write_text(
        'version: 1\ninclude: ["sinks/*.yaml"]\nsources: {test: {stdio: {}}}\npipelines: {main: {sink: search}}\n'
        'sinks: {search: {balance: {to: ["search_*"], strategy: round_robin, health: {probe: none}}}}\n'
    )

    def add(name):
        (tmp_path / "sinks" / f"{name}.yaml").write_text(f"sinks: {{{name}: {{embedded: {{expose: []}}}}}}\n")

    add("search_1")
    assert load(main).sinks["search"].sends_to == ("search_1",)
    add("search_2")
    fakes = {name: FakeSink.echo() for name in ("search_1", "search_2")}
    async with PipelineHarness.from_yaml(main, sinks=fakes) as harness:
        await harness.call_many("tools/list", times=4)

    assert [len(fake.requests) for fake in fakes.values()] == [2, 2]
