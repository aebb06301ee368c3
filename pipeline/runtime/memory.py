"""
What the collector of cycles may cost a running gateway.

A gateway keeps some 40,000 objects for as long as it runs: modules, classes, its configuration. Python's collector
walks through all of them whenever enough has been made since; that is a pause of 20 ms and more in which nobody is
answered. So what is there when a gateway is ready, or has been given another configuration, is put aside, and nothing
looks at it again (`gc.freeze`).

What is made afterwards goes when its last user is done with it: a call ends without leaving a cycle (tests hold it to
that). The collector is for what ends otherwise, connections and failures, and comes seldom.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

THRESHOLDS: Final = (10_000, 3, 5)
"""
How many objects more are made than went before the youngest are looked at, and after how many passes the next older.

Sixty-four calls at once are some 5,000 objects that come and go; Python's own 700, and 2,000 too, are passed with each
burst of them, and a pass finds nothing: 6 % of the CPU of the full chain. A pass over 10,000 takes a millisecond. What
may lie uncollected is bounded by the product: 150,000 objects, some 20 MiB, if all that is made were garbage.
"""


def settle() -> None:
    """
    Put aside everything there is now, once what is no longer used has been collected.

    Takes as long as one pass through everything, 20 to 30 ms. What was put aside before and has become garbage since,
    such as a former configuration, is collected, too.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@contextmanager
def short_pauses() -> Iterator[None]:
    """A block in which the collector comes seldom and does little; afterwards it is as it was, and nothing is aside."""
    before = gc.get_threshold()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
