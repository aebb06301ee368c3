"""What `sluiceway replay` does with gateways that run: send them a tape's requests, or be their upstreams."""

from __future__ import annotations

import ipaddress
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..protocol.errors import SluicewayError
from .exits import Exit, Failure, usage
from .output import Format, emit, emit_json, printable, say

if TYPE_CHECKING:
    from ..client.client import McpClient
    from ..model.document import Document
    from ..protocol.mcp import Era
    from ..replay.live import Resent
    from ..replay.reading import Tape


def resend(
    tape: Tape,
    url: str,
    speed: str,
    max_in_flight: int,
    ignored: list[str],
    format_: Format,
    *,
    headers: dict[str, str],
    allow_remote: bool,
) -> int:
    """
    Send what a tape's clients sent to a gateway, and show what it answers differently.

    Raises:
        Failure: The gateway cannot be reached, or may not be.
    """
    import trio

    from ..client.errors import HttpStatus
    from ..client.http import open_http_client
    from ..replay.live import Resender
    from .replay import tell_findings

    if not allow_remote and not is_loopback(url):
        raise usage(f"{url} is not on this machine; --allow-remote sends the tape there nonetheless")
    if max_in_flight < 1:
        raise usage("--max-in-flight must be at least 1")

    def connect(era: Era) -> AbstractAsyncContextManager[McpClient]:
        return open_http_client(url, headers=headers, era=era.value)

    resender = Resender(connect, parse_speed(speed), max_in_flight, ignored)
    try:
        found = trio.run(resender.run, tape)
    except (SluicewayError, HttpStatus) as error:
        raise Failure(f"{url}: {error}") from error
    tell_findings(tape)
    if format_ == "json":
        emit_json(_as_json(found))
    else:
        _show(found)
    return Exit.FOUND if found.count or found.failed else Exit.OK


def is_loopback(url: str) -> bool:
    """Whether a url leads to this machine, as far as it says."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_speed(text: str) -> float:
    """
    Seconds of the tape in one second; 0 for `max`.

    Raises:
        Failure: It is neither a factor nor `max`.
    """
    if text == "max":
        return 0.0
    try:
        factor = float(text.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise usage(f"--speed is a factor such as 1x or 10x, or max; not {text!r}")
    return factor


def _as_json(found: Resent) -> dict[str, object]:
    return {
        "sent": found.sent,
        "answered": found.answered,
        "listened": found.listened,
        "failed": found.failed,
        "compared": found.compared,
        "different": found.count,
        "took_s": found.took_s,
        "differences": [
            {"exchange": each.number, "t": each.t, "title": each.title,
             "places": [{"path": at.path, "before": at.before, "after": at.after} for at in each.places]}
            for each in found.changed
        ],
    }  # fmt: skip


def _show(found: Resent) -> None:
    from ..replay.nearest import describe_place

    listened = f"{found.listened} listened, " if found.listened else ""
    emit(
        f"{found.sent} messages sent in {found.took_s:.3f} s, {found.answered} answered, {listened}"
        f"{found.failed} failed; "
        f"{found.count} of {found.compared} answers are different"
    )
    for each in found.changed:
        emit(printable(f"\nexchange {each.number} at {each.t:.3f} s, {each.title}"))
        for place in each.places:
            emit(printable(f"  {describe_place(place)}"))
    if found.count > len(found.changed):
        emit(f"\n... and {found.count - len(found.changed)} more")


def serve_upstreams(tape: Tape, document: Document) -> int:
    """Serve a configuration until told to stop; its upstreams answer what is on a tape."""
    from ..replay.answering import Script, scripted
    from ..replay.assembly import exchanges
    from .run import serve_until_told

    script = Script()
    script.learn(exchanges(tape.entries()))
    code = serve_until_told(lambda: scripted(document, script))
    say(f"{script.given} answers from the tape; {script.lacked} requests had none")
    for each in script.lacking:
        say(printable(f"  {each}"))
    if code != Exit.OK:
        return code
    return Exit.FOUND if script.lacked else Exit.OK
