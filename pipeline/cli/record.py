"""`sluiceway record`: like `run`, with a tape."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from .documents import Environment, Overlays, overlays_of
from .run import serve_until_told

if TYPE_CHECKING:
    from ..model.document import Document


def record(
    file: Path,
    /,
    *,
    to: Path,
    stages: bool = False,
    config: bool = False,
    env: Environment = None,
    overlay: Overlays = None,
) -> int:
    """
    Serve a gateway, in one process, until it is told to stop, and write what passes its edges to a tape.

    Credentials and what looks secret are not on it; texts are: treat it like the traffic itself.

    Args:
        file: The configuration.
        to: The tape, which must not exist; compressed if it ends with `.gz`. When it is large it goes on in `<to>.2`.
        stages: Also record when each exchange enters and leaves each stage.
        config: Also write the text of the configuration's files.
        env: Use the overlay of this environment, `<file>.<env>.yaml`.
        overlay: A file laid over the configuration; may be given several times.
    """
    overlays = overlays_of(file, env, overlay)

    def read() -> Document:
        from ..config import load
        from ..model.document import Record
        from ..model.options import ConfigPath

        document = load(file, overlays=overlays)
        options = document.run.record or Record(folder=ConfigPath(to.parent))
        options = evolve(options, stages=stages or options.stages, config=config or options.config)
        return evolve(document, run=evolve(document.run, record=options))

    return serve_until_told(read, tape=to)
