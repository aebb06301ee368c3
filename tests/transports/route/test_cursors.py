"""Composite cursors: what was sealed comes back, and nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.model.session import ANONYMOUS, Caller
from sluiceway.transports.route.cursors import BadCursor, CursorLoop, Cursors, Position, first_position

TEXT = st.text(max_size=20)
POSITIONS = st.dictionaries(TEXT, st.builds(Position, TEXT, st.integers(1, 9), TEXT), max_size=4)


@given(POSITIONS)
def test_any_positions_come_back(positions):
    """Empty cursors, odd ids and all."""
    cursors = Cursors(b"key")

    assert positions == cursors.open("tools/list", ANONYMOUS, cursors.seal("tools/list", ANONYMOUS, positions))


@given(POSITIONS, st.integers(0, 500), st.sampled_from("AQgw_-9z"))
def test_a_changed_cursor_is_refused_or_the_same(positions, at, letter):
    """Nobody can make an upstream read a cursor it never gave."""
    cursors = Cursors(b"key")
    sealed = cursors.seal("tools/list", ANONYMOUS, positions)
    at %= len(sealed)
    changed = sealed[:at] + letter + sealed[at + 1 :]
    try:
        opened = cursors.open("tools/list", ANONYMOUS, changed)
    except BadCursor:
        return

    assert positions == opened  # only bits that no byte holds may differ


@pytest.mark.parametrize(
    ("method", "caller", "key"),
    [
        ("prompts/list", ANONYMOUS, b"key"),
        ("tools/list", Caller("bob"), b"key"),
        ("tools/list", Caller("anonymous", tenant="acme"), b"key"),
        ("tools/list", ANONYMOUS, b"other"),
    ],
)
def test_a_cursor_belongs_to_its_list_caller_and_key(method, caller, key):
    """Of another one it is none."""
    sealed = Cursors(b"key").seal("tools/list", ANONYMOUS, {"a": first_position("x")})
    with pytest.raises(BadCursor):
        Cursors(key).open(method, caller, sealed)


@given(st.integers(0, 40), st.integers(1, 20))
def test_every_circle_is_found(before, length):
    """However long the way into it and around it; and no way without one is taken for one."""
    way = [f"c{number}" for number in range(before + length)]
    position = first_position(way[0])
    for cursor in way[1:]:
        position = position.advance(cursor)
    laps = iter(range(4 * (before + length) + 4))

    def go_round() -> None:
        nonlocal position
        for lap in laps:
            position = position.advance(way[before + lap % length])

    with pytest.raises(CursorLoop):
        go_round()
