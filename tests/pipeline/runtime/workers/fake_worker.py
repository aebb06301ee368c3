"""
A worker that serves nobody, and does what it is told as fast as a process can: `python fake_worker.py DESCRIPTOR`.

How it behaves stands in the text `mode` of the configuration: `ready` as it should, `dies` at once, `stuck` never ends
by itself, `refuses` to open another configuration, or is `slow` to do so.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time

import msgspec

from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.runtime.workers.messages import (
    Answered,
    Ask,
    Begin,
    Count,
    Counted,
    Drain,
    Hand,
    Order,
    Ping,
    Pong,
    Prepare,
    Prepared,
    Ready,
    Stop,
    Switched,
    Take,
    Verdict,
)

HEAD = struct.Struct("!IB")


def main(descriptor: int) -> None:
    """Obey until told to end, or the supervisor is gone."""
    connection = socket.socket(fileno=descriptor)
    buffer = bytearray()

    def receive() -> Order:
        while len(buffer) < HEAD.size or len(buffer) < HEAD.size + HEAD.unpack_from(buffer)[0]:
            data, descriptors, _, _ = socket.recv_fds(connection, 65536, 4)
            for each in descriptors:
                os.close(each)
            if not data:
                sys.exit(0)
            buffer.extend(data)
        end = HEAD.size + HEAD.unpack_from(buffer)[0]
        order: Order = msgspec.msgpack.decode(bytes(buffer[HEAD.size : end]), type=Order)
        del buffer[:end]
        return order

    def send(message: msgspec.Struct, *descriptors: int) -> None:
        data = msgspec.msgpack.encode(message)
        socket.send_fds(connection, [HEAD.pack(len(data), len(descriptors)) + data], descriptors)

    begin = receive()
    assert isinstance(begin, Begin)
    mode = begin.snapshot.contents["mode"].decode()
    if mode == "dies":
        sys.exit(3)
    send(Ready())
    name, following, taken = mode, mode, 0
    while True:
        match order := receive():
            case Drain() | Stop():
                if mode == "stuck":
                    time.sleep(600)
                sys.exit(0)
            case Prepare():
                following = order.snapshot.contents["mode"].decode()
                time.sleep(0.5 if following == "slow" else 0)
                send(Prepared(number=order.number, problem="it refuses" if following == "refuses" else ""))
            case Verdict():
                name = following if order.serve else name
                send(Switched(number=order.number, notes=["restart for this"] if order.serve else []))
            case Ask():
                if order.path == "/die":
                    sys.exit(1)
                if order.path == "/hang":
                    time.sleep(600)
                if order.path == "/hand":
                    send(Hand(mark=order.query, source="sources.p"), 0)
                said = {"name": name, "slot": begin.slot, "announced": begin.announced, "taken": taken}
                body = msgspec.json.encode(said)
                send(Answered(number=order.number, status=200, content_type="application/json", body=body))
            case Count():
                figures = [Figure("calls_total", 1.0, "counter", "Calls.")]
                send(Counted(number=order.number, figures=figures, distributions=[]))
            case Ping():
                send(Pong(number=order.number))
            case Take():
                taken += 1


if __name__ == "__main__":
    main(int(sys.argv[1]))
