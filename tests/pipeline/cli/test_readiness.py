"""What keeps the collector away while a command gets ready."""

from __future__ import annotations

import gc
import importlib
import sys
from types import ModuleType

import pytest

from sluiceway.pipeline.cli.readiness import importing


def test_nothing_is_collected_meanwhile_and_afterwards_it_is_again() -> None:
    """The block ends with the collector as it was."""
    with importing():
        inside = gc.isenabled()

    assert not inside
    assert gc.isenabled()


def test_an_import_that_fails_leaves_the_collector_as_it_was() -> None:
    """Whatever is raised in the block."""
    with pytest.raises(ModuleNotFoundError), importing():
        importlib.import_module("sluiceway.no_such_module")

    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    """Whoever turned it off has a reason."""
    gc.disable()
    try:
        with importing():
            pass

        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_was_imported_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a block that brought something new is remembered."""
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    with importing():
        pass
    before = list(frozen)
    with importing():
        monkeypatch.setitem(sys.modules, "brought_by_a_test", ModuleType("brought_by_a_test"))

    assert before == []
    assert frozen == [True]
