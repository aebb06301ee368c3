"""A table of figures with their bounds, on the terminal and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path


def report(figures: Mapping[str, float], bounds: Mapping[str, float], path: Path | None = None) -> int:
    """
    Print the figures, and write them as JSON if `path` says where.

    Returns:
        The exit code: 1 if a figure is over its bound.
    """
    over = 0
    for name, value in figures.items():
        bound = bounds.get(name)
        failed = bound is not None and value > bound
        over += failed
        print(f"{name:45} {value:10.3f}   {'' if bound is None else f'bound {bound:g}'}{'   OVER' if failed else ''}")
    if path is not None:
        machine = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
        path.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2) + "\n")
    return 1 if over else 0
