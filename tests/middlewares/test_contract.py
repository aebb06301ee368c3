"""
Every built-in stage keeps the contract of stages, with its defaults and with all it can do switched on.

`options/<stage>.py` may say more than its rows: `REQUIRED`, the options without which the stage cannot be; `SENT`, what
else `check_middleware` is to be given with them (`client`, `caller`, ...); and `VARIANTS`, further cases, each the
arguments of one call (`{"config": {...}, "samples": [...]}`).
"""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sluiceway.pipeline.model.component import ComponentKind, Middleware
from sluiceway.pipeline.model.registry import BUILT_IN, Registry
from sluiceway.pipeline.testing import check_middleware

OPTIONS = Path(__file__).parent / "options"
SAID = {name: runpy.run_path(str(OPTIONS / f"{name}.py")) for name in sorted(BUILT_IN[ComponentKind.MIDDLEWARE])}
"""What the files say, by stage."""
CASES: list[tuple[str, Mapping[str, Any]]] = [
    (name, arguments)
    for name, said in SAID.items()
    for arguments in ({"config": said.get("REQUIRED"), **said.get("SENT", {})}, *said.get("VARIANTS", ()))
]


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=[name for name, _ in CASES])
def test_a_stage_keeps_the_contract(name: str, arguments: Mapping[str, Any]) -> None:
    """A stage with no reason to act does nothing that a stage must not do."""
    cls = Registry().find(ComponentKind.MIDDLEWARE, name)
    assert issubclass(cls, Middleware)

    check_middleware(cls, **arguments)
