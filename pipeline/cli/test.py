"""`sluiceway test`: what configurations are expected to do, tried in memory and in virtual time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from .exits import Exit, usage
from .output import Format, emit, emit_json, printable, say

if TYPE_CHECKING:
    from ..testing.cases.coverage import Coverage
    from ..testing.cases.report import SuiteResult

_CONFIGURATIONS: Final = frozenset({".yaml", ".yml", ".toml"})


def run_tests(
    *files: Path,
    keyword: Annotated[str | None, Parameter(name=["--keyword", "-k"])] = None,
    junit: Path | None = None,
    format: Format = "text",
    coverage: bool = False,
    fail_under: float | None = None,
    watch: bool = False,
) -> int:
    """
    Run the tests of configurations: those under `tests:`, and those in `<name>_test.yaml` beside them.

    Nothing is listened to and nothing is reached: sinks are what each test puts in their place. Time is virtual, chance
    is seeded; every run is the same. Exit code 1 if a test fails, 2 if none could be run.

    Args:
        files: Files of tests, configurations, or directories; the current directory if none is named.
        keyword: Run only tests whose name contains this, without regard to case; `not WORD` for those that do not.
        junit: Also write the results to a file, in JUnit's form.
        format: `text` for people, `json` for programs.
        coverage: Also say what of each configuration no test has touched: stages, guards, rules, sinks.
        fail_under: Fail if less than this share of a configuration is touched, in percent; implies `--coverage`.
        watch: Run again whenever a file changes, until interrupted.
    """
    if fail_under is not None and not 0 <= fail_under <= 100:
        raise usage("--fail-under is a percentage, from 0 to 100")
    code = _round(files, keyword, junit, format, coverage or fail_under is not None, fail_under)
    if not watch:
        return code[0]
    import watchfiles

    while True:
        say("watching; interrupt to end")
        next(iter(watchfiles.watch(*code[1], recursive=False)), None)
        code = _round(files, keyword, junit, format, coverage or fail_under is not None, fail_under)


def _round(
    files: Sequence[Path],
    keyword: str | None,
    junit: Path | None,
    format: Format,
    coverage: bool,
    fail_under: float | None,
) -> tuple[int, list[Path]]:
    """Run everything once: the exit code, and the directories of what was read."""
    from ..testing.cases.report import as_json, render_junit, summary

    found: dict[Path, Coverage] = {}
    results: list[SuiteResult] = []
    for path in _suites(files or (Path(),)):
        result = _run(path, keyword, found if coverage else None)
        results.append(result)
        if format == "text":
            _show(result)
    if junit is not None:
        junit.write_text(render_junit(results), encoding="utf-8")
    if format == "json":
        emit_json({"suites": as_json(results), **_coverage_json(found)})
    covered = _show_coverage(found, fail_under, format)
    say(summary(results))
    folders = sorted({Path(each).resolve().parent for result in results for each in result.files} or {Path()})
    if not any(result.outcomes for result in results):
        return Exit.FOUND if any(result.problems for result in results) else Exit.USAGE, folders
    is_right = covered and not any(result.failed or result.problems for result in results)
    return Exit.OK if is_right else Exit.FOUND, folders


def _run(path: Path, keyword: str | None, found: dict[Path, Coverage] | None) -> SuiteResult:
    from ..config import has_errors
    from ..testing.cases.coverage import Coverage
    from ..testing.cases.report import SuiteResult
    from ..testing.cases.running import prepared, run_case

    with prepared(path) as suite:
        if suite.document is None or has_errors(suite.problems):
            return SuiteResult(str(path), problems=suite.problems, files=suite.files)
        wanted = [each for each in suite.tests if _is_wanted(each.case.name, keyword)]
        seen = None
        if found is not None:
            main = suite.document.files[0]
            seen = found.setdefault(main, Coverage(suite.document))
        outcomes = [run_case(each, suite.document, seen) for each in wanted]
        return SuiteResult(str(path), outcomes, skipped=len(suite.tests) - len(wanted), files=suite.files)


def _is_wanted(name: str, keyword: str | None) -> bool:
    if keyword is None:
        return True
    word = keyword.strip().lower()
    if word.startswith("not "):
        return word.removeprefix("not ").strip() not in name.lower()
    return word in name.lower()


def _suites(files: Sequence[Path]) -> Iterator[Path]:
    """The files to run: of a configuration also its file of tests, of a directory all there are."""
    from ..config.suites import is_suite, suite_beside

    seen: set[Path] = set()
    for file in files:
        if not file.exists():
            raise usage(f"{file} does not exist")
        if file.is_dir():
            inside = sorted(path for path in file.rglob("*") if path.suffix in _CONFIGURATIONS and path.is_file())
            chosen = [path for path in inside if not _is_hidden(path, file) and _has_tests(path)]
        elif is_suite(file):
            chosen = [file]
        else:
            beside = suite_beside(file)
            chosen = [file] * (beside is None or _has_tests(file)) + ([] if beside is None else [beside])
        for path in chosen:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _has_tests(path: Path) -> bool:
    """Whether a file has tests at its top level; files of others may have such names."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return any(line.startswith(("tests:", "[[tests]]", "tests =")) for line in text.splitlines())


def _show(result: SuiteResult) -> None:
    from ..config import render_text
    from ..testing.cases.report import render_failure

    if result.problems:
        sys.stdout.write(render_text(result.problems))
        return
    for outcome in result.outcomes:
        emit(f"{'ok    ' if outcome.passed else 'FAILED'}  {result.name}: {outcome.name}")
    for outcome in result.failed:
        emit("")
        emit(printable(render_failure(outcome)))


def _coverage_json(found: dict[Path, Coverage]) -> dict[str, object]:
    from ..testing.cases.coverage import as_json

    return {"coverage": {str(path): as_json(seen) for path, seen in found.items()}} if found else {}


def _show_coverage(found: dict[Path, Coverage], fail_under: float | None, format: Format) -> bool:
    """Say what was not touched; whether enough was."""
    from ..config.include import shown_name

    enough = True
    for path, seen in found.items():
        if format == "text":
            emit(f"\n{shown_name(path)}: {seen.touched} of {len(seen.items)} touched ({seen.share:.0%})")
            for item in seen.missing():
                emit(f"  {item.place}: {item.kind} {item.id}: {item.missing}")
        if fail_under is not None and seen.share * 100 < fail_under:
            say(f"{path}: {seen.share:.1%} is less than {fail_under:g}%")
            enough = False
    return enough
