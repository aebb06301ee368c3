"""
What a sink knows of its upstream's tools: which arguments clients mirror into `Mcp-Param-*` headers (SEP-2243).

The annotations stand in `tools/list`. A sink learns from every such answer that passes, and lists for itself where it
must know. Most servers annotate nothing, so an answer is decoded only if the word occurs in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

import trio
from msgspec.structs import replace

from sluiceway.pipeline.model.changes import LIST_CHANGES
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.tools import CALL, LIST, MAX_PAGES, tools_in
from sluiceway.pipeline.protocol.errors import UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import Kind, quiet_meta
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, Result

from .mirrored import ANNOTATION, Mirrored, check_mirrored, mirror, mirrored_of

MAX_TOOLS: Final = 1000
"""Tools with annotations that are remembered for one upstream; of more, those listed first are forgotten."""
_WORD: Final = ANNOTATION.encode()
_PREFIX: Final = "mcp-param-"


@final
class Mirrors:
    """The annotated tools of one upstream, by name."""

    def __init__(self) -> None:
        self._tools: dict[str, tuple[Mirrored, ...]] = {}
        self._complete = False

    def __len__(self) -> int:
        return len(self._tools)

    def learn(self, exchange: Exchange, reply: Reply) -> None:
        """Take in an answer, if it is one to `tools/list`. One that does not pass the gate is left to its reader."""
        if exchange.method != LIST or not isinstance(reply, Result) or not self._matters(reply):
            return
        try:
            tools = list(tools_in(reply))
        except UpstreamProtocolError:
            return
        for tool in tools:
            self._tools.pop(tool.name, None)
            try:
                annotated = mirrored_of(tool.input_schema)
            except ValueError:  # clients drop such a tool
                continue
            if annotated:
                self._tools[tool.name] = annotated
                if len(self._tools) > MAX_TOOLS:
                    del self._tools[next(iter(self._tools))]

    def heard(self, notification: Notification) -> None:
        """Take in what the upstream says: if its tools have changed, they are looked up again when they are needed."""
        if LIST in LIST_CHANGES.get(notification.method, ()):
            self._tools.clear()
            self._complete = False

    def headers(self, exchange: Exchange) -> Mapping[str, str]:
        """
        The headers that the arguments of a call stand in, values as text; none if the tool is not known.

        Only for clients that have sent none: those of others are passed on, for their server to compare.
        """
        if exchange.method != CALL or exchange.client.transport == "http":
            return {}
        return mirror(self._of(exchange), exchange.request.params.get("arguments"))

    def concern(self, exchange: Exchange) -> bool:
        """Whether a call has headers or arguments that have to be compared. `check` does nothing for any other."""
        client = exchange.client
        if exchange.method != CALL or client.transport != "http":
            return False
        if exchange.target in self._tools:
            return True
        headers = client.headers  # on the way of every call: all names together are looked at sooner than each of them
        return _PREFIX in "\n".join(headers) and any(name.startswith(_PREFIX) for name in headers)

    async def check(self, exchange: Exchange, call: Service) -> None:
        """
        Compare a call's headers with its arguments, in the place of a server that sees no headers.

        Lists the tools if a header has to be judged and the tool is not known.

        Raises:
            HeaderMismatch: They do not agree.
            GatewayError: As `call` does.
        """
        if not self.concern(exchange):
            return
        if not self._of(exchange):
            await self.find(exchange, call)
        check_mirrored(self._of(exchange), exchange.request.params.get("arguments"), exchange.client.headers)

    async def find(self, exchange: Exchange, call: Service, *, again: bool = False) -> bool:
        """
        List the tools in the name of a call's client, unless that has been done and nothing has changed.

        Args:
            exchange: The call.
            call: Asks the upstream.
            again: List them in any case.

        Returns:
            Whether the call's headers are other ones than before.
        """
        if self._complete and not again:
            return False
        before, cursor = self._of(exchange), None
        for _ in range(MAX_PAGES):
            listing = _listing(exchange, cursor)
            reply = await call(listing)
            if not isinstance(reply, Result):
                return False
            self.learn(listing, reply)
            following = reply.value.get("nextCursor")
            if not isinstance(following, str) or following == cursor:
                self._complete = True
                break
            cursor = following
        return self._of(exchange) != before

    def _of(self, exchange: Exchange) -> tuple[Mirrored, ...]:
        return self._tools.get(exchange.target or "", ())

    def _matters(self, reply: Result) -> bool:
        return bool(self._tools) or _WORD in reply.raw


def _listing(exchange: Exchange, cursor: str | None) -> Exchange:
    """A `tools/list` as the same client would send it; what comes beside its answer is nobody's."""

    async def drop(_exchange: Exchange, _notification: Notification) -> None:
        await trio.lowlevel.checkpoint()

    request = exchange.request
    assert isinstance(request, Request)
    meta = quiet_meta(request.params)
    params = {"_meta": meta} if cursor is None else {"_meta": meta, "cursor": cursor}
    return replace(exchange, request=Request(request.id, LIST, params), kind=Kind.CALL, marks={}, way_back=drop)
