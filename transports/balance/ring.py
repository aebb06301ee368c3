"""
A consistent hash ring with virtual nodes (Karger and others, 1997), hashed with xxh3.

Every upstream owns as many points of the ring as its weight says; a key belongs to whoever owns the next point. Who is
not eligible is passed over, so only its own keys move, to the neighbours of its many points, and they come back with
it. The points depend on nothing but ids and weights: every process, and every restart, has the same ring.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import final

from xxhash import xxh3_64_intdigest


@final
class Ring:
    """
    Args:
        weights: Of each upstream, by its id; 0 for no points.
        virtual_nodes: Points for each unit of weight.
    """

    def __init__(self, weights: Mapping[str, int], virtual_nodes: int) -> None:
        placed = sorted(
            (xxh3_64_intdigest(f"{node}:{number}".encode()), node)
            for node, weight in weights.items()
            for number in range(weight * virtual_nodes)
        )
        self._points = [point for point, _ in placed]
        self._owners = [node for _, node in placed]

    def __len__(self) -> int:
        return len(self._points)

    def walk(self, key: bytes) -> Iterator[str]:
        """
        The owners of the points from a key's place on, once around; the same one may come several times.

        The first point at or after the key is meant; after the last comes the first.
        """
        owners = self._owners
        start = bisect_left(self._points, xxh3_64_intdigest(key))
        for index in range(start, len(owners)):
            yield owners[index]
        for index in range(start):
            yield owners[index]
