"""Content blocks that no other test renders."""

from __future__ import annotations

import pytest

from sluiceway.transports.embedded import Block, Contents, Link


def test_the_base_of_blocks_is_abstract() -> None:
    """A block without a kind cannot be sent."""
    with pytest.raises(TypeError, match="abstract"):
        Block().render()


def test_everything_said_about_a_link_is_sent() -> None:
    """All members of `ResourceLink`."""
    link = Link("r://1", "one", "One", "The first", "text/plain", 7)

    assert {
        "type": "resource_link", "uri": "r://1", "name": "one", "title": "One", "description": "The first",
        "mimeType": "text/plain", "size": 7,
    } == link.render()  # fmt: skip


def test_contents_have_a_type_by_what_they_are() -> None:
    """Text is `text/plain`, bytes are `application/octet-stream`, unless said otherwise."""
    assert ["text/plain", "application/octet-stream", "a/b"] == [
        each.render()["mimeType"] for each in (Contents("x"), Contents(b"x"), Contents("x", "a/b"))
    ]
