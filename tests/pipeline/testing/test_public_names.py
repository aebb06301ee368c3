"""The kit's public names exist, are imported lazily, and the plugin imports nothing of ours."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from sluiceway.pipeline import testing
from sluiceway.pipeline.testing import pytest_plugin
from sluiceway.pipeline.testing.cancelling import cancel_everywhere
from sluiceway.pipeline.testing.musts import MUSTS

DOCS = Path(__file__).parents[3] / "docs" / "testing.md"
AUTHORS = DOCS.with_name("stage-authors.md")


@pytest.mark.parametrize("name", testing.__all__)
def test_every_public_name_can_be_imported(name):
    """`__all__` and what `__getattr__` knows are the same."""
    assert getattr(testing, name) is not None


def test_a_function_is_not_hidden_by_its_module():
    """`cancel_everywhere` is the function, whichever was imported first."""
    assert testing.cancel_everywhere is cancel_everywhere


def test_an_unknown_name_is_an_attribute_error():
    """As with any module."""
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = testing.nothing


def test_importing_the_plugin_imports_nothing_but_empty_packages():
    """Whatever pytest imports before coverage starts is never measured."""
    code = (
        "import sys, sluiceway.pipeline.testing.pytest_plugin\n"
        "print(*sorted(name for name in sys.modules if name.startswith('sluiceway')))"
    )

    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert output.split() == [
        "sluiceway",
        "sluiceway.pipeline",
        "sluiceway.pipeline.testing",
        "sluiceway.pipeline.testing.pytest_plugin",
    ]


@pytest.mark.parametrize("module", [testing, pytest_plugin], ids=lambda module: module.__name__)
def test_these_modules_hold_nothing_of_ours_when_loaded_anew(module):
    """What they need, they import when it is needed."""
    names = runpy.run_path(module.__file__)

    ours = {name for name, value in names.items() if getattr(value, "__module__", "").startswith("sluiceway.")}

    assert ours == set()


def test_every_rule_stands_in_the_documentation():
    """With its text, word for word."""
    rows = dict(re.findall(r"^\| `(M-[A-Z-]+)` \|[^|]*\| (.*) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE))

    assert rows == {must.id: must.text for must in MUSTS.values()}


def test_every_rule_stands_in_the_rules_for_stage_authors():
    """There it has its explanation; the sentence is the same."""
    text = " ".join(AUTHORS.read_text(encoding="utf-8").split())

    assert [must.id for must in MUSTS.values() if f"**{must.id}** {must.text}" not in text] == []


def test_every_rule_says_must_and_whom_it_binds():
    """One sentence, normative."""
    for must in MUSTS.values():
        assert re.search(r"\bMUST\b", must.text)
        assert must.text.endswith(".")
        assert must.kinds


def test_every_public_name_is_in_the_documentation():
    """A name that is not documented is not public."""
    text = DOCS.read_text(encoding="utf-8")

    assert [name for name in testing.__all__ if f"`{name}" not in text and f"{name}(" not in text] == []


GATEWAY = """
version: 1
sources: {here: {stdio: {}, pipeline: main}}
pipelines: {main: {chain: [request_id, {timeout: {after: 5s}}], sink: files}}
sinks: {files: {embedded: {}}}
"""


def test_the_examples_of_the_documentation_run(tmp_path):
    """As they stand there, in a suite of their own, under the conftest that stands there too."""
    *examples, conftest = re.findall(
        r"^```python\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    (tmp_path / "test_examples.py").write_text("\n\n".join(examples))
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "gateway.yaml").write_text(GATEWAY)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert "5 passed" in run.stdout, run.stdout
