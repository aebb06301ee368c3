"""Tests for messages in a response: a body is long once more was read than is held, and nothing of it is lost then."""

from __future__ import annotations

import json

import pytest

from sluiceway.pipeline.protocol.codec import encode_message
from sluiceway.pipeline.protocol.gate import Limits
from sluiceway.pipeline.protocol.messages import Response as Answer
from sluiceway.transports.http_client.faults import Faults
from sluiceway.transports.http_client.parser import Head
from sluiceway.transports.http_client.response import Response
from sluiceway.transports.http_upstream.incoming import Incoming
from sluiceway.transports.http_upstream.long_result import HELD, LongResult

RECORDS = [{"id": number, "text": f'line {number}, with "quotes" and {{brackets}}'} for number in range(12_000)]
RESULT = {"content": [], "structuredContent": {"rows": RECORDS}}


class Pieces(Response):
    """A response whose body comes as these."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__(Head(200, {"content-type": "application/json"}))
        self._pieces = list(pieces)

    @property
    def complete(self) -> bool:
        return not self._pieces

    def close(self) -> None:
        self._pieces.clear()

    finish = close

    async def chunk(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def incoming(pieces: list[bytes]) -> Incoming:
    """What reads them."""
    return Incoming("sinks.up", Pieces(pieces), Faults("sinks.up", 2**30), Limits(), 30, lambda _: None)


def cut(body: bytes, *sizes: int) -> list[bytes]:
    """A body in pieces of these sizes, and the rest in pieces of 64 KiB."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(body[at : at + size])
        at += size
    return pieces + [body[start : start + 65536] for start in range(at, len(body), 65536)]


@pytest.mark.parametrize("sizes", [(), (10,), (1, 2, 3), (4095,), (4096,), (HELD,), (HELD + 1,)])
async def test_every_byte_of_a_long_result_is_passed_on_in_order(sizes: tuple[int, ...]) -> None:
    """However small the pieces are in which it begins."""
    body = json.dumps({"jsonrpc": "2.0", "id": 7, "result": RESULT}).encode()
    assert len(body) > 2 * HELD
    found = await incoming(cut(body, *sizes)).next_or_long()
    assert isinstance(found, LongResult)
    taken = [found._first]
    while data := await found._more():
        taken.append(found._pieces.feed(data))

    assert found._pieces.end() == 7
    assert json.loads(b"".join(taken)) == RESULT


async def test_a_long_body_whose_result_does_not_come_first_is_read_whole() -> None:
    """Where it begins cannot be told without reading what stands before it."""
    body = json.dumps({"x": [], "jsonrpc": "2.0", "id": 7, "result": RESULT}).encode()
    found = await incoming(cut(body, 100)).next_or_long()

    assert isinstance(found, Answer)
    assert json.loads(encode_message(found))["result"] == RESULT


async def test_a_short_body_in_pieces_is_one_message() -> None:
    """As many pieces as it comes in."""
    body = json.dumps({"jsonrpc": "2.0", "id": 7, "result": {"content": []}}).encode()
    found = await incoming([body[:9], body[9:20], body[20:]]).next_or_long()

    assert isinstance(found, Answer)
    assert found.id == 7
