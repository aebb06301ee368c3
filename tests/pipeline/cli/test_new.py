"""`new`: skeletons that pass their own tests."""

import importlib.util
import subprocess
import sys
import tomllib

import pytest

from sluiceway.pipeline.cli.exits import Exit
from sluiceway.pipeline.model.component import ComponentKind
from sluiceway.pipeline.model.registry import GROUPS

KINDS = ("middleware", "sink", "source", "pipeline")


@pytest.mark.parametrize("kind", KINDS)
def test_a_skeleton_passes_its_own_tests_and_its_configuration_has_no_finding(sluiceway, tmp_path, kind):
    """Nothing is left to be filled in before it works."""
    outcome = sluiceway("new", kind, "my_thing", "--into", tmp_path)

    assert outcome.code == Exit.OK
    check = sluiceway("check", tmp_path, "--deny-warnings")
    assert (Exit.OK, "") == (check.code, check.out)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_component_comes_with_its_class_docs_test_and_entry_point(sluiceway, tmp_path, kind):
    """Every file is named on stdout; the lines for a distribution of one's own are shown as well."""
    outcome = sluiceway("new", kind, "my_thing", "--into", tmp_path)

    folder = tmp_path / "my_thing"
    names = ["README.md", "example.yaml", "pyproject.toml", "sluiceway_my_thing.py", "test_sluiceway_my_thing.py"]
    assert names == sorted(path.name for path in folder.iterdir())
    assert sorted(outcome.out.split()) == sorted(str(folder / name) for name in names)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    group = GROUPS[ComponentKind(kind)]
    assert {group: {"my_thing": "sluiceway_my_thing:MyThing"}} == project["entry-points"]
    assert f'[project.entry-points."{group}"]' in outcome.err
    assert "$" not in "".join(path.read_text() for path in folder.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="ruff comes with the dev extra")
@pytest.mark.parametrize("kind", KINDS)
def test_the_code_of_a_skeleton_is_formatted_and_clean(sluiceway, tmp_path, kind):
    """As somebody's linter would want it who knows nothing of us."""
    sluiceway("new", kind, "my_thing", "--into", tmp_path)
    folder = tmp_path if kind == "pipeline" else tmp_path / "my_thing"
    for words in (["format", "--check"], ["check", "--select", "ASYNC,B,C4,E,F,I,PIE,RET,SIM,UP,W"]):
        command = [sys.executable, "-m", "ruff", *words, "--no-cache", "--config", "line-length = 120", "."]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_overwritten(sluiceway, tmp_path):
    """Not even partly: the first file that exists stops everything."""
    sluiceway("new", "pipeline", "mine", "--into", tmp_path)
    (tmp_path / "mine.yaml").unlink()
    (tmp_path / "mine_test.yaml").write_text("mine")
    outcome = sluiceway("new", "pipeline", "mine", "--into", tmp_path)

    assert (Exit.FOUND, "") == (outcome.code, outcome.out)
    assert "mine_test.yaml exists; nothing was written" in outcome.err
    assert not (tmp_path / "mine.yaml").exists()
    assert (tmp_path / "mine_test.yaml").read_text() == "mine"


@pytest.mark.parametrize("name", ["MaskIban", "mask-iban", "1st", "_x", "a__b", "import", "", "a/b"])
def test_a_name_that_cannot_be_one_is_refused(sluiceway, tmp_path, name):
    """It becomes a module, a class and a key."""
    outcome = sluiceway("new", "sink", name, "--into", tmp_path)

    assert outcome.code == Exit.USAGE
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_taken_is_refused(sluiceway, tmp_path):
    """Two providers of one name would be an error later; another kind may have it."""
    taken = sluiceway("new", "sink", "embedded", "--into", tmp_path)
    free = sluiceway("new", "middleware", "embedded", "--into", tmp_path)

    assert (Exit.USAGE, Exit.OK) == (taken.code, free.code)
    assert "there is a sink 'embedded' already" in taken.err
