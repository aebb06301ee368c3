"""What is wrong with tests of a configuration is found before any of them runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluiceway.pipeline.config import check_text
from sluiceway.pipeline.config.declarations import options_of
from sluiceway.pipeline.config.schema import PARTS
from sluiceway.pipeline.config.suites import check_suite, is_suite, suite_beside
from sluiceway.pipeline.model.cases import Asked, Between, Case, ClientAnswer, Decided, Said, Step
from sluiceway.pipeline.model.faults import Fault, Odds, StoreFault
from sluiceway.pipeline.testing.configs import make_group

GATEWAY = """\
version: 1
sources: {local: {stdio: {}, pipeline: main}, other: {http: {}, pipeline: second}}
stores: {kept: {memory: {}}}
pipelines: {main: {chain: [request_id, {cache: {stores: [kept]}}], sink: files}, second: {sink: demo}}
sinks: {files: {http: {url: "http://127.0.0.1:1/mcp"}}, demo: {embedded: {}}}
tests:
"""
SEND = "request: {method: a/b}"
EXPECT = "expect: {result: {}}"


def problems_of(tests: str) -> list[tuple[str, int, str]]:
    """Rule, line below `tests:`, and message of each."""
    offset = GATEWAY.count("\n")
    found = check_text(GATEWAY + tests).problems
    return [(each.rule, each.span.line - offset, each.message) for each in found if each.level == "error"]


@pytest.mark.parametrize(
    ("test", "rule", "line", "word"),
    [
        (f"nme: it\n{SEND}\n{EXPECT}", "config/unknown-key", 1, "rename it to 'name'"),
        (f"name: it\nrepat: 2\n{SEND}\n{EXPECT}", "config/unknown-key", 2, "did you mean 'repeat'?"),
        (f"name: it\nrepeat: 0\n{SEND}\n{EXPECT}", "config/bounds", 2, "at least 1"),
        (f"name: it\nafter: 5\n{SEND}\n{EXPECT}", "config/unit", 2, "needs a unit"),
        (f"name: it\n{SEND}\nexpect: {{reslt: {{}}}}", "config/unknown-key", 3, "did you mean 'result'?"),
        (f"name: it\nsinks: {{fils: {{}}}}\n{SEND}\n{EXPECT}", "tests/unknown-id", 2, "did you mean 'files'?"),
        (f"name: it\nstores: {{kpt: []}}\n{SEND}\n{EXPECT}", "tests/unknown-id", 2, "did you mean 'kept'?"),
        (f"name: it\npipeline: man\n{SEND}\n{EXPECT}", "tests/unknown-id", 2, "did you mean 'main'?"),
        (f"name: it\nsource: lcal\n{SEND}\n{EXPECT}", "tests/unknown-id", 2, "did you mean 'local'?"),
        (f"name: it\nsource: local\npipeline: second\n{SEND}\n{EXPECT}", "tests/source", 2, "feeds 'main'"),
        (f"name: it\n{SEND}\nexpect: {{sent_to: {{fils: 1}}}}", "tests/unknown-id", 3, "did you mean 'files'?"),
        (f"name: it\n{SEND}\nexpect: {{sent_to: {{demo: 1}}}}", "tests/not-mocked", 3, "only if it is mocked"),
        (f"name: it\n{SEND}\nexpect: {{decided: {{cach: hit}}}}", "tests/unknown-id", 3, "did you mean 'cache'?"),
        (f"name: it\n{SEND}\nexpect: {{stages: [request_ids]}}", "tests/unknown-id", 3, "did you mean 'request_id'?"),
        (f"name: it\n{SEND}\nexpect: {{result: {{a: {{$absnt: true}}}}}}", "tests/pattern", 3, "mean '$absent'?"),
        (f"name: it\nsinks: {{files: {{got: {{$x: 1}}}}}}\n{SEND}", "tests/pattern", 2, "unknown test"),
        (f"name: it\nsinks: {{files: {{echo: true, reply: {{}}}}}}\n{SEND}\n{EXPECT}", "config/invalid", 2, "one"),
        (f"name: it\n{SEND}", "tests/no-expectation", 1, "expects nothing"),
        ("name: it\nexpect: {sent_to: {files: 0}}", "tests/steps", 1, "sends nothing"),
        (f"name: it\n{SEND}\n{EXPECT}\nsteps: [{{after: 1s}}]", "tests/steps", 2, "either request or steps"),
        (f"name: it\nsteps: [{{{SEND}}}]\n{EXPECT}", "tests/steps", 3, "result is expected of a request"),
        (f"name: it\nsteps: [{{{SEND}, {EXPECT}}}]\nrepeat: 2", "tests/steps", 3, "repeat goes with a request"),
        (f"name: it\nsteps: [{{{SEND}, {EXPECT}}}]\nexpect_last: {{}}", "tests/steps", 3, "expect_last goes with"),
        (f"name: it\nsteps: [{{{SEND}, {EXPECT}}}, {{}}]", "tests/steps", 2, "no time passes"),
        (f"name: it\n{SEND}\n{EXPECT}\nrepeat: 2\nat_once: 2", "tests/steps", 5, "either repeat or at_once"),
        (f"name: it\nnow: yesterday\n{SEND}\n{EXPECT}", "tests/date", 2, "yesterday"),
        (f"name: it\nnow: '2026-01-01T00:00:00'\n{SEND}\n{EXPECT}", "tests/date", 2, "no time zone"),
        (f"name: it\nsteps: [{{clock_jump: soon, {SEND}, {EXPECT}}}]", "tests/date", 2, "duration"),
        (f"name: it\n{SEND}\n{EXPECT}\ncases: [{{a: 1}}]", "tests/table", 4, "unknown name 'a'"),
        (f"name: <a>\n{SEND}\n{EXPECT}\ncases: [a]", "tests/table", 4, "a row is a mapping"),
    ],
)  # fmt: skip
def test_a_mistake_is_found_with_its_place(test, rule, line, word):
    """And with what is probably meant."""
    lines = test.splitlines()
    ((found, where, message),) = problems_of("\n".join([f"  - {lines[0]}", *(f"    {each}" for each in lines[1:])]))

    assert (found, where) == (rule, line)
    assert word in message


def test_two_tests_of_one_name_are_a_mistake():
    """Both places are named."""
    tests = f"  - {{name: it, {SEND}, {EXPECT}}}\n" * 2

    assert [problem[:2] for problem in problems_of(tests)] == [("tests/duplicate", 2)]


@pytest.mark.parametrize("tests", ["  a: 1\n", "  - 5\n"])
def test_tests_are_a_list_of_mappings(tests):
    """Anything else is a mistake of types."""
    assert [problem[0] for problem in problems_of(tests)] == ["config/type"]


def test_a_table_makes_a_test_of_each_row():
    """A blank as a whole takes the row's value as it is; inside a text, and in a key, it becomes text."""
    checked = check_text(
        GATEWAY
        + """\
  - name: "<a> of <b>"
    request: {method: "x/<a>", params: {whole: <b>, "k<a>": <c>, other: "<d>"}}
    expect: {result: {}}
    cases: [{a: 1, b: [1, 2], c: true}, {a: x, b: {y: z}, c: null}]
  - name: without blanks
    request: {method: a/b, params: {n: <n>}}
    expect: {result: {}}
    cases: [{n: 1}, {n: 2}]
"""
    )
    cases = [declared.case for declared in checked.tests]

    assert [case.name for case in cases] == ["1 of <b>", "x of <b>", "without blanks [1]", "without blanks [2]"]
    requests = [case.request for case in cases]
    assert [request.method for request in requests if request] == ["x/1", "x/x", "a/b", "a/b"]
    assert [dict(request.params) for request in requests if request] == [
        {"whole": [1, 2], "k1": True, "other": "<d>"},
        {"whole": {"y": "z"}, "kx": None, "other": "<d>"},
        {"n": 1},
        {"n": 2},
    ]


def test_files_of_tests_are_known_by_their_names(tmp_path):
    """`gateway_test.yaml` is about `gateway.yaml`, or `gateway.toml`."""
    (tmp_path / "gateway_test.yml").touch()

    assert is_suite(Path("a_test.yaml"))
    assert not is_suite(Path("a.yaml"))
    assert suite_beside(tmp_path / "gateway.toml") == tmp_path / "gateway_test.yml"
    assert suite_beside(tmp_path / "other.yaml") is None


def suite_of(folder: Path, text: str, gateway: str = GATEWAY.removesuffix("tests:\n")) -> list[str]:
    """What is wrong with a file of tests beside a configuration."""
    (folder / "gateway.yaml").write_text(gateway)
    (folder / "gateway_test.yaml").write_text(text)
    suite = check_suite(folder / "gateway_test.yaml", {"TEST_DIR": "/tmp/x"})
    assert (suite.document is None) is bool(suite.problems)
    return [f"{each.rule}: {each.message}" for each in suite.problems]


def test_a_file_of_tests_names_its_configuration_and_variables(tmp_path):
    """The variables are the configuration's."""
    tests = f"tests: [{{name: it, {SEND}, {EXPECT}}}]\n"
    gateway = GATEWAY.removesuffix("tests:\n").replace("http://127.0.0.1:1/mcp", "${URL:?set it}")
    (tmp_path / "elsewhere.yaml").write_text(gateway)

    assert suite_of(tmp_path, tests) == []
    assert suite_of(tmp_path, f"config: ./elsewhere.yaml\nenv: {{URL: 'http://x/${{TEST_DIR}}'}}\n{tests}") == []
    assert suite_of(tmp_path, tests, gateway)[0].startswith("env/missing")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tests: []\nconfg: x\n", "did you mean 'config'?"),
        ("env: {}\n", "'tests' is required"),
        ("tests: []\nconfig: [1]\n", "a path"),
        ("tests: []\nconfig: ./missing.yaml\n", "cannot be read"),
        ("tests: [\n", "yaml"),
    ],
)
def test_mistakes_of_the_file_itself(tmp_path, text, words):
    """Are found like any others."""
    assert words in suite_of(tmp_path, text)[0]


def test_a_file_of_tests_alone_says_what_is_missing(tmp_path):
    """The configuration, or its name."""
    (tmp_path / "a_test.yaml").write_text("tests: []\n")
    suite = check_suite(tmp_path / "a_test.yaml", {})

    assert [problem.rule for problem in suite.problems] == ["tests/no-config"]


def test_included_files_add_their_tests(tmp_path):
    """Lists become one."""
    (tmp_path / "part.yaml").write_text(f"version: 1\ntests: [{{name: part, {SEND}, {EXPECT}}}]\n")
    (tmp_path / "gateway.yaml").write_text(
        GATEWAY.replace("version: 1", "version: 1\ninclude: [part.yaml]") + f"  - {{name: whole, {SEND}, {EXPECT}}}\n"
    )

    assert [each.case.name for each in check_suite(tmp_path / "gateway.yaml", {}).tests] == ["whole", "part"]


@pytest.mark.parametrize("cls", [Case, *PARTS, Step, ClientAnswer, Said, Asked, Between, Decided, Fault, StoreFault])
def test_every_example_can_be_written(cls):
    """What the schema shows to whoever writes is right."""
    needed = {option.name: option.info.example for option in options_of(cls) if option.required}
    for option in options_of(cls):
        if option.info.example is not None:
            beside = {"latency": "1s"} if issubclass(cls, Odds) else {}
            assert isinstance(make_group(cls, {**beside, **needed, option.name: option.info.example}), cls)


def test_a_table_has_a_bound():
    """And so has the time it takes."""
    rows = ", ".join("{a: 1}" for _ in range(1001))

    assert problems_of(f"  - {{name: <a>, {SEND}, {EXPECT}, cases: [{rows}]}}\n")[0][2].startswith("1001 rows")


def test_a_table_that_is_none_is_a_mistake_of_types():
    """Like everything that is no list where one belongs."""
    assert [each[0] for each in problems_of(f"  - {{name: it, {SEND}, {EXPECT}, cases: 5}}\n")] == ["config/type"]


def test_a_configuration_without_pipelines_cannot_be_tested(tmp_path):
    """It says so, and nothing else is wrong with the test."""
    found = check_text(f"version: 1\npipelines: {{}}\ntests: [{{name: it, {SEND}, {EXPECT}}}]\n").problems

    assert [problem.rule for problem in found if problem.level == "error"] == ["tests/source"]
