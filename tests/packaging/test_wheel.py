"""The wheel: one name at its top level, everything below it, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("pipeline", "middlewares", "transports")

pytestmark = pytest.mark.xdist_group("wheel")  # it is built once


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, so that nothing of an earlier build gets into it and nothing into the tree."""
    tree = tmp_path_factory.mktemp("tree")
    for room in ROOMS:
        shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tree / "dist"), str(tree)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = (tree / "dist").iterdir()
    return path


@pytest.fixture(scope="module")
def names(wheel):
    """The files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_its_top_level_is_exactly_one_name(names):
    """Generic names such as `pipeline` belong to other distributions."""
    tops = {name.partition("/")[0] for name in names}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"sluiceway"}
    assert len(tops) == 2


def test_it_is_for_every_platform(wheel):
    """Pure Python."""
    assert wheel.name.endswith("-py3-none-any.whl")


def test_it_leaves_the_namespace_open(names):
    """`sluiceway` itself is a namespace (PEP 420), so that others can ship parts of it."""
    assert "sluiceway/__init__.py" not in names


def test_it_holds_every_file_of_the_rooms(names):
    """Code, markers, templates: what is in the folders is in the wheel."""
    expected = {
        f"sluiceway/{path.relative_to(ROOT).as_posix()}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert expected - set(names) == set()


def test_it_names_its_command_and_its_pytest_plugin(wheel, names):
    """Both come with the installation."""
    (entry_points,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(entry_points).decode()

    assert "sluiceway = sluiceway.pipeline.cli:main" in text
    assert "sluiceway = sluiceway.pipeline.testing.pytest_plugin" in text


def test_it_works_when_it_is_all_there_is(wheel, tmp_path):
    """Unpacked somewhere else, and with the repository out of reach, the packages import and the command runs."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if '__editable__' not in f.__module__]\n"
        "import sluiceway.middlewares.timeout, sluiceway.pipeline.testing as kit, sluiceway.transports\n"
        "from sluiceway.pipeline.cli import main\n"
        "print(sluiceway.middlewares.__file__); print(kit.FakeSink.__module__); sys.argv = ['sluiceway', '--version']\n"
        "main()"
    )

    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[:2] == [
        str(tmp_path / "sluiceway" / "middlewares" / "__init__.py"),
        "sluiceway.pipeline.testing.fakes",
    ]
