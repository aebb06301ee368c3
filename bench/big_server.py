"""The server that `stalled.py` has behind its gateway: one tool says a lot, one says little."""

from sluiceway.transports.embedded.server import Server

SIZE = 256 * 1024
server = Server("big")


@server.tool()
def big() -> str:
    """As much as a client should read."""
    return "x" * SIZE


@server.tool()
def small() -> str:
    """Next to nothing."""
    return "x"
