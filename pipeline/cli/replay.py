"""`sluiceway replay`: what a gateway makes of a tape now, and what of that is different."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..protocol.errors import SluicewayError
from .documents import Environment, Overlays, load_or_fail, overlays_of
from .exits import Exit, Failure, usage
from .output import Format, emit, emit_json, printable, say

if TYPE_CHECKING:
    from ..model.document import Document
    from ..replay.reading import Tape

Play = Literal["both", "clients", "upstreams"]


def replay(
    tape: Path,
    /,
    *,
    config: Path | None = None,
    play: Play = "both",
    ignore: list[str] | None = None,
    accept: bool = False,
    live: str | None = None,
    speed: str = "1x",
    max_in_flight: int = 16,
    allow_remote: bool = False,
    header: list[str] | None = None,
    format: Format = "text",  # the option's name
    env: Environment = None,
    overlay: Overlays = None,
) -> int:
    """
    Replay a tape in virtual time, and show what goes differently: replies, relays, decisions, what reached which sink.

    The exit code is 1 if anything is different. Nothing outside is reached: the tape plays clients and upstreams.

    Args:
        tape: The tape's first part; others are found by themselves.
        config: The configuration; that of the tape, if it has one, when absent.
        play: What the tape plays: `both`; `clients`, to the real upstreams, in real time; or `upstreams`: serve the
            configuration until told to stop, with upstreams that answer what is on the tape.
        ignore: Glob of a path that does not count, such as `reply.result.content.*` or `params.arguments.now`; may be
            given several times.
        accept: Put what comes of it in the place of the tape.
        live: Send the tape's requests to the gateway that runs at this url, and show what it answers differently.
        speed: With --live: how fast, `1x`, `10x`, or `max` for as fast as it goes.
        max_in_flight: With --live: requests under way at the same time; while there are more, time stands still.
        allow_remote: With --live: allow an address that is not on this machine.
        header: With --live: an HTTP header, `name: value`, such as a credential; may be given several times.
        format: `text` or `json`.
        env: Use the overlay of this environment, `<file>.<env>.yaml`.
        overlay: A file laid over the configuration; may be given several times.
    """
    _check_options(play, accept=accept, live=live)
    opened = open_tape(tape)
    if live is not None:
        from .resend import resend
        from .tools import Connection

        headers = Connection(header=header).headers()
        return resend(
            opened, live, speed, max_in_flight, ignore or [], format, headers=headers, allow_remote=allow_remote
        )
    with configuration(opened, config, env, overlay) as document:
        if play == "upstreams":
            from .resend import serve_upstreams

            return serve_upstreams(opened, document)
        return _replay(opened, document, play, ignore or [], format, accept=accept)


def _check_options(play: Play, *, accept: bool, live: str | None) -> None:
    if live is not None and (accept or play != "both"):
        raise usage("--live sends what clients sent; it goes with neither --accept nor --play")
    if accept and play != "both":
        raise usage("--accept needs a replay of both sides")


def open_tape(file: Path) -> Tape:
    """
    A tape to read.

    Raises:
        Failure: There is none.
    """
    from ..replay.reading import Tape

    try:
        return Tape(file)
    except SluicewayError as error:
        raise Failure(str(error)) from error


@contextmanager
def configuration(
    tape: Tape, config: Path | None, env: str | None = None, overlay: Overlays = None
) -> Iterator[Document]:
    """
    The configuration that is meant: a file, or what the tape has.

    Raises:
        Failure: There is none, or it has errors.
    """
    if config is not None:
        yield load_or_fail(config, overlays_of(config, env, overlay))
        return
    from ..replay.rewriting import write_configuration

    with tempfile.TemporaryDirectory(prefix="sluiceway-replay-") as folder:
        try:
            file = write_configuration(tape, Path(folder))
        except SluicewayError as error:
            raise Failure(str(error)) from error
        yield load_or_fail(file, overlay or [])


def _replay(tape: Tape, document: Document, play: Play, ignored: list[str], format_: Format, *, accept: bool) -> int:
    from ..replay.replaying import replay as replay_tape
    from ..replay.rewriting import rewriting
    from ..telemetry.log import configure_logging

    configure_logging("error", "auto")
    try:
        if accept:
            with rewriting(tape, document) as into:
                found = replay_tape(tape, document, ignored=ignored, into=into)
        else:
            found = replay_tape(tape, document, upstreams=play == "both", ignored=ignored)
    except SluicewayError as error:
        raise Failure(str(error), Exit.NOT_STARTED) from error
    tell_findings(tape)
    if format_ == "json":
        emit_json({**found.as_json(), "accepted": accept})
    else:
        emit(printable("\n".join(found.lines())))
        if accept and not found.is_equal:
            say(f"sluiceway: {tape.path} is what came of it now")
    return Exit.OK if found.is_equal or accept else Exit.FOUND


def tell_findings(tape: Tape) -> None:
    """Say what is missing on a tape that was read."""
    for finding in tape.findings:
        if finding.harms:
            say(f"sluiceway: {finding.text}")
