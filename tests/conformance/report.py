"""What the official suite left behind, read and judged: `checks.json` of every scenario against the scored list."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Final

import yaml
from across import is_across, known, must_be_lost
from attrs import frozen

OUT_OF_SCOPE: Final = ("tasks-",)
"""Unscored scenarios of extensions that the gateway does not have, by prefix; their failures are shown, not judged."""
NOTES: Final = ("outgoing-", "incoming-")
"""Ids of what the suite only writes down, by prefix."""
BASELINE: Final = {
    ("server", "2025-11-25"): (30, 69),
    ("server", "2026-07-28"): (37, 120),
    ("client", "2025-11-25"): (4, 11),
    ("client", "2026-07-28"): (7, 55),
}
"""Scored scenarios and passing checks; fewer than that is a failure, whatever the direct run has."""
POLLED: Final = (
    "the SDK's server loses the first event of a stream that it closes early under Hypercorn's Trio worker; the "
    "gateway's streams are its own"
)
ROUTED: Final = (
    "a route knows which ids of tasks are none of its own, as the check wants; the fixture behind it does not"
)
DONE: Final = "done"
"""What the driver of client scenarios prints at its end."""
EXPECTED: Final = {
    ("server-sse-polling", "server-sse-content-type"): POLLED,
    ("server-sse-polling", "server-sse-priming-event"): POLLED,
    ("server-sse-polling", "server-sse-retry-field"): POLLED,
    ("server-sse-polling", "server-sse-disconnect-resume"): POLLED,
    ("server-sse-polling", "stream-closed"): POLLED,
    ("tasks-dispatch-and-envelope", "sep-2663-tasks-get-invalid-task-id-32602"): ROUTED,
}
"""Checks that may differ from the direct run though neither fails, by scenario and id, each with its reason."""
PEERS: Final[dict[tuple[str, str], dict[str, tuple[int, int | None, int | None]]]] = {
    ("server", "2025-11-25"): {
        "fastmcp 4.1.6": (27, 67, 70),
        "mcp-proxy 0.13.0 (PyPI)": (23, 54, 61),
        "mcp-proxy 6.7.19 (npm)": (24, 56, 62),
        "supergateway 4.0.0": (29, 69, 70),
    },
    ("server", "2026-07-28"): {
        "fastmcp 4.1.6": (34, 111, 115),
        "mcp-proxy 0.13.0 (PyPI)": (5, None, None),
        "mcp-proxy 6.7.19 (npm)": (26, 99, 110),
        "supergateway 4.0.0": (35, 112, 118),
    },
    ("client", "2025-11-25"): {"fastmcp 4.1.6": (4, None, None)},
    ("client", "2026-07-28"): {"fastmcp 4.1.6": (6, None, None)},
}
"""What other gateways reach with the same suite: scenarios passed, checks passed and judged where they were counted."""


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

    def outcomes(self) -> dict[str, list[str]]:
        """What each check came to, by its id, sorted; requests and events that the suite only notes are left out."""
        found: dict[str, list[str]] = {}
        for check, status, _ in self.statuses:
            if not check.startswith(NOTES):
                found.setdefault(check, []).append(status)
        return {check: sorted(statuses) for check, statuses in found.items()}

    @property
    def counts(self) -> bool:
        """Whether its failure is ours to mend."""
        return self.scored or not self.name.startswith(OUT_OF_SCOPE)


@frozen
class Leg:
    """One run of the suite."""

    title: str
    kind: str
    """`server` if the suite is the client, `client` if it is the server."""
    revision: str
    scenarios: tuple[Scenario, ...]

    def totals(self) -> tuple[int, int, int, int]:
        """Scored scenarios passed and run, their checks passed and judged."""
        scored = [each for each in self.scenarios if each.scored]
        statuses = Counter(status for each in scored for _, status, _ in each.statuses)
        passed = sum(each.passed for each in scored)
        return passed, len(scored), statuses["SUCCESS"], statuses["SUCCESS"] + statuses["FAILURE"]

    def failures(self) -> list[str]:
        """One line for each failed check that counts, and for totals below the baseline; `across` excuses some."""
        excused = known(self.title)
        lines = [
            f"{each.name}: {check}: {text}"
            for each in self.scenarios
            for check, status, text in each.statuses
            if status == "FAILURE" and each.counts and (each.name, check) not in excused
        ]
        lines += [f"{each.name}: did not run" for each in self.scenarios if each.scored and not each.statuses]
        scenarios, checks = BASELINE[self.kind, self.revision]
        passed, _, ok, _ = self.totals()
        if not is_across(self.title) and (passed < scenarios or ok < checks):
            lines.append(f"{passed} scenarios and {ok} checks passed; {scenarios} and {checks} are expected")
        return lines

    def differences(self, direct: Leg) -> list[str]:
        """
        One line for each check that did not come out as in the direct run, unscored scenarios included.

        A check that may differ (`EXPECTED`) must still not fail, unless eras differ. One that is known to be lost there
        must be.
        """
        lines: list[str] = []
        lost, certain = known(self.title), must_be_lost(self.title)
        straight = {each.name: each.outcomes() for each in direct.scenarios}
        for each in self.scenarios:
            ours, theirs = each.outcomes(), straight[each.name]
            for check in sorted({*ours, *theirs}):
                got, wanted = ours.get(check, []), theirs.get(check, [])
                excused = (each.name, check) in EXPECTED and "FAILURE" not in got
                if got == wanted and (each.name, check) in certain:
                    lines.append(f"{each.name}: {check}: comes out as directly, but is listed as lost in across.py")
                if got != wanted and not excused and (each.name, check) not in lost:
                    lines.append(f"{each.name}: {check}: {_words(got)}, but {_words(wanted)} directly")
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
        unscored = f"{sum(each.passed for each in others)}/{len(others)}"
        return _row(self.title, self.revision, f"{passed}/{scored}", f"{ok}/{judged}", unscored)


def peers(kind: str, revision: str) -> list[str]:
    """Lines of the table for other gateways."""
    scenarios, _ = BASELINE[kind, revision]
    return [
        _row(f"  {name}", revision, f"{passed}/{scenarios}", "" if ok is None else f"{ok}/{judged}", "")
        for name, (passed, ok, judged) in PEERS[kind, revision].items()
    ]


def _row(title: str, revision: str, scenarios: str, checks: str, unscored: str) -> str:
    return f"{title:<40} {revision:<10} {scenarios:>9} {checks:>8} {unscored:>8}".rstrip()


def _words(statuses: list[str]) -> str:
    return " and ".join(statuses) or "not judged"


HEADING: Final = _row("leg", "revision", "scenarios", "checks", "unscored")


def read_leg(title: str, kind: str, revision: str, requirements: Path, output: Path) -> Leg:
    """
    Read one run.

    Args:
        title: For the table.
        kind: `server` or `client`: what the suite has tested.
        revision: The protocol revision that was asked for.
        requirements: The suite's frozen list of that revision.
        output: The directory it wrote to.
    """
    prefix = "server-" if kind == "server" else ""
    found = {path.parent.name: path for path in output.glob("*/checks.json")}
    return Leg(
        title,
        kind,
        revision,
        tuple(
            Scenario(name, scored, _statuses(f"{prefix}{name}", found))
            for name, scored in scenarios_of(kind, requirements).items()
        ),
    )


def scenarios_of(kind: str, requirements: Path) -> dict[str, bool]:
    """The scenarios of a revision, but for those about authorization; whether each is scored."""
    listed = yaml.safe_load(requirements.read_text(encoding="utf-8"))
    unscored = [each["scenario"] for each in listed["not_scored"] if each["leg"] == kind]
    every = {**dict.fromkeys(listed[kind], True), **dict.fromkeys(unscored, False)}
    return {name: scored for name, scored in every.items() if not name.startswith("auth/")}


def _statuses(name: str, found: dict[str, Path]) -> tuple[tuple[str, str, str], ...]:
    """The checks of the scenario's directory, `<name>-<time>`; and whether the client failed that it has watched."""
    for directory, path in found.items():
        if directory.startswith(f"{name}-2"):
            checks = json.loads(path.read_text(encoding="utf-8"))
            statuses = [(each["id"], each["status"], each.get("errorMessage") or "") for each in checks]
            return (*statuses, *_abandoned(path.with_name("stdout.txt")))
    return ()


def _abandoned(output: Path) -> list[tuple[str, str, str]]:
    """A check of our own, where the suite has watched a client: it has come to the end of what it wanted to do."""
    if not output.exists() or DONE in output.read_text(encoding="utf-8").splitlines():
        return []
    return [("driver", "FAILURE", f"the client has failed; see {output.with_name('stderr.txt')}")]
