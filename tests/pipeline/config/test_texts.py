"""The texts of a configuration, and loading from them what its files do not say any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluiceway.pipeline.config import load
from sluiceway.pipeline.config.texts import texts_of

MAIN = "version: 1\ninclude: [more/*.yaml]\npipelines: {main: {sink: demo}}\n"
MORE = "sinks: {demo: {embedded: {name: %s}}}\n"


@pytest.fixture
def main(tmp_path: Path) -> Path:
    """A configuration of two files."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.yaml").write_text(MORE % "first")
    (tmp_path / "gateway.yaml").write_text(MAIN)
    return tmp_path / "gateway.yaml"


def test_what_was_read_is_loaded_again_whatever_the_files_say_now(main: Path) -> None:
    """Changed, broken, gone, or more than there were."""
    document = load(main)
    texts = texts_of(document)
    (main.parent / "more" / "a.yaml").write_text("{")
    (main.parent / "more" / "b.yaml").write_text("{")
    main.unlink()
    again = load(main, given=texts)

    assert again.sinks["demo"].config == document.sinks["demo"].config
    assert again.digest == document.digest


@pytest.mark.parametrize("change", ["more/a.yaml", "more/b.yaml"])
def test_files_that_changed_since_are_not_what_was_read(main: Path, change: str) -> None:
    """Nor one more that an include matches: whoever asks must load anew."""
    document = load(main)
    (main.parent / change).write_text(MORE % "second")

    assert texts_of(document) is None


def test_a_file_that_is_gone_says_so(main: Path) -> None:
    """With its name."""
    document = load(main)
    (main.parent / "more" / "a.yaml").unlink()

    with pytest.raises(OSError, match=r"a\.yaml"):
        texts_of(document)
