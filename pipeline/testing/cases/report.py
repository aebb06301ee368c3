"""How tests of configurations ended: for people, for programs, and for CI servers (JUnit). Pure."""

from __future__ import annotations

import difflib
import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, final

from attrs import Factory, frozen

from ...config.problems import Problem, excerpt
from ...model.patterns import ABSENT
from ...protocol.messages import Json
from .findings import Finding
from .running import Outcome

_SHORT: Final = 70
"""Characters of a value that is shown on a line of its own kind; longer ones become a diff."""


@final
@frozen
class SuiteResult:
    """What came of one file."""

    name: str
    """The file, as shown."""
    outcomes: Sequence[Outcome] = ()
    problems: Sequence[Problem] = ()
    """Why nothing of it was run; empty if it was."""
    skipped: int = 0
    """Tests that were not asked for."""
    files: Sequence[Any] = Factory(tuple)
    """Every file that was read, to watch."""

    @property
    def failed(self) -> list[Outcome]:
        """Tests that did not pass."""
        return [outcome for outcome in self.outcomes if not outcome.passed]


def render_failure(outcome: Outcome) -> str:
    """What went wrong in one test: place, line, expected and actual, and the way through the chain."""
    lines: list[str] = []
    shown: set[int] = set()
    for finding in outcome.findings:
        span = outcome.span(finding)
        lines.append(f"{span}: {outcome.name}: {finding.message}")
        lines += excerpt(span)
        lines += [f"   {line}" for line in _comparison(finding)]
        if finding.hint:
            lines.append(f"   hint: {finding.hint}")
        way = outcome.ways.get(id(finding.subject), [])
        if way and id(finding.subject) not in shown:
            shown.add(id(finding.subject))
            lines += [f"   the way of {way[0]}", *(f"   {line}" for line in way[1:])]
    for entry in outcome.log:
        lines += ["   logged:", *(f"     {line}" for line in entry.splitlines())]
    return "\n".join(lines) + "\n"


def _comparison(finding: Finding) -> Iterator[str]:
    """Expected against actual: on two lines if they are short, else as a diff."""
    if finding.expected is ABSENT and finding.actual is ABSENT:
        return
    expected, actual = _json(finding.expected), _json(finding.actual)
    if len(expected) <= _SHORT and len(actual) <= _SHORT:
        yield f"expected{f' {finding.where}' if finding.where else ''}: {expected}"
        yield f"actual  {f' {finding.where}' if finding.where else ''}: {actual}"
        return
    if finding.where:
        yield f"at {finding.where}:"
    before, after = _long(_unwrapped(finding.expected)), _long(finding.actual)
    for line in list(difflib.unified_diff(before, after, "expected", "actual", n=3, lineterm=""))[:60]:
        if not line.startswith("@@"):
            yield line


def _unwrapped(pattern: Json) -> Json:
    """What `$exact` is about: its lines are those of the value."""
    return pattern["$exact"] if isinstance(pattern, dict) and pattern.keys() == {"$exact"} else pattern


def _json(value: Json) -> str:
    return "nothing" if value is ABSENT else json.dumps(value, ensure_ascii=False, default=str)


def _long(value: Json) -> list[str]:
    if value is ABSENT:
        return ["nothing"]
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, default=str).splitlines()


def summary(results: Sequence[SuiteResult]) -> str:
    """One line: `12 passed, 1 failed, 3 not selected, in 0.2 s (1 h 3 min of virtual time)`."""
    outcomes = [outcome for result in results for outcome in result.outcomes]
    counts = [
        (sum(outcome.passed for outcome in outcomes), "passed"),
        (sum(not outcome.passed for outcome in outcomes), "failed"),
        (sum(bool(result.problems) for result in results), "not run because of errors"),
        (sum(result.skipped for result in results), "not selected"),
    ]
    said = ", ".join(f"{count} {word}" for count, word in counts if count) or "no tests"
    virtual = sum(outcome.virtual_s for outcome in outcomes)
    return f"{said}, in {sum(outcome.real_s for outcome in outcomes):.1f} s ({virtual:.0f} s of virtual time)"


def as_json(results: Iterable[SuiteResult]) -> list[Mapping[str, Any]]:
    """For programs: one object a file."""
    return [
        {
            "file": result.name,
            "problems": [str(problem) for problem in result.problems],
            "not_selected": result.skipped,
            "tests": [_test(outcome) for outcome in result.outcomes],
        }
        for result in results
    ]


def _test(outcome: Outcome) -> Mapping[str, Any]:
    return {
        "name": outcome.name,
        "passed": outcome.passed,
        "seconds": round(outcome.real_s, 6),
        "virtual_seconds": round(outcome.virtual_s, 6),
        "findings": [
            {
                "file": (span := outcome.span(finding)).source.name,
                "line": span.line,
                "column": span.column,
                "message": finding.message,
                "where": finding.where or None,
                "expected": None if finding.expected is ABSENT else finding.expected,
                "actual": None if finding.actual is ABSENT else finding.actual,
                "hint": finding.hint or None,
                "way": outcome.ways.get(id(finding.subject), []),
            }
            for finding in outcome.findings
        ],
        "log": outcome.log,
    }


def render_junit(results: Sequence[SuiteResult]) -> str:
    """The JUnit form that CI servers read: one `testsuite` a file."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', "<testsuites>"]
    for result in results:
        took = sum(outcome.real_s for outcome in result.outcomes)
        tests, errors = len(result.outcomes) + bool(result.problems), int(bool(result.problems))
        head = f'name="{_xml(result.name)}" tests="{tests}" failures="{len(result.failed)}" errors="{errors}"'
        lines.append(f'  <testsuite {head} time="{took:.6f}">')
        if result.problems:
            text = "\n".join(map(str, result.problems))
            lines += [
                f'    <testcase classname="{_xml(result.name)}" name="it can be run">',
                f'      <error message="{_xml(result.problems[0].message)}">{_xml(text)}</error>',
                "    </testcase>",
            ]
        lines += [line for outcome in result.outcomes for line in _junit_case(result, outcome)]
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>"]) + "\n"


def _junit_case(result: SuiteResult, outcome: Outcome) -> Iterator[str]:
    line = outcome.declared.span(("name",)).line
    head = f'classname="{_xml(result.name)}" name="{_xml(outcome.name)}" file="{_xml(result.name)}" line="{line}"'
    if outcome.passed:
        yield f'    <testcase {head} time="{outcome.real_s:.6f}"/>'
        return
    yield f'    <testcase {head} time="{outcome.real_s:.6f}">'
    message = _xml(outcome.findings[0].message)
    yield f'      <failure message="{message}">{_xml(render_failure(outcome))}</failure>'
    yield "    </testcase>"


def _xml(text: str) -> str:
    """Escaped; without the control characters that XML cannot hold."""
    return html.escape("".join(c if c.isprintable() or c in "\n\t" else "?" for c in text))
