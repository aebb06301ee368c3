"""Configurations as verbs take them: a file, overlays, and what to do when it has errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .exits import Failure, usage
from .readiness import importing

if TYPE_CHECKING:
    from ..config import Checked
    from ..model.document import Document

Overlays = list[Path] | None
"""`--overlay FILE`, which may be given several times."""

Environment = Annotated[str | None, Parameter(env_var="SLUICEWAY_ENV")]
"""`--env NAME`, which stands for the overlay `<file>.<NAME>.yaml` beside the file."""


def overlays_of(file: Path, env: str | None, overlay: Sequence[Path] | None) -> list[Path]:
    """
    The files laid over a configuration, in order: that of the environment first.

    Raises:
        Failure: The environment has no file.
    """
    chosen = []
    if env:
        beside = file.with_name(f"{file.stem}.{env}{file.suffix}")
        if not beside.is_file():
            raise usage(f"environment {env!r} has no overlay: {beside} does not exist")
        chosen.append(beside)
    return [*chosen, *(overlay or ())]


def check_file(file: Path, overlays: Sequence[Path] = ()) -> Checked:
    """Look at a configuration file."""
    with importing():  # the components that are mentioned, too
        from ..config import check

        return check(file, overlays=overlays)


def load_or_fail(file: Path, overlays: Sequence[Path] = ()) -> Document:
    """
    The document of a file.

    Args:
        file: YAML or TOML.
        overlays: Files laid over it.

    Raises:
        Failure: It has errors; all problems are on stderr by then.
    """
    from ..config import has_errors, render_text

    checked = check_file(file, overlays)
    if checked.document is None or has_errors(checked.problems):
        sys.stderr.write(render_text(checked.problems))
        raise Failure(f"{file} cannot be used")
    return checked.document
