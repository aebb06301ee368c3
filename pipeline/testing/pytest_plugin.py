"""
Fixtures of the test kit, for every project that has Sluiceway installed; and tests of configurations
(`<name>_test.yaml`) as tests of pytest's.

Imports nothing of ours at module level: pytest loads its plugins before coverage starts, and what is imported by then
is never measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, final

import pytest

if TYPE_CHECKING:
    from ..model.faults import FaultPlan
    from .cases.running import Outcome
    from .fakes import FakeSink
    from .harness import PipelineHarness
    from .leaks import LeakOracle
    from .tapes import TapeKit


@pytest.fixture
def leak_oracle(request: pytest.FixtureRequest) -> Iterator[LeakOracle]:
    """
    Fails the test at its end if it left a child process, descriptor, thread, or entry of a watched table behind.

    Fixtures that are set up after this one are torn down before it looks. A test that failed is not looked at: its
    traceback keeps things alive.
    """
    from .leaks import LeakOracle

    failed_before = request.session.testsfailed
    oracle = LeakOracle()
    yield oracle
    if request.session.testsfailed == failed_before:
        oracle.check()


@pytest.fixture
def gateway_harness() -> type[PipelineHarness]:
    """
    `PipelineHarness`: `async with gateway_harness.from_yaml("gateway.yaml", sinks={...}) as gateway:`.

    A test in which time passes asks for `autojump_clock` too; pytest-trio takes clocks from the test's own arguments.
    """
    from .harness import PipelineHarness

    return PipelineHarness


@pytest.fixture
def fake_sink() -> FakeSink:
    """A fresh `FakeSink` that holds its requests until the test answers them."""
    from .fakes import FakeSink

    return FakeSink()


@pytest.fixture
def fault_plan() -> Callable[..., FaultPlan]:
    """
    Makes fault plans: `fault_plan({"effect": "reset", "times": 2}, {"latency": "200ms"}, seed=7)`, as in YAML.

    For `FakeSink.faulty(plan)`, `open_fault_proxy`, or `suffer` in a sink of your own.
    """
    import random

    from ..model.faults import Fault, FaultPlan
    from .configs import make_group

    def make(*faults: Fault | dict[str, Any], seed: int = 0) -> FaultPlan:
        made = [each if isinstance(each, Fault) else make_group(Fault, each) for each in faults]
        return FaultPlan(made, random.Random(seed))  # noqa: S311  # the same faults in every run

    return make


@pytest.fixture
def tape(tmp_path: Path) -> TapeKit:
    """
    Records a gateway under test, and replays tapes: `async with tape.recording() as edges:`, `tape.check(config)`.

    `tape.check(Path("gateway.yaml"), Path("calls.jsonl"))` fails and says what comes out differently on your own tape.
    """
    from .tapes import TapeKit

    return TapeKit(tmp_path / "tape.jsonl")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Take files of tests of configurations; other programs' files with such names have no `tests:`."""
    if not file_path.name.endswith(("_test.yaml", "_test.yml")):
        return None
    text = file_path.read_text(encoding="utf-8", errors="replace")
    if not any(line.startswith("tests:") for line in text.splitlines()):
        return None
    found: SuiteFile = SuiteFile.from_parent(parent, path=file_path)
    return found


@final
class SuiteFile(pytest.File):
    """A file of tests of a configuration."""

    def collect(self) -> Iterator[CaseItem]:
        """Its tests; one that says what is wrong if there are errors."""
        from .cases.running import prepared

        with prepared(self.path) as suite:
            if suite.document is None:
                yield CaseItem.from_parent(self, name="it can be run")
                return
            for declared in suite.tests:
                yield CaseItem.from_parent(self, name=declared.case.name)


@final
class CaseItem(pytest.Item):
    """One test of a configuration."""

    def obj(self) -> None:
        """Other plugins look whether the function behind an item is an async one. There is none behind these."""

    def runtest(self) -> None:
        """Run it, in a gateway of its own."""
        from ..config import render_text
        from .cases.running import prepared, run_case

        with prepared(self.path) as suite:
            if suite.document is None:
                raise CaseFailed(render_text(suite.problems))
            declared = next(each for each in suite.tests if each.case.name == self.name)
            outcome = run_case(declared, suite.document)
        if not outcome.passed:
            fail(outcome)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What was expected and what came, without a traceback of ours."""
        if isinstance(excinfo.value, CaseFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it stands, for the heading of its failure."""
        return self.path, None, self.name


def fail(outcome: Outcome) -> NoReturn:
    """
    End a test of pytest's because a test of a configuration failed.

    Raises:
        CaseFailed: With everything that is known.
    """
    from .cases.report import render_failure

    raise CaseFailed(render_failure(outcome))


@final
class CaseFailed(Exception):
    """A test of a configuration failed; the text says how."""
