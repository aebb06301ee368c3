"""JSON Pointers, by the examples of RFC 6901."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.protocol.json_pointer import escape, names_in


@pytest.mark.parametrize(
    ("pointer", "names"),
    [
        ("", ()),
        ("/foo", ("foo",)),
        ("/foo/0", ("foo", "0")),
        ("/", ("",)),
        ("/a~1b", ("a/b",)),
        ("/m~0n", ("m~n",)),
        ("/~01", ("~1",)),
    ],
)
def test_the_examples_of_the_standard(pointer: str, names: tuple[str, ...]) -> None:
    """Sections 3 to 5."""
    assert names_in(pointer) == names


@given(st.lists(st.text(max_size=5), max_size=4))
def test_names_come_back_as_they_were(names: list[str]) -> None:
    """Whatever is in them."""
    assert names_in("".join(f"/{escape(name)}" for name in names)) == tuple(names)


def test_what_does_not_begin_with_a_slash_is_no_pointer() -> None:
    """Rather than one that leads somewhere else."""
    with pytest.raises(ValueError, match="begins with /"):
        names_in("foo/bar")
