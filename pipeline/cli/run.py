"""`sluiceway run`: serve a gateway. Reads the command line; `runtime.serve` does the rest."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from attrs import evolve
from cyclopts import Parameter

from ..model.component import ComponentKind, Source
from ..model.document import MAX_WORKERS, Document, SourceSpec
from ..model.registry import Registry
from ..protocol.errors import SluicewayError
from .documents import Environment, Overlays, overlays_of
from .exits import Exit, Failure, usage
from .output import say

if TYPE_CHECKING:
    from ..runtime.engine import Engine


def _check_workers(_type: object, value: object) -> None:
    if isinstance(value, int) and not 1 <= value <= MAX_WORKERS:
        raise ValueError(f"must be auto, or from 1 to {MAX_WORKERS}")


QUICKSTART: Final = Path(__file__).parent / "quickstart.yaml"
"""What is served when no file is named."""

Workers = Annotated[int | Literal["auto"] | None, Parameter(validator=_check_workers)]
"""`--workers`, as `run.workers` has it."""

GUIDE: Final = """\
The quickstart is ready at http://127.0.0.1:8080/mcp. In another terminal:

    sluiceway tools ls
    sluiceway tools call add a=2 b=3

Point an MCP client at that address, or start from a configuration of your own: sluiceway new pipeline mine"""


def run(
    file: Path | None = None,
    /,
    *,
    watch: bool = False,
    dry_run: bool = False,
    stdio: bool = False,
    pipeline: str | None = None,
    record: Path | None = None,
    workers: Workers = None,
    env: Environment = None,
    overlay: Overlays = None,
) -> int:
    """
    Serve a gateway until it is told to stop.

    SIGTERM and Ctrl-C drain and stop; a second one stops at once. SIGHUP loads the configuration again. SIGUSR2 puts
    new workers in the place of the old ones, one by one, if there are several.

    Args:
        file: The configuration; without it, the quickstart: a demo server on http://127.0.0.1:8080/mcp.
        watch: Load the configuration again when one of its files changes.
        dry_run: Open everything, report ready, close everything.
        stdio: Serve on stdin and stdout, for a client that starts this process, instead of the configured sources.
        pipeline: The pipeline that --stdio feeds; needed only if there are several.
        record: Write what passes its edges to this tape, which must not exist; compressed if it ends with `.gz`. One
            process serves then.
        workers: Processes that serve, or `auto`, instead of `run.workers`.
        env: Use the overlay of this environment, `<file>.<env>.yaml`.
        overlay: A file laid over the configuration; may be given several times.
    """
    if pipeline is not None and not stdio:
        raise usage("--pipeline goes with --stdio; a configured source names its own pipeline")
    main = QUICKSTART if file is None else file
    overlays = overlays_of(main, env, overlay)

    def read() -> Document:
        from ..config import load

        document = load(main, overlays=overlays)
        if workers is not None:
            document = evolve(document, run=evolve(document.run, workers=workers))
        return over_stdio(document, pipeline) if stdio else document

    alone = stdio or record is not None
    if alone and workers not in (None, 1):
        raise usage("--workers does not go with --stdio or --record: there is one client, or one tape")
    guide = file is None and not stdio
    files = None if alone else (main, *overlays)
    return serve_until_told(read, files, watch=watch, dry_run=dry_run, guide=guide, tape=record)


def processes_of(document: Document) -> int:
    """How many processes serve a configuration."""
    workers = document.run.workers
    if workers != "auto":
        return workers
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, MAX_WORKERS)


def over_stdio(document: Document, pipeline: str | None = None) -> Document:
    """
    A configuration with stdin and stdout as its only source.

    Args:
        document: What was configured.
        pipeline: The pipeline to feed; the only one, or the one all sources feed, when None.

    Raises:
        SluicewayError: The pipeline does not exist, or it is not clear which one is meant.
    """
    chosen = {pipeline} if pipeline is not None else {source.pipeline for source in document.sources.values()}
    if len(chosen) != 1:
        chosen = set(document.pipelines)
    if len(chosen) != 1 or not chosen <= set(document.pipelines):
        raise SluicewayError(f"--stdio feeds one pipeline: name one of {', '.join(document.pipelines)} with --pipeline")
    cls = Registry().find(ComponentKind.SOURCE, "stdio")
    assert issubclass(cls, Source)
    spec = SourceSpec(id="stdio", cls=cls, config=cls.Config(), pipeline=chosen.pop(), path="sources.stdio")
    return evolve(document, sources={"stdio": spec})


def serve_until_told(
    load: Callable[[], Document],
    files: Sequence[Path] | None = None,
    *,
    watch: bool = False,
    dry_run: bool = False,
    guide: bool = False,
    tape: Path | None = None,
) -> int:
    """
    Run a gateway until it is told to stop, in this process or as the supervisor of several; the exit code.

    Args:
        load: Reads the configuration.
        files: Where it is, the main file first, then what is laid over it, for other processes to load. Without them,
            this one serves, whatever `run.workers` says.
        watch: Load it again when one of its files changes.
        dry_run: Open everything, report ready, close everything.
        guide: Say how to go on once it is ready.
        tape: Record to this file instead of where `run.record` says.

    Raises:
        Failure: It could not be started.
    """
    import trio

    from ..config import ConfigError
    from ..replay.recording import open_edges
    from ..runtime.serve import serve
    from ..telemetry.log import configure_logging
    from .progress import start_display

    try:
        document = load()
    except ConfigError as error:
        sys.stderr.write(str(error))
        raise Failure("the configuration cannot be used", Exit.NOT_STARTED) from error
    except SluicewayError as error:
        raise Failure(str(error), Exit.NOT_STARTED) from error
    configure_logging(document.run.log_level, document.run.log_format)
    if files is not None and not dry_run and (workers := processes_of(document)) > 1:
        return _supervise(load, files, workers=workers, watch=watch, guide=guide)
    with start_display() as display:

        def ready(engine: Engine) -> None:
            if display is not None:
                display.close()
            if guide:
                say(GUIDE)
            if dry_run:
                say("every component opened; this was a dry run")

        async def main() -> int:
            edges = partial(open_edges, tape=tape)
            return await serve(load, watch=watch, dry_run=dry_run, progress=display, ready=ready, edges=edges)

        try:
            return trio.run(main)
        except SluicewayError as error:
            raise Failure(str(error), Exit.NOT_STARTED) from error


def _supervise(load: Callable[[], Document], files: Sequence[Path], *, workers: int, watch: bool, guide: bool) -> int:
    import trio

    from ..config.texts import texts_of
    from ..runtime.workers.messages import Snapshot
    from ..runtime.workers.process import supervise

    def read() -> tuple[Document, Snapshot]:
        document = load()
        try:
            texts = texts_of(document)
        except OSError as error:
            raise SluicewayError(f"{error.filename}: {error.strerror}") from error
        if texts is None:
            raise SluicewayError("the configuration's files change while they are read; try again")
        contents = {str(path): content for path, content in texts.contents.items()}
        matches = {pattern: list(map(str, paths)) for pattern, paths in texts.matches.items()}
        return document, Snapshot(contents=contents, matches=matches)

    async def main() -> int:
        return await supervise(
            read, files, workers=workers, follow=watch, ready=lambda _: say(GUIDE) if guide else None
        )

    try:
        return trio.run(main)
    except SluicewayError as error:
        raise Failure(str(error), Exit.NOT_STARTED) from error
