"""The scripted server as a child process on its standard streams. Usage: child.py PORT legacy|modern"""

from __future__ import annotations

import json
import os
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from crossing.server import Server


def report(book: socket.socket, entry: dict[str, Any]) -> None:
    """Write into the test's book."""
    book.sendall(json.dumps(entry).encode() + b"\n")


def say(message: dict[str, Any]) -> None:
    """Write one message."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serve until standard input ends."""
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as book:
        server = Server(sys.argv[2] == "modern", partial(report, book))
        if not server.modern:
            server.hearers[None] = say
        for line in sys.stdin:
            server.receive(json.loads(line), say, partial(os._exit, 7))


main()
