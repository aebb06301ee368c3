"""`diff`: two configurations, in sentences."""

import json

import pytest

from sluiceway.pipeline.cli.exits import Exit

CONFIG = """\
version: 1
pipelines: {{main: {{timeout: {timeout}, chain: [{chain}], sink: demo}}}}
sinks: {{demo: {{embedded: {{server: demo}}}}}}
"""


@pytest.fixture
def pair(tmp_path):
    """Two files that differ in a deadline and in a stage."""
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(CONFIG.format(timeout="30s", chain="request_id"))
    new.write_text(CONFIG.format(timeout="5s", chain="request_id, cache"))
    return old, new


def test_differences_are_sentences_on_stdout(sluiceway, pair):
    """Differences alone are no failure."""
    outcome = sluiceway("diff", *pair)

    assert (Exit.OK, "") == (outcome.code, outcome.err)
    assert [
        "pipelines.main: an exchange may take 5s instead of 30s",
        "pipelines.main: cache was added after request_id: answers are kept",
    ] == outcome.out.splitlines()


def test_the_exit_code_tells_whether_there_are_differences_if_it_is_asked_to(sluiceway, pair):
    """As diff does."""
    old, new = pair

    assert Exit.FOUND == sluiceway("diff", old, new, "--exit-code").code
    assert (Exit.OK, "") == sluiceway("diff", old, old, "--exit-code")[:2]


def test_differences_of_some_areas_can_be_asked_for_as_json(sluiceway, pair):
    """For programs."""
    outcome = sluiceway("diff", *pair, "--area", "deadlines", "--format", "json")

    (change,) = json.loads(outcome.out)["changes"]
    assert ("timeout", "30s", "5s") == (change["option"], change["old"], change["new"])


def test_a_configuration_with_errors_is_refused_with_all_of_them(sluiceway, pair):
    """There is nothing to compare."""
    old, new = pair
    new.write_text("version: 1\n")

    outcome = sluiceway("diff", old, new)

    assert Exit.FOUND == outcome.code
    assert "config/missing-key" in outcome.err
