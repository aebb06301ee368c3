"""
The fuzzing peer: runs cases of `autobahntestsuite` against one implementation. Runs in the environment of the suite.

    python fuzz.py client ws://127.0.0.1:PORT/mcp REPORT PATTERN...     it connects, once for each case
    python fuzz.py server - REPORT PATTERN...                           it prints its port and how many are to come

REPORT is a JSON file: for each case its verdicts and what they rest on. A case that never ended is not in it.
"""

from __future__ import annotations

import json
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
    connectWS,
)
from autobahn.websocket.protocol import WebSocketProtocol
from cases import Cases
from latin import to_bytes
from twisted.internet import reactor

GIVE_UP_S = 170.0
PATIENCE_S = 10.0
"""A second, the default, is short on a machine that others use too."""


def id_of(case: type) -> str:
    """`Case1_2_3` is 1.2.3."""
    return ".".join(case.__name__.removeprefix("Case").split("_"))


def chosen(patterns: list[str]) -> list[type]:
    """The cases to run, in order."""
    cases = [case for case in Cases if any(fnmatchcase(id_of(case), pattern) for pattern in patterns)]
    return sorted(cases, key=lambda case: [int(part) for part in id_of(case).split(".")])


class Run:
    """The cases of one run, and what became of them."""

    def __init__(self, report: Path, cases: list[type]) -> None:
        self.report = report
        self.cases = cases
        self.verdicts: dict[str, dict[str, Any]] = {}
        self.begun = 0

    def next(self) -> type:
        """The case of the next connection."""
        self.begun += 1
        return self.cases[self.begun - 1]

    def judge(self, peer: Any, case: Any, failure: str | None) -> None:
        """Note what a case says when its connection has ended."""
        self.verdicts[id_of(type(case))] = {
            "behavior": case.behavior if failure is None else "BROKEN",
            "close": case.behaviorClose,
            "result": failure or case.result,
            "close_result": case.resultClose,
            "code": peer.remoteCloseCode,
        }

    def end(self) -> None:
        """Write the report and leave."""
        self.report.write_text(json.dumps(self.verdicts), encoding="utf-8")
        if reactor.running:
            reactor.stop()


class Fuzzing:
    """What both kinds of peers do for a case, which speaks in Latin-1 characters where the library has bytes."""

    case: Any = None

    def begin(self) -> None:
        """A connection was made."""
        self.connectionWasOpen = False
        self.createWirelog = False
        self.txFrameStats: dict[int, int] = {}
        self.case = self.factory.run.next()(self)  # type: ignore[attr-defined]  # mixed in

    def connectionLost(self, reason: Any) -> None:  # twisted's name
        super().connectionLost(reason)  # type: ignore[misc]  # mixed in
        failure = None
        try:
            self.case.onConnectionLost(self.failedByMe)  # type: ignore[attr-defined]  # likewise
        except Exception as error:  # a boundary: one case never ends another
            failure = repr(error)
        self.factory.run.judge(self, self.case, failure)  # type: ignore[attr-defined]  # likewise
        self.factory.over()  # type: ignore[attr-defined]  # likewise

    # What a case asks of its peer.

    def enableWirelog(self, _enable: bool) -> None:  # the suite's name, as those below
        """There is none."""

    def continueLater(self, delay: float, then: Any, _tag: str | None = None) -> None:
        reactor.callLater(delay, self._unless_closed, then)

    def killAfter(self, delay: float) -> None:
        reactor.callLater(delay, self._unless_closed, self._fail_connection)  # type: ignore[attr-defined]

    def closeAfter(self, delay: float) -> None:
        reactor.callLater(delay, self._unless_closed, self.sendClose)

    def _unless_closed(self, then: Any) -> None:
        if self.state != WebSocketProtocol.STATE_CLOSED:  # type: ignore[attr-defined]
            then()

    def logTxFrame(self, header: Any, *_: Any) -> None:
        self.txFrameStats[header.opcode] = self.txFrameStats.get(header.opcode, 0) + 1

    def sendFrame(self, opcode: int, payload: str | bytes = b"", **options: Any) -> None:
        super().sendFrame(opcode, payload=to_bytes(payload), **options)  # type: ignore[misc]

    def sendMessage(self, payload: str | bytes, isBinary: bool = False, **options: Any) -> None:
        super().sendMessage(to_bytes(payload), isBinary, **options)  # type: ignore[misc]

    def sendMessageFrameData(self, payload: str | bytes, sync: bool = False) -> Any:
        return super().sendMessageFrameData(to_bytes(payload), sync)  # type: ignore[misc]

    def sendCloseFrame(self, code: int | None = None, reasonUtf8: Any = None, isReply: bool = False) -> None:
        reason = None if reasonUtf8 is None else to_bytes(reasonUtf8)
        super().sendCloseFrame(code, reason, isReply)  # type: ignore[misc]

    def sendClose(self, code: int | None = None, reason: Any = None) -> None:
        reason = to_bytes(reason).decode("utf-8", "replace") if reason is not None else None
        super().sendClose(code, reason)  # type: ignore[misc]

    # What a case is told.

    def onOpen(self) -> None:
        self.connectionWasOpen = True
        self.case.onOpen()

    def onMessage(self, message: bytes, binary: bool) -> None:
        self.case.onMessage(message.decode("latin-1"), binary)

    def onPing(self, payload: bytes) -> None:
        self.case.onPing(payload.decode("latin-1"))

    def onPong(self, payload: bytes) -> None:
        self.case.onPong(payload.decode("latin-1"))

    def onClose(self, clean: bool, code: int | None, reason: str | None) -> None:
        self.case.onClose(clean, code, reason)


class FuzzingClient(Fuzzing, WebSocketClientProtocol):
    """Connects to a server under test."""

    def startHandshake(self) -> None:
        self.begin()
        super().startHandshake()


class FuzzingServer(Fuzzing, WebSocketServerProtocol):
    """A client under test connects to it."""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.begin()


class ClientFactory(WebSocketClientFactory):
    """One connection after the other."""

    protocol = FuzzingClient

    def __init__(self, url: str, run: Run) -> None:
        super().__init__(url)
        self.run = run
        self.logFrames = True
        self.setProtocolOptions(failByDrop=False, serverConnectionDropTimeout=1, closeHandshakeTimeout=PATIENCE_S)

    def over(self) -> None:
        """A case has ended."""
        if self.run.begun < len(self.run.cases):
            reactor.callLater(0, connectWS, self)
        else:
            self.run.end()

    def clientConnectionFailed(self, _connector: Any, reason: Any) -> None:
        print(f"cannot connect: {reason.getErrorMessage()}", file=sys.stderr)
        self.run.end()


class ServerFactory(WebSocketServerFactory):
    """As many connections as there are cases."""

    protocol = FuzzingServer

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.logFrames = True
        self.setProtocolOptions(failByDrop=False, closeHandshakeTimeout=PATIENCE_S)

    def over(self) -> None:
        """A case has ended."""
        if len(self.run.verdicts) == len(self.run.cases):
            self.run.end()


def main() -> None:
    """Run the cases that were asked for."""
    side, url, report, *patterns = sys.argv[1:]
    run = Run(Path(report), chosen(patterns))
    if side == "client":
        connectWS(ClientFactory(url, run))
    else:
        port = reactor.listenTCP(0, ServerFactory(run), interface="127.0.0.1")
        print(port.getHost().port, len(run.cases), flush=True)
    reactor.callLater(GIVE_UP_S, run.end)
    reactor.run()


if __name__ == "__main__":
    main()
