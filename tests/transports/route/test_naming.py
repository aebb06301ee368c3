"""Names have one reading, and come back as they went."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.testing import FakeSink
from sluiceway.transports.route.naming import Directory, Exposure, Upstream, fold_name, make_table

NAMES = st.text(min_size=1, max_size=12)
PREFIXES = st.lists(st.from_regex(r"[a-z_]{1,6}", fullmatch=True), min_size=1, max_size=5, unique=True)


def _upstreams(prefixes, separator, **more):
    sink = FakeSink()
    return [Upstream(f"u{i}", i, sink, p + separator if p else "", not p, **more) for i, p in enumerate(prefixes)]


@given(PREFIXES, st.sampled_from([".", "_", "__", "-"]), NAMES, st.integers(0, 4))
def test_any_name_comes_back_from_under_any_prefix(prefixes, separator, name, chosen):
    """Whatever the separator and however often the name has it."""
    ups = _upstreams(prefixes, separator)
    spelled = [u.prefix for u in ups]
    if any(a != b and a.startswith(b) for a in spelled for b in spelled):
        return  # refused by the configuration
    upstream = ups[chosen % len(ups)]
    directory = Directory(ups, separator)
    exposed = directory.expose("tools", upstream, name)

    assert (upstream, name) == directory.find("tools", exposed)


@given(
    st.lists(st.lists(st.sampled_from(["a", "A", "b", "\u200bb", "c", "\uff41"]), max_size=4), min_size=2, max_size=4)
)
def test_a_table_never_gives_one_name_two_meanings(names):
    """And every shown name leads back to what it stands for, under every policy."""
    ups = _upstreams([""] * len(names), ".")
    for policy in ("error", "first", "prefix"):
        table = make_table("tools", list(zip(ups, names, strict=True)), policy)
        for (upstream_id, own), shown in table.shown.items():
            upstream, target = table.targets[shown]

            assert (upstream_id, own) == (upstream.id, target)


@pytest.mark.parametrize("other", ["READ", "re\u200bad", "\uff52ead", "re\u00adad"])
def test_names_that_look_alike_are_one(other):
    """Case, width and invisible characters make no difference."""
    assert fold_name("read") == fold_name(other)


def test_a_renamed_name_takes_the_place_of_another():
    """The old name is gone, and so is an own name that the new one hides."""
    exposure = Exposure(rename={"a": "b"})

    assert ("b", None, "c") == (exposure.local("a"), exposure.local("b"), exposure.local("c"))
    assert (None, "a", "c") == (exposure.own("a"), exposure.own("b"), exposure.own("c"))


def test_names_may_change_places():
    """Both ways at once."""
    exposure = Exposure(rename={"a": "b", "b": "a"})

    assert ("b", "a") == (exposure.local("a"), exposure.local("b"))
    assert ("b", "a") == (exposure.own("a"), exposure.own("b"))


def test_a_name_unknown_to_the_table_is_taken_up_if_it_is_free():
    """A list that came late adds its names; it cannot take those of others."""
    one, two = _upstreams(["", ""], ".")
    table = make_table("tools", [(one, ["x"]), (two, [])], "error")

    assert "y" == table.adopt("tools", two, "y")
    assert table.adopt("tools", two, "x") is None
    assert (one, "x") == table.targets["x"]


def test_a_prefix_that_a_collision_asks_for_may_be_taken():
    """Then the name stays with who had it, and the other is noted."""
    one, two = _upstreams(["", ""], ".")
    one, two = (Upstream(u.id, u.index, u.service, f"{u.id}.", True) for u in (one, two))
    table = make_table("tools", [(one, ["u1.x", "x"]), (two, ["x"])], "prefix")

    assert {"u1.x", "u0.x"} == set(table.targets)
    assert {"u1.x": ["u0", "u1"]} == table.collisions
