"""Content by its hash: once, counted, bounded."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.model.keys import canonical
from sluiceway.pipeline.protocol.errors import CapacityExceeded
from sluiceway.pipeline.stores.content import MISSING, ContentStore


def test_equal_content_is_held_once() -> None:
    """The hash is SHA-256 over the canonical form, so the order of members makes no difference."""
    store = ContentStore()
    one, other = store.store({"a": 1, "b": [2]}), store.store({"b": [2], "a": 1})

    assert one == other == sha256(canonical({"a": 1, "b": [2]})).hexdigest()
    assert (len(store), store.stored, store.duplicates, store.bytes) == (1, 1, 1, 15)


@pytest.mark.parametrize("value", [0, "", False, None, [], {}, 0.0])
def test_content_that_counts_as_false_is_read_back(value: object) -> None:
    """What is not there is `MISSING`, which is none of them."""
    store = ContentStore()

    assert store.retrieve(store.store(value)) == value
    assert store.retrieve("0" * 64) is MISSING
    assert not MISSING
    assert repr(MISSING) == "MISSING"


def test_what_does_not_fit_is_refused() -> None:
    """What is there already needs no room."""
    store = ContentStore(max_bytes=4)
    store.keep(b"abc")
    store.keep(b"abc")

    with pytest.raises(CapacityExceeded):
        store.keep(b"de")
    assert (len(store), store.bytes) == (1, 3)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([b"a", b"bb", b""])), max_size=40))
def test_content_is_there_as_long_as_somebody_keeps_it(steps: list[tuple[bool, bytes]]) -> None:
    """Any order of keeping and releasing; releasing what is not there changes nothing."""
    store, kept = ContentStore(), {b"a": 0, b"bb": 0, b"": 0}
    for is_keeping, content in steps:
        if is_keeping:
            store.keep(content)
            kept[content] += 1
        else:
            store.release(sha256(content).hexdigest())
            kept[content] = max(0, kept[content] - 1)

        assert {c: store.get(sha256(c).hexdigest()) for c in kept} == {c: c if n else None for c, n in kept.items()}
        assert store.bytes == sum(len(c) for c, n in kept.items() if n)
