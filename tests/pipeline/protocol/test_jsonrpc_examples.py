"""The 15 examples of the JSON-RPC 2.0 specification, section 7, and what becomes of each in MCP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sluiceway.pipeline.protocol.codec import decode_batch
from sluiceway.pipeline.protocol.errors import GatewayError, InvalidMessage, ParseError
from sluiceway.pipeline.protocol.messages import Notification, Request

EXAMPLES = json.loads((Path(__file__).parents[2] / "data" / "jsonrpc-examples.json").read_text(encoding="utf-8"))


def test_all_fifteen_are_there() -> None:
    """Section 7 of the specification."""
    assert len(EXAMPLES) == 15


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e["name"])
def test_each_example_has_its_outcome(example: dict[str, Any]) -> None:
    """Requests keep the id's type; errors carry the id where the message is one request."""
    text = example["text"].encode()
    if example["outcome"] in ("parse error", "invalid"):
        with pytest.raises(ParseError if example["outcome"] == "parse error" else InvalidMessage) as caught:
            decode_batch(text)
        assert example["id"] == caught.value.request_id
        return
    message = decode_batch(text)

    if example["outcome"] == "batch":
        assert isinstance(message, list)
        assert example["elements"] == [_outcome(each) for each in message]
        return
    if example["outcome"] == "request":
        assert isinstance(message, Request)
        assert example["id"] == message.id
        assert text == message.raw
    else:
        assert isinstance(message, Notification)
    assert json.loads(text)["method"] == message.method


def _outcome(element: object) -> list[object]:
    """What became of an element of a batch, and the id that its answer has."""
    if isinstance(element, GatewayError):
        return [type(element).__name__, element.request_id]
    return [type(element).__name__, element.id if isinstance(element, Request) else None]
