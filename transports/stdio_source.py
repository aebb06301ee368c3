"""
The gateway as a server that a client starts: one client, on our own standard input and output (MCP, transports, stdio).

The client is gone when its end of our input closes. Then what it still has in flight is cancelled, what is already
answered is written out, and `serve` returns, which ends the gateway.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final, final

import trio
from attrs import frozen
from trio.abc import ReceiveStream, SendStream

from sluiceway.pipeline.model.component import Context, Source, source
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.handle import Handle
from sluiceway.pipeline.model.options import KIB, MIB, Size, option
from sluiceway.pipeline.protocol.codec import StreamDecoder
from sluiceway.pipeline.protocol.gate import Limits
from sluiceway.pipeline.runtime.nursery import farewell, open_background_nursery

from .connection import Connection
from .outbox import Outbox
from .pipes import portions
from .standard_streams import standard_streams

_LAST_WRITE_S: Final = 1.0
"""How long a client that has hung up may take to read what was already answered."""


@final
@frozen
class StdioSourceConfig:
    """Options of the `stdio` source."""

    max_message: Size = option(
        10 * MIB, ge=1 * KIB, doc="Longest message the client may send; a longer one is refused.", example="10MiB"
    )
    max_in_flight: int = option(
        64, ge=1, doc="Requests of the client under way at once; above this they are refused.", example=64
    )
    max_unread: Size = option(
        16 * MIB, ge=1 * KIB, doc="Bytes that may wait for the client to read them; above this exchanges wait.",
        example="16MiB",
    )  # fmt: skip


@final
@source("stdio")
class StdioSource(Source):
    """
    Serve the one client that started this process.

    Args:
        config: Its options.
        context: Its surroundings.
        reader: Where the client's messages come from; standard input when None.
        writer: Where ours go; standard output when None.
    """

    Config = StdioSourceConfig
    ends = True

    def __init__(
        self,
        config: StdioSourceConfig,
        context: Context,
        *,
        reader: ReceiveStream | None = None,
        writer: SendStream | None = None,
    ) -> None:
        super().__init__(config, context)
        self._config = config
        self._reader = reader
        self._writer = writer
        self._connection: Connection | None = None
        self._draining = False

    def figures(self) -> Iterator[Figure]:
        """Whether its one client is there."""
        there = float(self._connection is not None)
        yield Figure("mcp_active_connections", there, "gauge", "Connections of clients.")

    def stop_accepting(self) -> None:
        """Refuse new requests; what is under way goes on."""
        self._draining = True
        if self._connection is not None:
            self._connection.stop_accepting()

    async def serve(self, handle: Handle) -> None:
        """Serve until the client hangs up."""
        outbox, written = Outbox(self._config.max_unread), trio.Event()
        with ExitStack() as stack:
            reader, writer = self._reader, self._writer
            if reader is None or writer is None:
                reader, writer = stack.enter_context(standard_streams())
            async with open_background_nursery() as background:
                try:
                    async with trio.open_nursery() as exchanges:
                        background.start_soon(self._write, outbox, writer, exchanges.cancel_scope, written)
                        await self._read(reader, self._connect(handle, exchanges, outbox))
                        exchanges.cancel_scope.cancel()
                finally:
                    self._disconnect()
                    outbox.close()
                    with farewell(_LAST_WRITE_S):
                        await written.wait()  # noqa: ASYNC102  # farewell is a bounded shield

    def _connect(self, handle: Handle, exchanges: trio.Nursery, outbox: Outbox) -> Connection:
        connection = self._connection = Connection(
            self.context,
            handle,
            exchanges,
            outbox,
            transport="stdio",
            max_in_flight=self._config.max_in_flight,
        )
        if self._draining:
            connection.stop_accepting()
        return connection

    def _disconnect(self) -> None:
        """Its exchanges have ended, so nothing stands on the session any more."""
        assert self._connection is not None
        self._connection.close()
        self._connection = None

    async def _read(self, reader: ReceiveStream, connection: Connection) -> None:
        decoder = StreamDecoder(limits=Limits(max_message_size=self._config.max_message))
        try:
            while data := await reader.receive_some():
                for portion in portions(bytes(data)):
                    if len(portion) < len(data):
                        await trio.lowlevel.checkpoint()
                    for item in decoder.feed(portion):
                        connection.receive(item)
            for item in decoder.end():
                connection.receive(item)
        except trio.BrokenResourceError:
            self.context.log.info("the client is gone", stream="stdin")

    async def _write(
        self, outbox: Outbox, writer: SendStream, exchanges: trio.CancelScope, written: trio.Event
    ) -> None:
        try:
            await outbox.run(writer)
        except trio.BrokenResourceError:
            self.context.log.info("the client is gone", stream="stdout")
            outbox.close()
            exchanges.cancel()
        written.set()
