"""
One of several workers (`run.workers`): a program of its own, that the supervisor starts.

It is told everything over the connection that it inherits, whose descriptor is its only argument.
"""

from __future__ import annotations

import faulthandler
import socket
import sys
from functools import partial
from pathlib import Path

import structlog
import trio
from attrs import evolve

from ..config import ConfigError, load
from ..config.texts import Texts
from ..model.document import Document
from ..model.options import ConfigPath
from ..protocol.errors import SluicewayError
from ..replay.recording import open_edges
from ..runtime.serve import COULD_NOT_START, serve
from ..runtime.workers.channel import receive_first
from ..runtime.workers.fleet import LAST_RESORT_S
from ..runtime.workers.link import Link, end_when_orphaned
from ..runtime.workers.messages import Begin, Snapshot
from ..telemetry.log import configure_logging


def main(arguments: list[str]) -> int:
    """Serve until told to stop; the exit code."""
    connection = socket.socket(fileno=int(arguments[0]))
    connection.set_inheritable(False)
    faulthandler.enable()  # a worker that hangs is aborted, and one that crashes in C says where, too
    try:
        begin: Begin = receive_first(connection, Begin)
    except EOFError:
        return COULD_NOT_START
    structlog.contextvars.bind_contextvars(worker=begin.slot)
    try:
        document = read(begin, begin.snapshot)
    except ConfigError as error:  # of plugins, which are read anew
        sys.stderr.write(str(error))
        return COULD_NOT_START
    run = document.run
    configure_logging(run.log_level, run.log_format)
    end_when_orphaned(connection, run.drain_timeout + 2 * run.stop_timeout + LAST_RESORT_S)
    return trio.run(_serve, connection, begin, document)


async def _serve(connection: socket.socket, begin: Begin, document: Document) -> int:
    link = Link(connection, begin, partial(read, begin))
    try:
        return await serve(lambda: document, edges=open_edges, link=link)
    except SluicewayError as error:
        structlog.get_logger().error("worker could not start", error=str(error))
        return COULD_NOT_START
    finally:
        link.close()


def read(begin: Begin, snapshot: Snapshot) -> Document:
    """
    The document of a configuration that the supervisor has read.

    Each worker records in a folder of its own: what one of them removes to make room, another may be writing.

    Raises:
        ConfigError: A plugin that it names is not what it was.
    """
    texts = Texts(
        {Path(name): content for name, content in snapshot.contents.items()},
        {pattern: tuple(map(Path, names)) for pattern, names in snapshot.matches.items()},
    )
    document = load(Path(begin.file), overlays=[Path(each) for each in begin.overlays], given=texts)
    record = document.run.record
    if record is None:
        return document
    record = evolve(record, folder=ConfigPath(record.folder / f"worker-{begin.slot}"))
    return evolve(document, run=evolve(document.run, record=record))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
