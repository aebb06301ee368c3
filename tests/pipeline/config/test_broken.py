"""
Broken configurations and exactly what is said about them.

Each file in `broken/` (a directory there: its `main.yaml`, with `main.production.yaml` over it if there is one) has its
expected output beside it. `SLUICEWAY_ACCEPT=1` writes the outputs anew; read the difference before committing it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sluiceway.pipeline.config import check, has_errors, render_text
from sluiceway.pipeline.model import registry

BROKEN = Path(__file__).parent / "broken"
CASES = sorted(
    path.name
    for path in BROKEN.iterdir()
    if path.suffix in (".yaml", ".toml") or (path.is_dir() and (path / "main.yaml").exists())
)
ONLY_TIMEOUT = {kind: {name: "sluiceway.middlewares.timeout:Timeout" for name in names if name == "timeout"}
                for kind, names in registry.BUILT_IN.items()}  # fmt: skip
"""Lists of what is installed must not change with every new component."""
ENVIRONMENT = {"SLUICEWAY_TEST_EMPTY": "", "SLUICEWAY_TEST_WORD": "many"}


@pytest.mark.parametrize("case", CASES)
def test_broken_configuration_is_explained_as_recorded(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every problem is found, in order of place, worded as a person accepted it."""
    monkeypatch.chdir(BROKEN)
    monkeypatch.setattr(registry, "BUILT_IN", ONLY_TIMEOUT)
    path = Path(case, "main.yaml") if Path(case).is_dir() else Path(case)
    overlays = [over for over in [path.with_name("main.production.yaml")] if over.exists()]
    golden = Path(case) / "expected.txt" if Path(case).is_dir() else path.with_name(f"{path.stem}.txt")

    checked = check(path, overlays=overlays, env=ENVIRONMENT)
    actual = render_text(checked.problems)
    if os.environ.get("SLUICEWAY_ACCEPT") == "1":
        golden.write_text(actual)

    assert golden.read_text() == actual
    assert has_errors(checked.problems) == (checked.document is None)


def test_every_recorded_output_has_its_configuration() -> None:
    """No output is left behind when its configuration is renamed."""
    recorded = {path.stem for path in BROKEN.glob("*.txt")}

    assert recorded == {Path(case).stem for case in CASES if not (BROKEN / case).is_dir()}
