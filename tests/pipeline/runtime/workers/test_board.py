"""Counts that several processes share."""

from __future__ import annotations

import os

from sluiceway.pipeline.runtime.workers.board import Board


def test_who_has_more_than_another_one_that_accepts_is_not_the_least() -> None:
    """Vacant slots do not count, and equals are both the least."""
    board = Board.make(3)
    other = Board(os.dup(board.descriptor), 3)

    assert board.least(7) == 7
    board.set(0, 2)
    other.set(2, 2)
    assert (board.connections(0), board.connections(1), board.connections(2)) == (2, None, 2)
    assert (other.least(2), other.least(3), other.least(1)) == (2, 2, 1)
    other.vacate(2)
    board.vacate(0)
    assert other.least(3) == 3
    other.set(1, 0)
    assert board.connections(1) == 0
    assert board.least(1) == 0
    other.close()
    board.close()
