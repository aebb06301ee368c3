"""`sluiceway diff`: what a configuration does otherwise than another one, in sentences."""

from __future__ import annotations

from pathlib import Path

from .documents import Environment, Overlays, load_or_fail, overlays_of
from .exits import Exit
from .output import Format, emit, emit_json, printable


def diff(
    old: Path,
    new: Path,
    /,
    *,
    env: Environment = None,
    overlay: Overlays = None,
    exit_code: bool = False,
    area: list[str] | None = None,
    format: Format = "text",  # the option's name
) -> int:
    """
    Say what a configuration does otherwise than another one: who may call what, limits, deadlines, retries, order.

    Compared is what the files mean, not how they are written: nothing is said of defaults that were written out,
    anchors, comments, formatting, and mappings in another order. Nothing is opened, and no secret is read.

    Args:
        old: The configuration as it was.
        new: As it is now.
        env: Use the overlay of this environment for both, `<file>.<env>.yaml`.
        overlay: A file laid over both; may be given several times.
        exit_code: Exit with 1 if there are differences.
        area: Only differences of this area, such as access or exposure; may be given several times.
        format: `text` or `json`.
    """
    from ..replay.diff.configs import differences

    documents = [load_or_fail(each, overlays_of(each, env, overlay)) for each in (old, new)]
    found = [change for change in differences(*documents) if not area or change.area in area]
    if format == "json":
        emit_json({"changes": [change.as_json() for change in found]})
    else:
        for change in found:
            emit(printable(str(change)))
    return Exit.FOUND if exit_code and found else Exit.OK
