"""Includes and overlays: what is merged, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluiceway.pipeline.config import check, load
from sluiceway.pipeline.config.include import MAX_FILES
from sluiceway.pipeline.model.registry import Registry


def write(base: Path, **files: str) -> Path:
    """Files below a directory, `__` for a slash; the path of `main`."""
    for name, text in files.items():
        path = base / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return base / "main.yaml"


MAIN = "version: 1\npipelines: {main: {sink: a}}\n"


def test_included_files_add_to_the_maps_by_id(tmp_path: Path, registry: Registry) -> None:
    """Sections, plugins and `run` grow; a file that is reached twice is read once; TOML may be included."""
    main = write(
        tmp_path,
        main=MAIN + "include: ['${DIR}/*.yaml', sinks/a.yaml, more.toml]\nrun: {log_level: debug}\nplugins: []\n",
        sinks__a="sinks: {a: {echo_toy: {}}}\nplugins: [./plug.py]\nversion: 1\nx-note: {a: 1}\n",
        sinks__b="include: [deep/*.yaml]\nsinks: {b: {every: {}}}\nx-note: {b: 1}\n",
        sinks__deep__c="run: {drain_timeout: 1s}\n",
    )
    (tmp_path / "more.toml").write_text("[sources.s]\nquiet_toy = {}\n")
    (tmp_path / "sinks" / "plug.py").write_text(
        "from attrs import frozen\nfrom sluiceway.pipeline.model.component import Sink, sink\n"
        "@sink('every')\nclass Every(Sink):\n    'A sink.'\n    @frozen\n    class Config:\n        'None.'\n"
    )

    document = load(main, env={"DIR": "sinks"}, registry=registry)

    assert (["a", "b"], ["s"]) == (sorted(document.sinks), list(document.sources))
    assert ("debug", 1.0) == (document.run.log_level, document.run.drain_timeout)
    assert ["main.yaml", "a.yaml", "b.yaml", "c.yaml", "more.toml"] == [path.name for path in document.files]


def test_relative_paths_start_at_the_file_that_names_them(tmp_path: Path, registry: Registry) -> None:
    """An option in an included file, and one in the main file."""
    main = write(
        tmp_path,
        main="version: 1\ninclude: [sub/p.yaml]\nsinks: {a: {echo_toy: {}, chain: [every_toy: {path: x}]}}\n",
        sub__p="pipelines: {main: {chain: [every_toy: {path: x}]}}\n",
    )
    document = load(main, registry=registry)

    assert tmp_path / "sub" / "x" == document.pipelines["main"].chain[0].config.path
    assert tmp_path / "x" == document.sinks["a"].chain[0].config.path


def test_an_absolute_glob_and_strange_directory_names_work(tmp_path: Path, registry: Registry) -> None:
    """Brackets in the directory of the file are no pattern."""
    base = tmp_path / "[odd] *dir"
    main = write(base, main=MAIN + f"include: [s.yaml, '{tmp_path}/o*.yaml']\n", s="sinks: {a: {echo_toy: {}}}\n")
    (tmp_path / "other.yaml").write_text("stores: {m: {memory_toy: {}}}\n")

    assert ["m"] == list(load(main, registry=registry).stores)


@pytest.mark.parametrize(
    ("include", "rules"),
    [
        ("[main.yaml]", ["include/cycle"]),
        ("s.yaml", ["config/type"]),
        ("[1, [a], null]", ["config/type"] * 3),
        ("['${GONE}', s.yaml]", ["env/missing"]),
        ("[.]", ["include/nothing"]),
        ("[broken.yaml]", ["yaml/syntax"]),
        ("[list.yaml]", ["config/type"]),
    ],
)
def test_an_include_that_cannot_be_read_is_a_problem(
    tmp_path: Path, registry: Registry, include: str, rules: list[str]
) -> None:
    """At the place that names it."""
    main = write(
        tmp_path,
        main=MAIN + f"include: {include}\nsinks: {{a: {{echo_toy: {{}}}}}}\n",
        s="{}",
        broken="a: [",
        list="[]",
    )

    assert rules == [
        problem.rule for problem in check(main, env={}, registry=registry).problems if problem.level == "error"
    ]


def test_an_include_that_is_no_list_is_shown_as_one(tmp_path: Path, registry: Registry) -> None:
    """The problem says how it is written."""
    main = write(tmp_path, main=MAIN + "include: s.yaml\nsinks: {a: {echo_toy: {}}}\n")
    problem = check(main, env={}, registry=registry).problems[0]

    assert ("include: is a list of globs", "write [sinks/*.yaml]") == (problem.message, problem.fix)


def test_an_unreadable_included_file_is_reported_where_it_is_named(tmp_path: Path, registry: Registry) -> None:
    """A dangling link matches no file; a file that vanishes is told with its place."""
    main = write(tmp_path, main=MAIN + "include: [gone.yaml]\nsinks: {a: {echo_toy: {}}}\n")
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere.yaml")

    assert ["3:11"] == [
        f"{p.span.line}:{p.span.column}" for p in check(main, registry=registry).problems if p.level == "error"
    ]


def test_the_number_of_files_is_bounded(tmp_path: Path, registry: Registry) -> None:
    """A glob over a wrong directory does not read a disk."""
    main = write(tmp_path, main=MAIN + "include: [many/*.yaml]\n")
    (tmp_path / "many").mkdir()
    for number in range(MAX_FILES + 1):
        (tmp_path / "many" / f"{number:03}.yaml").write_text("{}")

    problems = [problem for problem in check(main, registry=registry).problems if problem.rule == "include/size"]

    assert [f"more than {MAX_FILES} files"] == [problem.message for problem in problems]


def test_an_overlay_may_include(tmp_path: Path, registry: Registry) -> None:
    """Its own files first, then it is laid over the base."""
    main = write(
        tmp_path,
        main=MAIN + "sinks: {a: {echo_toy: {}, max_in_flight: 1}}\n",
        over="include: [sub/*.yaml]\nsinks: {a: {required: false}}\n",
        sub__b="pipelines: {main: {timeout: 7s}}\n",
    )
    document = load(main, overlays=[tmp_path / "over.yaml"], registry=registry)

    assert (7.0, 1, False) == (
        document.pipelines["main"].limits.timeout, document.sinks["a"].max_in_flight, document.sinks["a"].required,
    )  # fmt: skip


@pytest.mark.parametrize("included", ["sinks: [b]", "sinks: b"])
def test_a_section_that_is_no_map_is_not_merged(tmp_path: Path, registry: Registry, included: str) -> None:
    """It is reported where it stands, together with the section that is one."""
    main = write(tmp_path, main=MAIN + "include: [more.yaml]\nsinks: {a: {echo_toy: {}}}\n", more=included + "\n")
    problems = [str(problem.rule) for problem in check(main, registry=registry).problems if problem.level == "error"]

    assert ["include/duplicate"] == problems
