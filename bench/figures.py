"""A table of figures with their bounds, on the terminal and as JSON; and the machine they are of."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def about_machine() -> dict[str, str | int]:
    """What figures are of: processor, system, interpreter, commit, how busy it is, and when."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count() or 1,
        "system": platform.platform(),
        "python": f"{platform.python_version()}, {build_of_python()}",
        "commit": commit.stdout.strip(),
        "load average": f"{os.getloadavg()[0]:.1f}",
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }


def build_of_python() -> str:
    """How the interpreter that runs this was built, as far as it says; with profiles it is faster."""
    told = sysconfig.get_config_var("CONFIG_ARGS") or ""
    asked = [name for name in ("--enable-optimizations", "--with-lto") if name in told]
    if not asked and Path(sys.base_prefix) == Path("/usr"):
        return "the system's own build"  # Debian makes it with profiles, and without these words
    return f"built with {' '.join(asked)}" if asked else "built without --enable-optimizations"


def report(figures: Mapping[str, float], bounds: Mapping[str, float], path: Path | None = None) -> int:
    """
    Print the figures, and write them with their bounds as JSON if `path` says where.

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
        kept = {"machine": about_machine(), "figures": figures, "bounds": dict(bounds)}
        path.write_text(json.dumps(kept, indent=2) + "\n")
    return 1 if over else 0
