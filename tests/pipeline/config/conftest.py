"""What every test of the configuration needs: the toy components, and a short way to check a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from sluiceway.pipeline.config import Checked, check_text
from sluiceway.pipeline.model.registry import Registry

HERE = Path(__file__).parent


@pytest.fixture
def registry() -> Registry:
    """The installed components and the toys."""
    registry = Registry()
    registry.load_plugin("toys.py", HERE)
    return registry


CheckIt = Callable[..., Checked]


@pytest.fixture
def check_it(registry: Registry, tmp_path: Path) -> CheckIt:
    """Check an indented YAML text."""

    def check(text: str, env: Mapping[str, str] | None = None, **more: Any) -> Checked:
        return check_text(dedent(text), "t.yaml", env=env or {}, registry=registry, **{"base": tmp_path} | more)

    return check


@pytest.fixture
def toy_chain(check_it: CheckIt) -> Callable[..., Checked]:
    """Check a minimal configuration around the flow-style list of stages `chain`."""

    def check(chain: str, env: Mapping[str, str] | None = None) -> Checked:
        text = f"version: 1\nsources: {{a: {{quiet_toy: {{}}}}}}\npipelines: {{main: {{chain: {chain}}}}}\n"
        return check_it(text + "sinks: {out: {echo_toy: {}}}\n", env)

    return check
