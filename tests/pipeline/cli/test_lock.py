"""`sluiceway lock`, and a gateway that keeps to what it wrote."""

import json

import pytest

from sluiceway.pipeline.cli.exits import Exit
from sluiceway.pipeline.model.pins import read_lock

CONFIG = """\
version: 1
sources: {local: {http: {bind: "127.0.0.1:0"}}}
pipelines: {main: {chain: [{pin: {lock: ./tools.lock.json}}], sink: demo}}
sinks: {demo: {embedded: {server: demo}}}
"""


def test_the_file_is_written_and_says_what_changed(sluiceway, write, tmp_path):
    """Added tools at first, nothing at the second time, then what an upstream changed meanwhile."""
    config, lock = write("a.yaml", CONFIG), tmp_path / "tools.lock.json"

    first = sluiceway("lock", config)
    assert first.code == Exit.OK
    assert "+ echo" in first.out
    assert "echo" in read_lock(lock.read_bytes())

    assert "nothing has changed" in sluiceway("lock", config).err
    content = json.loads(lock.read_text())
    content["tools"]["echo"]["digest"] = "sha256:0"
    content["tools"]["gone"] = content["tools"].pop("add")
    lock.write_text(json.dumps(content))

    checked = sluiceway("lock", config, "--check", "--format", "json")
    assert checked.code == Exit.FOUND
    [report] = json.loads(checked.out)
    assert (["add"], ["echo"], ["gone"]) == (report["added"], report["changed"], report["removed"])
    assert "gone" in lock.read_text()

    shown = sluiceway("lock", config)
    assert ["+ add", "- gone", "~ echo"] == sorted(line for line in shown.out.splitlines() if line[1:2] == " ")
    assert "gone" not in lock.read_text()
    assert sluiceway("lock", config, "--check").code == Exit.OK


def test_a_pin_in_the_chain_of_a_sink_is_found(sluiceway, write, tmp_path):
    """There the tools are those of the one upstream."""
    text = CONFIG.replace("chain: [{pin: {lock: ./tools.lock.json}}], ", "")
    text = text.replace("{server: demo}}", "{server: demo}, chain: [{pin: {lock: ./own.lock.json}}]}")

    assert sluiceway("lock", write("a.yaml", text)).code == Exit.OK
    assert (tmp_path / "own.lock.json").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("{pin: {lock: ./tools.lock.json}}", ""), "has no stage `pin`"),
        (("embedded: {server: demo}", "stdio: {command: [/no/such/program]}"), "sinks.demo"),
    ],
)
def test_what_cannot_be_locked_is_said(sluiceway, write, tmp_path, change, words):
    """And nothing is written."""
    outcome = sluiceway("lock", write("a.yaml", CONFIG.replace(*change)))

    assert (outcome.code, words in outcome.err) == (Exit.FOUND, True), outcome.err
    assert not (tmp_path / "tools.lock.json").exists()


def test_a_file_that_is_no_lock_file_is_not_overwritten(sluiceway, write, tmp_path):
    """It may be somebody's work."""
    write("tools.lock.json", "my notes")
    outcome = sluiceway("lock", write("a.yaml", CONFIG))

    assert outcome.code == Exit.FOUND
    assert "move it away" in outcome.err
    assert (tmp_path / "tools.lock.json").read_text() == "my notes"
