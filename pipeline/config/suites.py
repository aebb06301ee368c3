"""
Files of tests: `<name>_test.yaml`, by default beside the configuration that they test.

    config: ./gateway.yaml            # may be left out: the name says it
    env: {STATE_DIR: "${TEST_DIR}"}   # variables that the configuration reads
    tests: [...]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

from attrs import Factory, field, frozen

from ..model.document import Document
from .case_rules import Declared
from .cases import read_cases
from .declarations import options_of
from .include import Reader, shown_name
from .keys import SuiteKeys
from .loading import check
from .nodes import Mapping as Tree
from .problems import Problem, SourceText, Span, has_errors, sort_problems, unknown
from .structure import Structurer

SUFFIX: Final = "_test"
"""How the name of a file of tests ends."""
TEST_DIR: Final = "TEST_DIR"
"""Variable that holds an empty directory while tests run."""
_FORMATS: Final = (".yaml", ".yml", ".toml")


@final
@frozen(kw_only=True)
class Suite:
    """The tests of one file, and what they test."""

    path: Path
    """The file that was asked for."""
    document: Document | None = None
    """The configuration under test; None if it, or a test, has errors."""
    tests: tuple[Declared, ...] = ()
    problems: tuple[Problem, ...] = ()
    """Everything that is wrong, warnings of the configuration left out."""
    env: Mapping[str, str] = Factory(dict)
    """Variables to set while the tests run."""
    files: tuple[Path, ...] = field(default=(), repr=False)
    """Every file that was read."""


def is_suite(path: Path) -> bool:
    """Whether a file is one of tests, by its name."""
    return path.suffix in _FORMATS and path.stem.endswith(SUFFIX)


def suite_beside(path: Path) -> Path | None:
    """The file of tests beside a configuration, if there is one."""
    found = (path.with_name(f"{path.stem}{SUFFIX}{suffix}") for suffix in _FORMATS)
    return next((each for each in found if each.is_file()), None)


def check_suite(path: Path, environment: Mapping[str, str]) -> Suite:
    """
    Read tests, and the configuration they are about. Never raises because of what is in them.

    Args:
        path: A file of tests, or a configuration: its own `tests:`, and those of the file beside it.
        environment: Variables for `${NAME}`, `TEST_DIR` among them.
    """
    if not is_suite(path):
        return _of_configuration(path, environment)
    reader = Reader(environment)
    root = reader.read(path)
    if root is None:
        return Suite(path=path, problems=sort_problems(reader.problems), files=tuple(reader.contents))
    keys = _keys(reader, root)
    config = None if keys is None else _config_of(path, keys, reader, root)
    if keys is None or config is None:
        return Suite(path=path, problems=sort_problems(reader.problems), files=tuple(reader.contents))
    checked = check(config, env={**environment, **keys.env})
    problems = [*reader.problems, *(problem for problem in checked.problems if problem.level == "error")]
    tests = read_cases(root.get("tests"), checked.document or Document(), problems)
    read = () if checked.document is None else checked.document.files
    return Suite(
        path=path,
        document=None if has_errors(problems) else checked.document,
        tests=tests,
        problems=sort_problems(problems, [*reader.contents, *read]),
        env=keys.env,
        files=(*reader.contents, *(read or (config,))),
    )


def _of_configuration(path: Path, environment: Mapping[str, str]) -> Suite:
    checked = check(path, env=environment)
    problems = tuple(problem for problem in checked.problems if problem.level == "error")
    files = (path,) if checked.document is None else checked.document.files
    return Suite(path=path, document=checked.document, tests=checked.tests, problems=problems, files=files)


def _keys(reader: Reader, root: Tree) -> SuiteKeys | None:
    known = [each.name for each in options_of(SuiteKeys)]
    allowed = [*known, "tests", "version"]
    for key, entry in root.entries.items():
        if key not in allowed and not key.startswith("x-"):
            message = unknown("key", key, allowed)
            reader.problems.append(Problem(rule="config/unknown-key", message=message, span=entry.key))
    if "tests" not in root.entries:
        reader.report("config/missing-key", "'tests' is required: what is expected", root.span, fix="add tests: [...]")
    keys: SuiteKeys | None = Structurer(reader.problems).structure(root.only(known), SuiteKeys)
    return keys


def _config_of(path: Path, keys: SuiteKeys, reader: Reader, root: Tree) -> Path | None:
    """The configuration that a file of tests is about."""
    if keys.config is not None:
        return keys.config
    stem = path.stem.removesuffix(SUFFIX)
    for suffix in _FORMATS:
        beside = path.with_name(f"{stem}{suffix}")
        if beside.is_file():
            return beside
    source = SourceText(shown_name(path), path.parent)
    reader.report(
        "tests/no-config", f"there is no {stem}.yaml beside it", Span(source), fix="say which: config: ./gateway.yaml"
    )
    return None
