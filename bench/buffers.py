"""
Whether a pool of read buffers pays (M10, claim HC-01): it does not, so there is none.

    python bench/buffers.py

A message is read from a socket, as the server reads it, and comes out as `bytes`: its message keeps them, and the same
object goes on to the upstream. `recv` makes them with one allocation and one copy out of the kernel. A pool saves that
allocation and needs another one, with a copy more: a buffer goes back to the pool while its message still lives. What
is shown is processor time per message, best of several runs, and how many blocks each message allocates.
"""

from __future__ import annotations

import socket
import time
import tracemalloc
from collections.abc import Callable

SIZES = (200, 10_000, 64_000)
COUNT = 20_000
RUNS = 5
READ = 64 * 1024


def fresh(receiver: socket.socket) -> bytes:
    """As we do it."""
    return receiver.recv(READ)


POOL = [bytearray(128 * 1024) for _ in range(200)]


def pooled(receiver: socket.socket) -> bytes:
    """With a buffer of a pool, which goes back when the message has been taken out of it."""
    buffer = POOL.pop()
    try:
        size = receiver.recv_into(buffer, READ)
        return bytes(memoryview(buffer)[:size])
    finally:
        POOL.append(buffer)


def measure(read: Callable[[socket.socket], bytes], size: int) -> tuple[float, float]:
    """Microseconds of processor time, and blocks allocated, per message."""
    sender, receiver = socket.socketpair()
    data, best = b"x" * size, float("inf")
    with sender, receiver:
        for _ in range(RUNS):
            spent = 0.0
            for _ in range(COUNT):
                sender.send(data)
                before = time.thread_time()
                message = read(receiver)
                spent += time.thread_time() - before
                assert len(message) == size
            best = min(best, spent / COUNT * 1e6)
        tracemalloc.start()
        sender.send(data)
        before_blocks = tracemalloc.take_snapshot()
        message = read(receiver)
        found = tracemalloc.take_snapshot().compare_to(before_blocks, "lineno")
        tracemalloc.stop()
    blocks = sum(each.count_diff for each in found if each.traceback[0].filename == __file__ and each.size_diff > 100)
    return best, blocks


def main() -> None:
    """Print a row for each size."""
    print(f"{'bytes':>8}{'fresh us':>10}{'pooled us':>11}{'blocks':>8}{'pooled':>8}")
    for size in SIZES:
        (one, kept), (other, also) = measure(fresh, size), measure(pooled, size)
        print(f"{size:8}{one:10.2f}{other:11.2f}{kept:8.0f}{also:8.0f}")


if __name__ == "__main__":
    main()
