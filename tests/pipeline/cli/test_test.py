"""`sluiceway test`."""

from __future__ import annotations

import json

import pytest

from sluiceway.pipeline.cli.exits import Exit

GATEWAY = """\
version: 1
sources: {local: {stdio: {}}}
pipelines: {main: {chain: [request_id, {timeout: {when: {name: never}}}], sink: files}}
sinks: {files: {http: {url: "http://127.0.0.1:1/mcp"}}}
"""
FINE = "sinks: {files: {}}, request: {method: a/b}, expect: {result: {}}"
WRONG = "sinks: {files: {}}, request: {method: a/b}, expect: {error: {}}"


@pytest.fixture
def files(write):
    """A configuration with a test of its own, and one beside it."""
    write("gateway.yaml", f"{GATEWAY}tests: [{{name: inside, {FINE}}}]\n")
    return write("gateway_test.yaml", f"tests: [{{name: beside, {FINE}}}, {{name: wrong, {WRONG}}}]\n")


def test_a_configuration_is_tested_by_its_own_tests_and_those_beside_it(sluiceway, files):
    """Failures are shown; exit code 1."""
    outcome = sluiceway("test", "gateway.yaml")

    assert outcome.code == Exit.FOUND
    assert "ok      gateway.yaml: inside\n" in outcome.out
    assert "ok      gateway_test.yaml: beside\n" in outcome.out
    assert "FAILED  gateway_test.yaml: wrong\n" in outcome.out
    assert "gateway_test.yaml:1:" in outcome.out
    assert outcome.err.startswith("2 passed, 1 failed, in ")


def test_a_directory_is_searched_for_tests(sluiceway, files, write):
    """Files of others with such names are left alone, and so is what is hidden."""
    write("other_test.yaml", "kind: Pod\n")
    write(".hidden/x_test.yaml", "tests: [rubbish]\n")

    assert sluiceway("test").out == sluiceway("test", "gateway.yaml").out


def test_some_are_chosen_by_name(sluiceway, files):
    """By a word, or by its absence; those that were not are counted."""
    assert sluiceway("test", "-k", "SIDE").code == Exit.OK
    outcome = sluiceway("test", "gateway_test.yaml", "-k", "not wrong")

    assert outcome.code == Exit.OK
    assert outcome.err.startswith("1 passed, 1 not selected")


def test_no_tests_are_not_a_success(sluiceway, files, write):
    """A typing error in a name must not look like everything is fine."""
    write("empty/x.yaml", "a: 1\n")

    assert sluiceway("test", "-k", "nothing has this name").code == Exit.USAGE
    assert sluiceway("test", "empty").code == Exit.USAGE
    assert sluiceway("test", "missing.yaml").code == Exit.USAGE


def test_errors_are_shown_like_those_of_configurations(sluiceway, write):
    """With place and suggestion; nothing of the file is run."""
    write("gateway.yaml", GATEWAY)
    write("gateway_test.yaml", f"tests:\n  - {{name: it, {FINE.replace('files', 'fils')}}}\n")
    outcome = sluiceway("test", "gateway.yaml")

    assert outcome.code == Exit.FOUND
    assert "gateway_test.yaml:2:24: error[tests/unknown-id]: unknown sink 'fils'; did you mean 'files'?" in outcome.out


def test_junit_and_json_say_the_same(sluiceway, files):
    """For CI servers and for programs."""
    outcome = sluiceway("test", "--junit", "results.xml", "--format", "json")
    suites = json.loads(outcome.out)["suites"]

    assert [test["passed"] for suite in suites for test in suite["tests"]] == [True, True, False]
    assert (files.parent / "results.xml").read_text().count("<failure") == 1


def test_coverage_is_shown_and_can_be_demanded(sluiceway, files):
    """Of all tests of a configuration together."""
    shown = sluiceway("test", "-k", "side", "--coverage")
    demanded = sluiceway("test", "-k", "side", "--fail-under", "95", "--format", "json")

    assert shown.code == Exit.OK
    assert "gateway.yaml: 4 of 6 touched (67%)" in shown.out
    assert "guard pipelines.main.timeout: its `when` never matched" in shown.out
    assert demanded.code == Exit.FOUND
    assert "66.7% is less than 95%" in demanded.err
    assert len(next(iter(json.loads(demanded.out)["coverage"].values()))["missing"]) == 2
    assert sluiceway("test", "-k", "side", "--fail-under", "60").code == Exit.OK
    assert sluiceway("test", "--fail-under", "160").code == Exit.USAGE


def test_watching_runs_again_when_a_file_changes(sluiceway, files, monkeypatch):
    """Until it is interrupted."""
    rounds = []

    def watch(*folders, recursive):
        rounds.append((folders, recursive))
        if len(rounds) == 2:
            raise KeyboardInterrupt
        files.write_text(f"tests: [{{name: mended, {FINE}}}]\n")
        yield set()

    monkeypatch.setattr("watchfiles.watch", watch)
    outcome = sluiceway("test", "gateway_test.yaml", "--watch")

    assert outcome.code == Exit.INTERRUPTED
    assert rounds == [((files.resolve().parent,), False)] * 2
    assert "ok      gateway_test.yaml: mended" in outcome.out


def test_the_schema_of_tests_can_be_printed(sluiceway):
    """For editors."""
    assert json.loads(sluiceway("schema", "--tests").out)["title"] == "Tests of a Sluiceway configuration"


def test_check_looks_at_files_of_tests_too(sluiceway, files):
    """By themselves, and of a directory."""
    assert sluiceway("check", "gateway_test.yaml").out == ""
    files.write_text(f"tests: [{{nme: beside, {FINE}}}]\n")
    alone, inside = sluiceway("check", "gateway_test.yaml"), sluiceway("check", ".")

    assert (alone.code, inside.code) == (Exit.FOUND, Exit.FOUND)
    assert "gateway_test.yaml:1:10: error[config/unknown-key]: unknown key 'nme'" in alone.out
    assert alone.out in inside.out
