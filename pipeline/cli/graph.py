"""`sluiceway graph`: sources, stages and sinks of a configuration, and what leads where."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from .documents import Overlays, load_or_fail
from .drawing import dot, draw, mermaid
from .output import emit


def graph(file: Path, /, *, overlay: Overlays = None, format: Literal["mermaid", "dot"] = "mermaid") -> None:
    """
    Draw a configuration as a graph, to paste into Markdown or to feed to Graphviz.

    Args:
        file: The configuration.
        overlay: A file laid over it; may be given several times.
        format: `mermaid` or `dot`.
    """
    drawing = draw(load_or_fail(file, overlay or ()))
    emit(mermaid(drawing) if format == "mermaid" else dot(drawing))
