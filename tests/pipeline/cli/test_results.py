"""Results as text."""

import pytest

from sluiceway.pipeline.cli.results import render_result


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"content": []}, ""),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "a\nb"),
        ({"content": [{"type": "text", "text": "\x1b[2Ja\tb"}]}, "?[2Ja b"),
        ({"content": [{"type": "image", "mimeType": "image/png", "data": "YWJj"}]}, "[image, image/png, 3 bytes]"),
        ({"content": [{"type": "audio", "data": "YQ=="}]}, "[audio, unknown type, 1 bytes]"),
        ({"content": [{"type": "image", "data": None}]}, "[image, unknown type, 0 bytes]"),
        ({"content": [{"type": "resource_link", "uri": "demo://a"}]}, "[resource demo://a]"),
        ({"content": [{"type": "resource", "resource": {"uri": "demo://a", "text": "hi"}}]}, "hi"),
        ({"content": [{"type": "resource", "resource": {"uri": "demo://a", "blob": "YQ=="}}]}, "[resource demo://a]"),
        ({"content": [{"type": "hologram"}]}, "[hologram]"),
        ({"content": [], "structuredContent": {"a": 1}}, '{\n  "a": 1\n}'),
        ({"content": [{"type": "text", "text": "a"}], "structuredContent": {"a": 1}}, "a"),
    ],
)
def test_every_kind_of_content_has_a_text(result, text):
    """Terminal controls are taken out, binary data is described."""
    assert text == render_result(result)
