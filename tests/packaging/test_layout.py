"""The repository is laid out as its documents say, and every folder of code is part of the package."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("pipeline", "middlewares", "transports")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def sources():
    """Every Python file of the three rooms."""
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("name", [*ROOMS, "tests", "configs", "docs", "bench"])
def test_a_folder_is_where_it_belongs(name):
    """Somebody who opens the repository knows where everything is."""
    assert (ROOT / name).is_dir()


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "Makefile",
        "pyproject.toml",
        "requirements.lock",
        ".ci/run",
    ],
)
def test_a_file_is_where_it_belongs_and_says_something(name):
    """An empty file is a promise."""
    assert (ROOT / name).stat().st_size > 0


def test_every_folder_of_code_is_a_package_that_is_installed():
    """setuptools takes what is listed; a folder that is not listed is missing from the wheel and nowhere else."""
    on_disk = {"sluiceway." + ".".join(path.parent.relative_to(ROOT).parts) for path in sources()}

    assert on_disk == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_package_has_an_init_file():
    """Without one, type checkers and the wheel disagree about what it is."""
    folders = {path.parent for path in sources()}

    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_every_room_says_that_it_is_typed():
    """PEP 561 asks for a marker in each."""
    assert [room for room in ROOMS if not (ROOT / room / "py.typed").exists()] == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_refuses_to_be_imported_under_its_folders_name(room):
    """Running from the root makes the double import possible; one sentence says what to do instead."""
    run = subprocess.run(
        [sys.executable, "-c", f"import {room}"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == (
        f"ImportError: import it as sluiceway.{room}, not as {room}; install with: pip install -e ."
    )


def test_no_room_has_a_module_that_its_package_hides():
    """A public name of a package must not also be the name of one of its modules: the import order would decide."""
    hidden = []
    for folder in {path.parent for path in sources()}:
        modules = {path.stem for path in folder.glob("*.py")} | {
            path.name for path in folder.iterdir() if path.is_dir()
        }
        tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
        names = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                 for alias in node.names if node.module is not None}  # fmt: skip
        hidden += [f"{folder.name}.{name}" for name in names & modules]

    assert hidden == []


def test_the_import_contracts_are_kept():
    """The arrows of the architecture point one way; `make lint` says more."""
    lint = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout
