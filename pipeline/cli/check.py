"""`sluiceway check`: everything that is wrong with configurations. Opens nothing and reads no secret."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from .documents import Environment, Overlays, check_file, overlays_of
from .exits import Exit, usage
from .output import say

if TYPE_CHECKING:
    from ..config import Checked, Problem

CheckFormat = Literal["text", "json", "github"]

_CONFIGURATIONS: Final = frozenset({".yaml", ".yml", ".toml"})
_YAML_VERSION: Final = re.compile(r"^version:[ \t]*\d+[ \t]*(#.*)?$", re.MULTILINE)
_TOML_VERSION: Final = re.compile(r"^version[ \t]*=[ \t]*\d+[ \t]*(#.*)?$", re.MULTILINE)
_MARKDOWN: Final = frozenset({".md", ".markdown"})


def check(
    *files: Path,
    connect: bool = False,
    deny_warnings: bool = False,
    env: Environment = None,
    overlay: Overlays = None,
    format: CheckFormat = "text",
) -> int:
    """
    Find everything that is wrong with configurations, without running them.

    Reads the named files and imports their plugins, nothing else; no secret is needed. In a Markdown file the fenced
    yaml blocks that have a version: are checked; of a directory, the files that have one, and files of tests
    (`<name>_test.yaml`).

    Args:
        files: YAML, TOML or Markdown files, or directories; the current directory if none is named.
        connect: Also open every sink and ask it what it offers. Needs the secrets.
        deny_warnings: Fail on warnings, too.
        env: Check with the overlay of this environment, `<file>.<env>.yaml`.
        overlay: A file laid over the named one; may be given several times.
        format: `text` for people, `json` for programs, `github` for annotations in GitHub Actions.
    """
    from ..config import has_errors, render_github, render_json, render_text

    if (env or overlay) and (len(files) != 1 or files[0].is_dir()):
        raise usage("--env and --overlay go with exactly one file")
    results = list(_results(files or (Path(),), env, overlay))
    problems = [problem for checked in results for problem in checked.problems]
    if connect and not has_errors(problems):
        problems += _connect(results)
    render = {"text": render_text, "json": render_json, "github": render_github}[format]
    sys.stdout.write(render(problems))
    say(_summary(len(results), problems))
    failed = has_errors(problems) or (deny_warnings and any(each.level == "warning" for each in problems))
    return Exit.FOUND if failed else Exit.OK


def _results(files: Sequence[Path], env: str | None, overlay: Sequence[Path] | None) -> Iterator[Checked]:
    for file in files:
        if file.is_dir():
            inside = _inside(file)
            if not inside:
                raise usage(f"{file.absolute()} holds no configuration: no file there has a version: at its top level")
            for found in inside:
                yield from _one(found, [])
        elif not file.exists():
            raise usage(f"{file} does not exist")
        else:
            yield from _one(file, overlays_of(file, env, overlay))


def _one(file: Path, overlays: Sequence[Path]) -> Iterator[Checked]:
    from ..config.suites import is_suite

    if is_suite(file):
        yield _of_tests(file)
        return
    if file.suffix.lower() not in _MARKDOWN:
        yield check_file(file, overlays)
        return
    from ..config import check_text
    from .markdown import configurations

    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        yield check_file(file)  # which says where
        return
    for block in configurations(text):
        yield check_text(block.text, str(file), base=file.parent)


def _of_tests(file: Path) -> Checked:
    """A file of tests, with what is wrong with the configuration that it is about."""
    from ..config import Checked
    from ..config.suites import TEST_DIR, check_suite
    from ..model.registry import Registry

    suite = check_suite(file, {**os.environ, TEST_DIR: tempfile.gettempdir()})
    return Checked(suite.document, suite.problems, Registry(), suite.tests)


def _inside(folder: Path) -> list[Path]:
    """The files below a folder that are configurations of their own: the others are parts and overlays of those."""
    suffixes = _CONFIGURATIONS | _MARKDOWN
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return [
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and (path.suffix.lower() in _MARKDOWN or _declares_version(path) or _is_suite_of_ours(path))
    ]


def _is_suite_of_ours(path: Path) -> bool:
    """Whether a file holds tests of a configuration, by its name and its top level."""
    from ..config.suites import is_suite

    return is_suite(path) and "\ntests:" in f"\n{path.read_text(encoding='utf-8', errors='replace')}"


def _declares_version(path: Path) -> bool:
    """Whether a file says at its top level which version of our format it has; many other files have a version."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix.lower() == ".toml":
        return _TOML_VERSION.search(text.partition("\n[")[0]) is not None
    return _YAML_VERSION.search(text) is not None


def _connect(results: Sequence[Checked]) -> list[Problem]:
    from .connect import connect_all

    return connect_all([checked.document for checked in results if checked.document is not None])


def _summary(count: int, problems: Sequence[Problem]) -> str:
    counts = {level: sum(each.level == level for each in problems) for level in ("error", "warning", "info")}
    found = [
        f"{number} {level}{'s' if number > 1 and level != 'info' else ''}" for level, number in counts.items() if number
    ]
    return f"{_plural(count, 'configuration')}: {', '.join(found) or 'nothing to report'}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 or noun == "info" else f"{count} {noun}s"
