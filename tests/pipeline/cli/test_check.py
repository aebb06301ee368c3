"""`check`: findings, formats, and what is looked at."""

import json
import os

import pytest

from sluiceway.pipeline.cli.exits import Exit

OPEN = "    http: {bind: '0.0.0.0:0', allowed_hosts: [x]}"


@pytest.fixture
def warned(good):
    """A configuration with a warning."""
    return good.replace('    http: {bind: "127.0.0.1:0"}', OPEN)


def test_a_good_file_is_nothing_to_report(sluiceway, write, good):
    """Exit code 0, and a word on stderr."""
    outcome = sluiceway("check", write("a.yaml", good))

    assert (Exit.OK, "", "1 configuration: nothing to report\n") == outcome


def test_every_error_is_shown_with_its_place(sluiceway, write, good):
    """Findings are the product, the summary is not."""
    outcome = sluiceway(
        "check", write("a.yaml", good.replace("request_id", "request_idd").replace("sink: demo", "sink: x"))
    )

    assert outcome.code == Exit.FOUND
    assert "a.yaml:8:13: error[component/unknown]" in outcome.out
    assert "did you mean 'request_id'?" in outcome.out
    assert "a.yaml:9:" in outcome.out
    assert "2 errors" in outcome.err


def test_a_warning_fails_only_when_it_is_denied(sluiceway, write, warned):
    """--deny-warnings is for CI."""
    path = write("a.yaml", warned)
    lenient, strict = sluiceway("check", path), sluiceway("check", path, "--deny-warnings")

    assert (Exit.OK, Exit.FOUND) == (lenient.code, strict.code)
    assert lenient.err == "1 configuration: 1 warning\n"
    assert "warning[security/open-bind]" in lenient.out


def test_programs_get_json_and_github_gets_annotations(sluiceway, write, warned):
    """One list for all files; one command for each finding."""
    path = write("a.yaml", warned)
    (finding,) = json.loads(sluiceway("check", path, "--format", "json").out)

    assert ("a.yaml", 4, "warning", "security/open-bind") == tuple(
        finding[key] for key in ("file", "line", "level", "rule")
    )
    assert sluiceway("check", path, "--format", "github").out.startswith("::warning file=a.yaml,line=4")


def test_markdown_is_checked_with_its_own_places(sluiceway, write, good):
    """Every block that has a version, relative to where the file is."""
    broken = good.replace("request_id", "nonsense")
    path = write(
        "docs/guide.md", f"# Guide\n\n```yaml\n{good}```\n\nand\n\n```yaml\n{broken}```\n\n```yaml\nx: 1\n```\n"
    )
    outcome = sluiceway("check", path)

    assert outcome.code == Exit.FOUND
    assert "docs/guide.md:28:13: error[component/unknown]" in outcome.out
    assert outcome.err == "2 configurations: 1 error\n"


def test_a_folder_is_searched_for_configurations(sluiceway, write, good):
    """Parts, overlays, other tools' files and hidden folders are not configurations."""
    write("a.yaml", good)
    write("deep/b.yml", good)
    write("c.toml", 'version = 1\n[pipelines.main]\nsink = "demo"\n[sinks.demo.embedded]\n')
    write("README.md", f"```yaml\n{good}```\n")
    write("part.yaml", "sinks: {broken: {}}\n")
    write("compose.yaml", 'version: "3.8"\nservices: {}\n')
    write("pyproject.toml", '[project]\nversion = "1"\n[x]\nversion = 1\n')
    write(".hidden/d.yaml", "version: 1\nbroken: true\n")
    write("notes.txt", "version: 1\n")

    assert (Exit.OK, "4 configurations") == (sluiceway("check", ".").code, sluiceway("check").err.partition(":")[0])


def test_an_environment_or_an_overlay_is_laid_over_the_file(sluiceway, write, good, monkeypatch):
    """`<file>.<env>.yaml` lies beside the file; SLUICEWAY_ENV says the same."""
    path = write("gateway.yaml", good)
    write("gateway.production.yaml", "pipelines: {main: {timeout: never}}\n")

    assert sluiceway("check", path).code == Exit.OK
    for words in (("--env", "production"), ("--overlay", "gateway.production.yaml")):
        outcome = sluiceway("check", path, *words)
        assert outcome.code == Exit.FOUND
        assert "gateway.production.yaml:1:" in outcome.out
    monkeypatch.setenv("SLUICEWAY_ENV", "production")
    assert sluiceway("check", path).code == Exit.FOUND


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["missing.yaml"], "missing.yaml does not exist"),
        (["a.yaml", "--env", "nowhere"], "a.nowhere.yaml does not exist"),
        (["a.yaml", "a.yaml", "--overlay", "a.yaml"], "go with exactly one file"),
        ([".", "--env", "x"], "go with exactly one file"),
    ],
)
def test_what_cannot_be_looked_at_is_a_usage_error(sluiceway, write, good, words, text):
    """Nothing is checked then."""
    write("a.yaml", good)
    outcome = sluiceway("check", *words)

    assert (Exit.USAGE, "") == (outcome.code, outcome.out)
    assert text in outcome.err


def test_it_works_as_a_process(program, tmp_path, good):
    """As it is used."""
    (tmp_path / "a.yaml").write_text(good.replace("demo\n", "nowhere\n"))
    outcome = program("check", "a.yaml", cwd=tmp_path)

    assert outcome.code == Exit.FOUND
    assert outcome.out.startswith("a.yaml:9:")


def test_a_folder_may_hold_what_is_no_file(sluiceway, write, good, tmp_path):
    """A folder, a pipe or a link to nowhere that is called like a configuration is none."""
    folder = write("parts/a.yaml", good).parent
    (folder / "b.yaml").mkdir()
    (folder / "c.yaml").symlink_to("nowhere")
    os.mkfifo(folder / "d.yaml")

    assert (Exit.OK, "", "1 configuration: nothing to report\n") == sluiceway("check", folder)


def test_a_page_that_is_not_text_is_a_finding(sluiceway, tmp_path):
    """Like a configuration that is not."""
    (tmp_path / "a.md").write_bytes(b"\xff\xfe")
    outcome = sluiceway("check", tmp_path / "a.md")

    assert Exit.FOUND == outcome.code
    assert "a.md:1:1: error[file/encoding]: byte 0xff is not UTF-8" in outcome.out


def test_nothing_to_check_is_a_wrong_command_line(sluiceway, tmp_path):
    """A build that names the wrong folder must not pass."""
    outcome = sluiceway("check", tmp_path)

    assert Exit.USAGE == outcome.code
    assert "holds no configuration" in outcome.err
