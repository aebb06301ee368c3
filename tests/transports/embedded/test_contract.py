"""The sink under the contract checker."""

from __future__ import annotations

import pytest

from sluiceway.pipeline.testing import check_sink
from sluiceway.transports.embedded.sink import EmbeddedSink


@pytest.mark.parametrize("config", [{}, {"store": "notes", "page_size": 2}])
def test_the_sink_keeps_the_contract_of_sinks(config: dict[str, object]) -> None:
    """Pure to make, opens and closes twice, survives a cancel at every checkpoint, leaves nothing."""
    samples = (
        ("tools/list", {}),
        ("tools/call", {"name": "countdown", "arguments": {"seconds": 2}, "_meta": {"progressToken": 1}}),
        ("tools/call", {"name": "book_table", "arguments": {"restaurant": "X"}}),
        ("resources/read", {"uri": "note://x"}),
        ("unknown/method", {}),
    )

    check_sink(EmbeddedSink, config, samples=samples)
