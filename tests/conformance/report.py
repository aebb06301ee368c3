"""What the official suite left behind, read and judged: `checks.json` of every scenario against the scored list."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Final

import yaml
from attrs import frozen

OUT_OF_SCOPE: Final = ("tasks-",)
"""Unscored scenarios of extensions that the gateway does not have, by prefix; their failures are shown, not judged."""
BASELINE: Final = {"2025-11-25": (30, 69), "2026-07-28": (37, 120)}
"""
Scored scenarios and passing checks; fewer than that is a failure.

Both official SDKs have as many, and one more check for 2025-11-25: they answer lists as event streams, which makes
`server-sse-streams-functional` a success where it is only informational for JSON.
"""


@frozen
class Scenario:
    """One scenario's outcome."""

    name: str
    scored: bool
    statuses: tuple[tuple[str, str, str], ...]
    """Check id, status and error text of each check."""

    @property
    def passed(self) -> bool:
        """A scenario passes if it ran and no check failed."""
        return bool(self.statuses) and all(status != "FAILURE" for _, status, _ in self.statuses)

    @property
    def counts(self) -> bool:
        """Whether its failure is ours to mend."""
        return self.scored or not self.name.startswith(OUT_OF_SCOPE)


@frozen
class Leg:
    """One run of the suite."""

    title: str
    revision: str
    scenarios: tuple[Scenario, ...]

    def totals(self) -> tuple[int, int, int, int]:
        """Scored scenarios passed and run, their checks passed and judged."""
        scored = [each for each in self.scenarios if each.scored]
        statuses = Counter(status for each in scored for _, status, _ in each.statuses)
        passed = sum(each.passed for each in scored)
        return passed, len(scored), statuses["SUCCESS"], statuses["SUCCESS"] + statuses["FAILURE"]

    def failures(self) -> list[str]:
        """One line for each failed check that counts, and for totals below the baseline."""
        lines = [
            f"{each.name}: {check}: {text}"
            for each in self.scenarios
            for check, status, text in each.statuses
            if status == "FAILURE" and each.counts
        ]
        lines += [f"{each.name}: did not run" for each in self.scenarios if each.scored and not each.statuses]
        scenarios, checks = BASELINE[self.revision]
        passed, _, ok, _ = self.totals()
        if passed < scenarios or ok < checks:
            lines.append(f"{passed} scenarios and {ok} checks passed; {scenarios} and {checks} are expected")
        return lines

    def warnings(self) -> list[str]:
        """One line for each warning."""
        return [
            f"{each.name}: {check}: {text}"
            for each in self.scenarios
            for check, status, text in each.statuses
            if status == "WARNING" and each.counts
        ]

    def row(self) -> str:
        """The leg as a line of the table."""
        passed, scored, ok, judged = self.totals()
        others = [each for each in self.scenarios if not each.scored]
        extra = f"{sum(each.passed for each in others)}/{len(others)}"
        return f"{self.title:<28} {self.revision:<12} {passed:>3}/{scored:<4} {ok:>4}/{judged:<5} {extra:>6}"


HEADING: Final = f"{'leg':<28} {'revision':<12} {'scenarios':>8} {'checks':>10} {'unscored':>8}"


def read_leg(title: str, revision: str, requirements: Path, output: Path) -> Leg:
    """
    Read one run.

    Args:
        title: For the table.
        revision: The protocol revision that was asked for.
        requirements: The suite's frozen list of that revision.
        output: The directory it wrote to.
    """
    listed = yaml.safe_load(requirements.read_text(encoding="utf-8"))
    scored = list(listed["server"])
    unscored = [each["scenario"] for each in listed["not_scored"] if each["leg"] == "server"]
    found = {path.parent.name: path for path in output.glob("*/checks.json")}
    return Leg(
        title,
        revision,
        tuple(Scenario(name, name in scored, _statuses(name, found)) for name in (*scored, *unscored)),
    )


def _statuses(name: str, found: dict[str, Path]) -> tuple[tuple[str, str, str], ...]:
    """The checks of the scenario's directory, `server-<name>-<time>`."""
    for directory, path in found.items():
        if directory.startswith(f"server-{name}-2"):
            checks = json.loads(path.read_text(encoding="utf-8"))
            return tuple((each["id"], each["status"], each.get("errorMessage") or "") for each in checks)
    return ()
