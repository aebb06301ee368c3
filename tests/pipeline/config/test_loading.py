"""The ways in: a file, a text, plain data, with overlays and includes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluiceway.pipeline.config import (
    Checked,
    ConfigError,
    Problem,
    check,
    check_text,
    from_data,
    has_errors,
    load,
    load_text,
)
from sluiceway.pipeline.model.component import ComponentKind
from sluiceway.pipeline.model.document import Document, Limits
from sluiceway.pipeline.model.registry import Registry
from sluiceway.pipeline.model.when import When

GATEWAY = """
version: 1
sources: {public: {listen_toy: {}}}
pipelines:
  main:
    timeout: 5s
    sink: out
    chain:
      - auth_toy
      - retry_toy: {id: again, when: {method: tools/call, name: ["a*", "b"]}}
      - retry_toy
      - retry_toy: {enabled: false}
sinks:
  out: {echo_toy: {}, max_in_flight: 16, required: false, chain: [retry_toy]}
"""


def test_a_document_has_everything_that_was_declared(registry: Registry) -> None:
    """Names are resolved, options typed, ids given, places kept."""
    document = load_text(GATEWAY, "g.yaml", registry=registry)
    main, out = document.pipelines["main"], document.sinks["out"]

    assert ["auth_toy", "again", "retry_toy", "retry_toy_2"] == [stage.id for stage in main.chain]
    assert [True, True, True, False] == [stage.enabled for stage in main.chain]
    assert When(method=("tools/call",), name=("a*", "b")) == main.chain[1].when
    assert main.chain[1].cls is registry.find(ComponentKind.MIDDLEWARE, "retry_toy")
    assert ("pipelines.main.chain[1]", "g.yaml:10:9") == (main.chain[1].path, main.chain[1].place)
    assert (Limits(timeout=5.0), "out", "main") == (main.limits, main.sink, document.sources["public"].pipeline)  # type: ignore[arg-type]
    assert (16, False, ["retry_toy"]) == (out.max_in_flight, out.required, [stage.id for stage in out.chain])
    assert "sinks.out" == out.path
    assert 64 == len(document.digest)


def test_a_one_off_component_is_named_by_module_and_class(registry: Registry) -> None:
    """`module:Class` needs no plugin; its kind is checked."""
    text = "version: 1\npipelines: {main: {chain: ['sluiceway.middlewares.timeout:Timeout']}}\n"
    checked = check_text(text + "sinks: {out: {'sluiceway.middlewares.timeout:Timeout': }}\n", registry=registry)
    document = load_text(text + "sinks: {out: {echo_toy: }}\n", registry=registry)

    assert ["'sluiceway.middlewares.timeout:Timeout' is a middleware, not a sink"] == [
        problem.message for problem in checked.problems
    ]
    assert ["timeout"] == [stage.id for stage in document.pipelines["main"].chain]


def test_load_raises_with_every_problem(tmp_path: Path, registry: Registry) -> None:
    """One error, all problems in it."""
    path = tmp_path / "a.yaml"
    path.write_text("version: 1\npipelines: {main: {timeout: 5, max_waiting: x}}\nsinks: {out: {echo_toy: {}}}\n")

    with pytest.raises(ConfigError) as caught:
        load(path, registry=registry)

    assert ["config/unit", "config/type"] == [problem.rule for problem in caught.value.problems]


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    """Checking never raises because of a file."""
    checked = check(tmp_path / "gone.yaml")

    assert checked.document is None
    assert ["file/unreadable"] == [problem.rule for problem in checked.problems]


def test_a_huge_file_is_not_read_as_yaml(tmp_path: Path) -> None:
    """The size is checked before anything is parsed."""
    path = tmp_path / "huge.yaml"
    path.write_bytes(b"#" * (1024 * 1024 + 1))

    assert ["file/size"] == [problem.rule for problem in check(path).problems]


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    """`${NAME}` reads `os.environ` unless something else is given."""
    monkeypatch.setenv("SLUICEWAY_TEST_T", "7s")
    text = "version: 1\npipelines: {main: {timeout: '${SLUICEWAY_TEST_T}'}}\nsinks: {out: {echo_toy: {}}}\n"

    assert 7 == load_text(text, registry=registry).pipelines["main"].limits.timeout
    assert ["env/missing"] == [problem.rule for problem in check_text(text, env={}, registry=registry).problems]


def test_names_are_shown_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> None:
    """Files below it by their relative path, others by their absolute one."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.yaml").write_text("version: 2\n")
    monkeypatch.chdir(tmp_path / "sub")
    inside = check(Path("a.yaml"), registry=registry).problems[0].span.source.name
    monkeypatch.chdir("/usr")

    assert "a.yaml" == inside
    assert (
        str(tmp_path / "sub/a.yaml") == check(tmp_path / "sub/a.yaml", registry=registry).problems[0].span.source.name
    )


def test_data_is_read_like_a_file(registry: Registry, tmp_path: Path) -> None:
    """Dicts, lists and tuples; paths start at `base`; variables are replaced."""
    document = from_data(
        {
            "version": 1,
            "pipelines": {"main": {"chain": ("auth_toy", {"every_toy": {"path": "x", "text": "${A}"}})}},
            "sinks": {"out": {"echo_toy": {}}},
        },
        base=tmp_path,
        env={"A": "b"},
        registry=registry,
    )
    config: Any = document.pipelines["main"].chain[1].config

    assert (tmp_path / "x", "b") == (config.path, config.text)


def test_problems_in_data_have_paths(registry: Registry) -> None:
    """There are no lines, so the path says where."""
    data = {"version": 1, "pipelines": {"main": {"timeout": 5, "chain": ["retri_toy", {"retry_toy": {"x": 1}}]}}}

    with pytest.raises(ConfigError) as caught:
        from_data(data, registry=registry)

    assert [
        "data:pipelines.main",
        "data:pipelines.main.chain[0]",
        "data:pipelines.main.chain[1].retry_toy.x",
        "data:pipelines.main.timeout",
    ] == sorted(str(problem.span) for problem in caught.value.problems)


def test_data_that_no_file_can_hold_is_a_mistake_of_the_program() -> None:
    """A `TypeError` with the path; data nested too deep is a problem like in a file."""
    deep: Any = []
    for _ in range(70):
        deep = [deep]

    with pytest.raises(TypeError, match=r"a\.b: complex cannot be in a configuration"):
        from_data({"a": {"b": 1j}})
    with pytest.raises(ConfigError, match="nested deeper than 64"):
        from_data({"a": deep})


def test_an_overlay_changes_only_what_it_names(tmp_path: Path, registry: Registry) -> None:
    """Maps merge deeply, lists and scalars replace, null removes, places follow."""
    (tmp_path / "g.yaml").write_text(GATEWAY)
    (tmp_path / "p.yaml").write_text(
        "sources: {public: {listen_toy: {bind: 'localhost:1'}}}\n"
        "pipelines:\n  main: {timeout: null, max_waiting: 3, chain: [auth_toy]}\n"
        "sinks: {out: {echo_toy: null, route_toy: {to: [new]}}, new: {echo_toy: {}}}\n"
    )
    (tmp_path / "q.yaml").write_text("pipelines: {main: {max_waiting: 4}}\n")
    base = load(tmp_path / "g.yaml", registry=registry)
    over = load(tmp_path / "g.yaml", overlays=[tmp_path / "p.yaml", tmp_path / "q.yaml"], registry=registry)

    assert Limits(max_waiting=4) == over.pipelines["main"].limits
    assert ["auth_toy"] == [stage.id for stage in over.pipelines["main"].chain]
    assert "localhost:1" == over.sources["public"].config.bind
    assert ("route_toy", 16) == (over.sinks["out"].cls.name, over.sinks["out"].max_in_flight)
    assert over.pipelines["main"].chain[0].place.endswith("p.yaml:3:49")
    assert [tmp_path / name for name in ("g.yaml", "p.yaml", "q.yaml")] == list(over.files)
    assert base.digest != over.digest


def test_a_broken_overlay_is_reported_with_its_base(tmp_path: Path, registry: Registry) -> None:
    """If the overlay cannot be used at all, there is no document."""
    (tmp_path / "g.yaml").write_text(GATEWAY)

    checked = check(tmp_path / "g.yaml", overlays=[tmp_path / "gone.yaml"], registry=registry)

    assert (None, ["file/unreadable"]) == (checked.document, [problem.rule for problem in checked.problems])


def test_what_is_read_has_a_digest_that_follows_the_bytes(tmp_path: Path, registry: Registry) -> None:
    """The same bytes, the same digest; an included file counts."""
    (tmp_path / "a.yaml").write_text(GATEWAY + "include: [b.yaml]\n")
    (tmp_path / "b.yaml").write_text("stores: {}\n")
    first = load(tmp_path / "a.yaml", registry=registry)
    second = load(tmp_path / "a.yaml", registry=registry)
    (tmp_path / "b.yaml").write_text("stores: {}\n# changed\n")
    third = load(tmp_path / "a.yaml", registry=registry)

    assert first.digest == second.digest != third.digest
    assert (tmp_path / "a.yaml", tmp_path / "b.yaml") == first.files


def test_findings_do_not_keep_a_document_from_being_loaded(check_it: Callable[..., Checked]) -> None:
    """Warnings and notes are told, and the document is there."""
    checked = check_it("version: 1\npipelines: {main: {}}\nsinks: {out: {echo_toy: {}}}\n")

    assert isinstance(checked.document, Document)
    assert [("config/no-source", "info")] == [(problem.rule, problem.level) for problem in checked.problems]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".yaml", ".toml"]))
def test_no_bytes_make_check_raise(tmp_path: Path, content: bytes, suffix: str) -> None:
    """Whatever is in the file, checking it answers."""
    path = tmp_path / f"fuzz{suffix}"
    path.write_bytes(content)

    checked = check(path, env={})

    assert checked.document is None
    assert checked.problems


KEYS = st.sampled_from(
    ["version", "include", "plugins", "stores", "sources", "pipelines", "sinks", "run", "main", "out", "chain", "sink",
     "when", "id", "enabled", "every_toy", "retry_toy", "echo_toy", "route_toy", "to", "admin", "bind", "token", "x-a"]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | KEYS | st.sampled_from(["${A}", "5s", "-", "", "${"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.dictionaries(KEYS, VALUES, max_size=8))
def test_no_data_makes_the_loader_raise_anything_but_problems(registry: Registry, data: dict[str, Any]) -> None:
    """Every known key with every kind of value: a document or a `ConfigError`, never a traceback."""
    problems: list[Problem] = []
    try:
        from_data(data, env={"A": "1"}, registry=registry)
    except ConfigError as error:
        problems = list(error.problems)

    assert has_errors(problems) or data["version"] == 1


def test_a_wrong_file_has_no_document(check_it: Callable[..., Checked]) -> None:
    """Nothing is half applied."""
    assert check_it("version: 1").document is None


def test_load_text_reads_variables_from_the_environment_it_is_given() -> None:
    """Not from the process's."""
    text = """
version: 1
sources: {s: {stdio: {}}}
pipelines: {main: {timeout: "${SLUICEWAY_TEST_TIMEOUT}"}}
sinks: {k: {embedded: {}}}
"""

    assert 7.0 == load_text(text, env={"SLUICEWAY_TEST_TIMEOUT": "7s"}).pipelines["main"].limits.timeout
