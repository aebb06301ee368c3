"""Ids that nobody can guess, and nobody gets twice."""

from __future__ import annotations

import os
import re

from sluiceway.pipeline.runtime import ids
from sluiceway.pipeline.runtime.ids import random_id


def test_ids_are_128_bits_in_hex_and_no_two_are_alike() -> None:
    """Also beyond what is asked of the system at once."""
    made = [random_id() for _ in range(1000)]

    assert len(set(made)) == 1000
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in made)


def test_the_bytes_are_the_systems_own() -> None:
    """Each id is as many of the system's bytes, and none is used for two."""
    ids._left.clear()
    random_id()

    assert len(ids._left) == 127
    assert len(set(ids._left)) == 127


def test_a_forked_process_has_ids_of_its_own() -> None:
    """What the parent holds is not given out by the child as well."""
    random_id()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover  # another process
        os.write(write, random_id().encode())
        os._exit(0)
    os.close(write)
    theirs = os.read(read, 64).decode()
    os.close(read)
    os.waitpid(child, 0)

    assert re.fullmatch("[0-9a-f]{32}", theirs)
    assert theirs not in [random_id() for _ in range(200)]
