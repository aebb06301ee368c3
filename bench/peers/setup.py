"""
Where peers come from: Debian and the registries, each into a folder of its own under `.bench/`.

What is there stays; what cannot be had is left out, and the bench says so. Nothing is installed into the system:
Debian's packages are unpacked, not installed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".bench"
DEBIAN = FOLDER / "root"
ENVIRONMENTS = {
    "naive": ("trio==0.35.0", "hypercorn==0.18.0", "httpx==0.28.1", "uvloop==0.23.0", "httptools==0.9.0", "orjson"),
    "mcp-proxy": ("mcp-proxy==0.13.0",),
    "fastmcp": ("fastmcp==4.1.2",),
    "contextforge": ("mcp-contextforge-gateway==1.0.7.post20260921",),
}
NODE = ("supergateway@4.0.0",)
_PACKAGES = ("nginx", "wrk", "libluajit-5.1-2")


def python_of(environment: str) -> Path:
    """The interpreter of an environment."""
    return FOLDER / environment / "bin" / "python"


def command_of(environment: str, name: str) -> Path:
    """A command that an environment brings."""
    return FOLDER / environment / "bin" / name


def debian(path: str) -> Path:
    """A file of an unpacked package."""
    return DEBIAN / path


def install(only: Collection[str] = ()) -> list[str]:
    """Get what is missing, or of that only these; returns what could not be had, with the reason."""
    FOLDER.mkdir(exist_ok=True)
    missing = []
    for name, step in {"debian": _debian, **dict.fromkeys(ENVIRONMENTS, _environment), "node": _node}.items():
        if only and name not in only:
            continue
        try:
            step(name)
        except (subprocess.CalledProcessError, OSError) as error:
            missing.append(f"{name}: {error}")
    return missing


def _debian(_: str) -> None:
    if debian("usr/bin/wrk").exists() and debian("usr/sbin/nginx").exists():
        return
    folder = FOLDER / "debs"
    folder.mkdir(exist_ok=True)
    _run("apt-get", "download", *_PACKAGES, cwd=folder)
    for package in folder.glob("*.deb"):
        _run("dpkg-deb", "-x", str(package), str(DEBIAN))


def _environment(name: str) -> None:
    done = FOLDER / name / ".done"
    if done.exists() and _is_of_this_interpreter(FOLDER / name):
        return
    _run(sys.executable, "-m", "venv", "--clear", str(FOLDER / name))
    _run(str(python_of(name)), "-m", "pip", "install", "--quiet", *ENVIRONMENTS[name])
    done.touch()


def _is_of_this_interpreter(environment: Path) -> bool:
    """Whether it has the interpreter that ours has: one that is built better is no merit of what it runs."""
    told = (environment / "pyvenv.cfg").read_text()
    return f"home = {Path(sys.base_prefix) / 'bin'}\n" in told


def _node(_: str) -> None:
    folder = FOLDER / "node"
    if (folder / "node_modules" / "supergateway").exists():
        return
    folder.mkdir(exist_ok=True)
    _run("npm", "install", "--no-audit", "--no-fund", *NODE, cwd=folder)


def _run(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def versions() -> dict[str, str]:
    """What is compared, by name, as far as it is pinned or can be asked."""
    pinned = [each for packages in ENVIRONMENTS.values() for each in packages if "==" in each]
    found = dict(each.split("==", 1) for each in pinned) | dict(each.split("@", 1) for each in NODE)
    debs = [path.name.split("_")[:2] for path in sorted((FOLDER / "debs").glob("*.deb"))]
    return found | {name: version for name, version in debs if name in _PACKAGES[:2]}
