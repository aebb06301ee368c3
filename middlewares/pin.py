"""
`pin`: tools stay what they were when somebody approved them.

`sluiceway lock` writes the digests of all tools into a file; this stage hides a tool that is no longer what the file
says, refuses calls of it, and tells clients that the list has changed, until an operator approves the tool as it is.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, Final, Literal, final
from weakref import WeakSet

import trio
from attrs import frozen

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import ConfigPath, option
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.model.pins import changes_between, contract_digest, merge_lock, read_lock
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.model.tools import CALL, LIST, Tool, ToolBook, tools_in
from sluiceway.pipeline.protocol.errors import ComponentError, PinMismatch
from sluiceway.pipeline.protocol.messages import Json, Notification, Reply, Result
from sluiceway.pipeline.telemetry.redaction import clip

MAX_SEEN: Final = 10_000
"""Tools whose latest definition is kept, to approve it by."""
_CHANGED: Final = Notification("notifications/tools/list_changed")


@final
@middleware("pin")
class Pin(Middleware):
    """
    Hide and refuse tools whose contract is not the one in the lock file.

    * The contract is all of a tool but `_meta` and `icons`. Its digest is compared whenever a list passes and whenever
      a tool is called, so no client ever sees a definition that was not approved.
    * A tool that has changed is quarantined: hidden in lists, refused with `pin_mismatch`, and the sessions that have
      listed tools here are told `list_changed`. Once it is again what the file says, it is back by itself.
    * A tool that the file does not know is hidden, too, unless `unknown` allows it.
    * `sluiceway lock` writes the file and shows what has changed; `sluiceway act` with `approve` does it in a running
      gateway, for the tools as they were seen last.

    Raises:
        PinMismatch: HTTP 409; nothing was sent upstream.
    """

    reads_results = False
    role = "pin"
    replays = True
    order = (
        Order("before", "cache", "warning", "answers from the cache would come from tools that are quarantined by now"),
        Order("before", "dedup", "info", "calls would wait for the call of a tool that is quarantined by now"),
        Order("after", "access", "info", "tools that the caller may not use would be looked up for it"),
    )
    actions: ClassVar[Mapping[str, str]] = {
        "drift": "Show which tools differ from the lock file.",
        "approve": "Write tools as they are now into the lock file: all, or those in `tools`, separated by commas.",
        "why": "Say whether a tool may be called, and why not.",
    }

    @frozen
    class Config:
        """Options of `pin`."""

        lock: ConfigPath = option(doc="The lock file; `sluiceway lock` makes it.", example="./tools.lock.json")
        unknown: Literal["hide", "allow"] = option("hide", doc="What becomes of tools that the file does not know.")
        on_drift: Literal["quarantine", "log"] = option(
            "quarantine", doc="What becomes of tools that have changed: they are quarantined, or only complained of."
        )

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._path = Path(str(config.lock))
        self._locked: dict[str, str] = {}
        self._seen: dict[str, Tool] = {}
        self._drifted: dict[str, str] = {}
        self._book = ToolBook(max_tools=MAX_SEEN)
        self._sessions: WeakSet[Session] = WeakSet()
        self._refused = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Read the lock file, and listen for changes of tools.

        Raises:
            ComponentError: It is not there, or is no lock file.
        """
        self._locked = self._read()
        stop = self.context.changes.listen(self._book.forget)
        try:
            yield
        finally:
            stop()
            self._book.forget()
            self._seen.clear()
            self._drifted.clear()

    def _read(self) -> dict[str, str]:
        try:
            return read_lock(self._path.read_bytes())
        except OSError as error:
            remedy = "`sluiceway lock` with the configuration's file makes it"
            raise ComponentError(self.context.id, "open", f"{self._path}: {error.strerror}; {remedy}") from error
        except ValueError as error:
            raise ComponentError(self.context.id, "open", f"{self._path}: {error}") from error

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Filter lists; refuse calls of what is not pinned."""
        if exchange.method == LIST:
            exchange.hold()
            reply = await call_next(exchange)
            self._book.learn(exchange, reply)
            if exchange.client.session is not None:
                self._sessions.add(exchange.client.session)
            return self._filtered(exchange, reply)
        if exchange.method == CALL:
            tool = await self._book.find(exchange, call_next)
            if tool is not None and not self._stands(tool):
                self._refused += 1
                exchange.decide(self.context.id, "refuse", "pin_mismatch")
                raise PinMismatch(
                    f"{clip(tool.name)} is not the tool that was approved; an operator has to approve it as it is now"
                )
        return await call_next(exchange)

    def _filtered(self, exchange: Exchange, reply: Reply) -> Reply:
        if not isinstance(reply, Result):
            return reply
        hidden = {tool.name for tool in tools_in(reply) if not self._stands(tool)}
        if not hidden:
            return reply
        exchange.decide(self.context.id, "hide", f"{len(hidden)} tools")
        kept = [each for each in reply.value["tools"] if not isinstance(each, dict) or each.get("name") not in hidden]
        return Result({**reply.value, "tools": kept})

    def _stands(self, tool: Tool) -> bool:
        """Whether a tool may be seen as it is; notes what it is like, and says so once if it has changed."""
        name, found = tool.name, contract_digest(tool)
        if name in self._seen or len(self._seen) < MAX_SEEN:
            self._seen[name] = tool
        expected = self._locked.get(name)
        if expected == found:
            if self._drifted.pop(name, None) is not None:
                self._tell(name, "tool is again what was approved")
            return True
        if expected is None:
            return bool(self.config.unknown == "allow")
        if self._drifted.get(name) != found:
            self._drifted[name] = found
            self._tell(name, "tool differs from what was approved", expected=expected, found=found)
        return bool(self.config.on_drift == "log")

    def _tell(self, name: str, event: str, **more: str) -> None:
        self.context.log.warning(event, tool=clip(name), **more)
        for session in tuple(self._sessions):
            if not session.closed:
                session.notify(_CHANGED)

    async def act(self, action: str, arguments: Mapping[str, Json]) -> Json:
        """`drift` or `approve`: both answer with the names of tools by kind of change. `why`: as `access` answers."""
        if action == "drift":
            return {**self._changes(self._seen)}
        if action == "why":
            return await self._why(arguments)
        if action != "approve":
            return await super().act(action, arguments)
        wanted = arguments.get("tools")
        names = str(wanted).split(",") if wanted else list(self._seen)
        missing = sorted(set(names) - self._seen.keys())
        if missing:
            raise ValueError(f"no tool {', '.join(missing)} was seen; list the tools first, or use sluiceway lock")
        approved = {name: self._seen[name] for name in names}
        changes = self._changes(approved)
        await trio.to_thread.run_sync(self._write, approved)
        for name, tool in approved.items():
            self._locked[name] = contract_digest(tool)
            self._drifted.pop(name, None)
            self._tell(name, "tool approved")
        return {**changes}

    async def _why(self, question: Mapping[str, Json]) -> Json:
        """What is known of a tool by its name. Whether it has changed, only a running stage that has seen it knows."""
        name = question.get("name")
        if question.get("method") != CALL or not isinstance(name, str):
            await trio.lowlevel.checkpoint()
            return _answer(allowed=True, reason="no tool is called")
        try:
            locked = self._locked or await trio.to_thread.run_sync(self._read)
        except ComponentError as error:
            return _answer(allowed=False, reason=str(error))
        if name not in locked:
            allowed = self.config.unknown == "allow"
            return _answer(
                allowed=allowed, reason=f"the lock file does not know it, and unknown is {self.config.unknown}"
            )
        if name in self._drifted:
            allowed = self.config.on_drift == "log"
            return _answer(allowed=allowed, reason="it is not what was approved")
        return _answer(allowed=True, reason="the lock file has it, as long as it is what was approved")

    def _changes(self, tools: Mapping[str, Tool]) -> dict[str, list[str]]:
        new = {name: contract_digest(tool) for name, tool in tools.items()}
        return changes_between({name: digest for name, digest in self._locked.items() if name in new}, new)

    def _write(self, approved: Mapping[str, Tool]) -> None:
        """Replace the file at once; what it says of other tools stays. In a thread."""
        merged = merge_lock(self._path.read_bytes(), approved.values())
        with tempfile.NamedTemporaryFile(dir=self._path.parent, prefix=self._path.name, delete=False) as new:
            new.write(merged)
        os.chmod(new.name, self._path.stat().st_mode & 0o777)
        os.replace(new.name, self._path)

    def details(self) -> Mapping[str, Json]:
        """Tools in the lock file, and those that are not what it says."""
        return {"locked": len(self._locked), "drifted": sorted(self._drifted)[:20]}

    def figures(self) -> Iterable[Figure]:
        """Counters."""
        return (
            Figure("pin_drifted", len(self._drifted), "gauge", "Tools that are not what was approved."),
            Figure("pin_refused_total", self._refused, "counter", "Calls of tools that were not approved."),
        )


def _answer(*, allowed: bool, reason: str) -> Json:
    return {"allowed": allowed, "reason": reason, "rule": "", "scopes": [], "rules": []}
