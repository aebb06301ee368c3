"""The tutorial works: its files are written, its commands are run, in the order of the page."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tutorial-middleware.md").read_text(encoding="utf-8")
STEP = re.compile(r"(?ms)(?:^`(?P<file>[\w./]+)`:\n\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$")
PROGRAMS = {
    "sluiceway": [sys.executable, "-c", "import sys; from sluiceway.pipeline.cli import main; sys.exit(main())"],
    "pytest": [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "trio_mode=true"],
}


def _steps() -> list[re.Match[str]]:
    return [step for step in STEP.finditer(PAGE) if step["file"] or step["language"] == "console"]


@pytest.mark.real
def test_every_step_of_the_tutorial_works(tmp_path):
    """What a reader types gives what the page says: every command ends well."""
    ran = []
    for step in _steps():
        if step["file"]:
            path = tmp_path / step["file"]
            path.parent.mkdir(exist_ok=True)
            path.write_text(step["text"], encoding="utf-8")
            continue
        for command in re.findall(r"(?m)^\$ (.*)$", step["text"]):
            name, *arguments = shlex.split(command)
            done = subprocess.run(
                [*PROGRAMS[name], *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
            )
            assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
            ran.append(command)

    assert ran == ["sluiceway check gateway.yaml", "sluiceway check gateway.yaml", "pytest test_mask.py"]


def test_the_sample_is_what_the_tutorial_writes():
    """configs/custom_middleware.yaml and its stage are the last versions on the page."""
    last = {step["file"]: step["text"] for step in _steps() if step["file"]}
    sample = (ROOT / "configs" / "custom_middleware.yaml").read_text(encoding="utf-8")

    assert (ROOT / "configs" / "stages" / "mask.py").read_text(encoding="utf-8") == last["stages/mask.py"]
    assert sample.endswith(last["gateway.yaml"])
