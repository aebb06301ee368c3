"""
Begin a recording, and end it well: makes recorder, scribe and writer of what a configuration or a command line says.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import trio
from msgspec.structs import force_setattr

from ..model.document import Document, Record
from ..model.options import ConfigPath
from ..protocol.errors import ComponentError
from .entries import FORMAT, VERSION, Header, Redactions
from .masking import Masking
from .narration import Narration
from .recorder import Recorder
from .scribe import Scribe, open_scribe
from .writing import Bounds, TapeWriter

SUFFIX: Final = ".jsonl"
"""Of tapes in a folder; compressed ones have `.gz` behind it."""
_NAME: Final = re.compile(r"\d{8}T\d{6}\.\d{6}Z-\d+\.jsonl(\.gz)?(\.\d+)?")


@asynccontextmanager
async def open_recorder(
    path: Path,
    options: Record | None = None,
    *,
    now: Callable[[], float] = time.time,
    elders: Iterable[Path] = (),
    inline: bool = False,
) -> AsyncIterator[Recorder]:
    """
    A recorder, for the `edges` of one engine; its tape is complete when the block is left.

    Args:
        path: The tape's first part, which must not exist; compressed if it ends with `.gz`.
        options: What is recorded, and how much; `folder` and `compress` do not count here. The defaults if absent.
        now: The date, in seconds since 1970.
        elders: Files of earlier recordings, oldest first, that may be removed to make room for this one.
        inline: Write in the event loop: needed on a mock clock, which does not wait for threads.

    Raises:
        ComponentError: The tape cannot be begun. A full disk is no reason: it may have room later.
    """
    options = Record(folder=ConfigPath(path.parent)) if options is None else options
    masking = Masking(secrets.token_bytes(32), options.redact, options.headers)
    clock, epoch = _clock(), now()
    header = _header(masking, epoch, options)
    writer = TapeWriter(path, header, _bounds(options), masked=masking.text, elders=elders)
    scribe = Scribe(writer, clock, options.max_waiting, inline=inline)
    narration = Narration(masking, lambda digest: force_setattr(header, "digest", digest))
    try:
        await scribe.begin()
    except FileExistsError as error:
        raise ComponentError("recorder", "open", f"{error.filename} exists; tapes are never written over") from error
    except OSError as error:
        raise ComponentError("recorder", "open", f"{path} cannot be written: {error.strerror}") from error
    async with open_scribe(scribe):
        yield Recorder(scribe, narration, clock, epoch, stages=options.stages, files=options.config)


def path_in(options: Record, now: float) -> Path:
    """Where the tape of a gateway that starts now goes, in the folder of the options."""
    started = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return options.folder / f"{started}-{os.getpid()}{SUFFIX}{'.gz' if options.compress else ''}"


@asynccontextmanager
async def open_edges(document: Document, tape: Path | None = None) -> AsyncIterator[Recorder | None]:
    """
    The recorder that a configuration asks for under `run.record`; None if it does not.

    Args:
        document: The configuration.
        tape: Record to this file, whether the configuration asks for a recording or not.

    Raises:
        ComponentError: The folder or the tape cannot be made.
    """
    options = document.run.record
    if tape is not None:
        async with open_recorder(tape, options) as recorder:
            yield recorder
    elif options is None:
        yield None
    else:
        folder = options.folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            elders = _elders(folder)
        except OSError as error:
            raise ComponentError("recorder", "open", f"{folder} cannot be used: {error.strerror}") from error
        async with open_recorder(path_in(options, time.time()), options, elders=elders) as recorder:
            yield recorder


def _clock() -> Callable[[], float]:
    """Seconds since now, on Trio's clock; may be called from any thread."""
    current_time = trio.lowlevel.current_clock().current_time
    zero = current_time()
    return lambda: current_time() - zero


def _header(masking: Masking, epoch: float, options: Record) -> Header:
    return Header(
        t=0.0,
        format=FORMAT,
        version=VERSION,
        sluiceway=version("sluiceway"),
        recording=secrets.token_hex(8),
        part=1,
        began=datetime.fromtimestamp(epoch, UTC).isoformat(timespec="milliseconds"),
        epoch=epoch,
        redactions=Redactions(masking.keys, masking.kept_headers),
        stages=options.stages,
    )


def _bounds(options: Record) -> Bounds:
    return Bounds(
        part_size=options.part_size,
        part_for=options.part_for,
        keep_size=options.keep_size,
        keep_for=options.keep_for,
        min_free=options.min_free,
    )


def _elders(folder: Path) -> list[Path]:
    """The parts of earlier recordings in a folder, oldest first: what `path_in` may have named, and nothing else."""
    found = [each for each in folder.iterdir() if _NAME.fullmatch(each.name) and each.is_file()]
    return sorted(found, key=lambda each: (each.stat().st_mtime, each.name))
