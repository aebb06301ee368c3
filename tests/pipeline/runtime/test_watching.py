"""What counts as a change of a configuration's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluiceway.pipeline.config import load
from sluiceway.pipeline.runtime.watching import Watched

MAIN = """\
version: 1
include: ["sinks/*.yaml", "teams/*/sinks.yaml"]
sources: {local: {stdio: {}, pipeline: main}}
pipelines: {main: {sink: demo}}
"""


@pytest.fixture
def main(tmp_path: Path) -> Path:
    """A configuration with two kinds of includes."""
    for name in ("sinks", "teams/red"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "sinks/demo.yaml").write_text("sinks: {demo: {embedded: {}}}\n")
    (tmp_path / "teams/red/sinks.yaml").write_text("sinks: {red: {embedded: {}}}\n")
    (tmp_path / "main.yaml").write_text(MAIN)
    return tmp_path / "main.yaml"


def test_what_was_loaded_is_no_change(main: Path) -> None:
    """Nor is a touch, or a file that no glob matches."""
    watched = Watched(load(main))
    main.touch()
    (main.parent / "sinks/notes.txt").write_text("x")
    (main.parent / "sinks/folder.yaml").mkdir()

    assert not watched.differs()


@pytest.mark.parametrize("name", ["main.yaml", "sinks/demo.yaml", "sinks/new.yaml", "teams/blue/sinks.yaml"])
def test_a_changed_or_new_file_is_a_change_once(main: Path, name: str) -> None:
    """And again when its content changes again, even if the configuration was not taken."""
    document = load(main)
    watched = Watched(document)
    path = main.parent / name
    for text in ("# one\n", "# two\n"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

        assert watched.differs()
        assert watched.take()

        watched = Watched(document, watched)

        assert not watched.differs()
        assert not watched.take()


def test_a_file_that_is_gone_is_a_change(main: Path) -> None:
    """A sink was taken away."""
    watched = Watched(load(main))
    (main.parent / "teams/red/sinks.yaml").unlink()

    assert watched.differs()


def test_a_document_that_was_taken_is_what_counts(main: Path) -> None:
    """What was tried before it does not."""
    watched = Watched(load(main))
    (main.parent / "sinks/new.yaml").write_text("sinks: {new: {embedded: {}}}\n")
    watched.take()
    after = Watched(load(main), watched)

    assert not after.differs()


def test_folders_of_globs_are_watched_with_those_in_which_one_may_appear(main: Path) -> None:
    """A new team has a new folder."""
    watched = Watched(load(main))
    before = watched.folders()
    (main.parent / "teams/blue").mkdir()

    assert [main.parent / each for each in (".", "sinks", "teams", "teams/red")] == before
    assert [*before[:3], main.parent / "teams/blue", before[3]] == watched.folders()
