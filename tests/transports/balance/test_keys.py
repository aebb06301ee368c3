"""What belongs together."""

from __future__ import annotations

import pytest

from sluiceway.pipeline.model.session import Caller, Client
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.testing import legacy_client, memory_exchange
from sluiceway.transports.balance.keys import key_of

PARAMS = {"name": "search", "arguments": {"repository": {"name": "x", "ids": [2, 1]}}}
HEADERS = Client(era=Era.MODERN, version="2026-07-28", headers={"x-shard": "7"})


@pytest.mark.parametrize(
    ("on", "exchange", "key"),
    [
        ("caller", memory_exchange(caller=Caller("ada", "acme", how="bearer")), b"acme\0caller:ada"),
        ("caller", memory_exchange(client=legacy_client(session_id="s")), b"\0session:s"),
        ("tenant", memory_exchange(caller=Caller("ada", "acme")), b"acme"),
        ("tenant", memory_exchange(caller=Caller("ada")), None),
        ("session", memory_exchange(client=legacy_client(session_id="s")), b"s"),
        ("session", memory_exchange(), None),
        ("target", memory_exchange("tools/call", PARAMS), b"search"),
        ("target", memory_exchange("tools/list"), None),
        ("header:X-Shard", memory_exchange(client=HEADERS), b"7"),
        ("header:x-other", memory_exchange(client=HEADERS), None),
        ("argument:repository.name", memory_exchange("tools/call", PARAMS), b'"x"'),
        ("argument:repository.ids", memory_exchange("tools/call", PARAMS), b"[2,1]"),
        ("argument:repository.name.first", memory_exchange("tools/call", PARAMS), None),
        ("argument:owner", memory_exchange("tools/call", {"name": "search"}), None),
    ],
)
def test_keys_are_taken_from_the_exchange(on, exchange, key):
    """Or there is none."""
    assert key_of(on)(exchange) == key
