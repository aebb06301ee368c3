"""A tape in the place of another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.document import Document
from sluiceway.pipeline.replay.entries import FORMAT, VERSION, Begun, Configured, Ended, Header, MessageData, Trailer
from sluiceway.pipeline.replay.reading import Tape, TapeError
from sluiceway.pipeline.replay.rewriting import configuration_of, rewriting, write_configuration
from sluiceway.pipeline.replay.writing import Bounds, TapeWriter


@pytest.fixture
def document() -> Document:
    """Some configuration."""
    return from_data(
        {
            "version": 1,
            "sources": {"in": {"http": {"bind": "127.0.0.1:1"}}},
            "pipelines": {"main": {"sink": "up"}},
            "sinks": {"up": {"embedded": {}}},
        }
    )


def written(path: Path, *, parts: int = 1, files: dict[str, str] | None = None) -> Tape:
    """A tape of some parts."""
    header = Header(t=0.0, format=FORMAT, version=VERSION, sluiceway="0", recording="old", part=1, began="b", epoch=7.0)
    writer = TapeWriter(path, header, Bounds(min_free=0, part_size=1 if parts > 1 else 1 << 20))
    writer.open()
    writer.append([Configured(t=0.0, generation=1, digest="d", files=files or {})])
    for number in range(1, parts + 1):
        writer.append([Begun(t=number, exchange=number, source="in", message=MessageData("ping", {}, number))])
    writer.close([Trailer(t=parts)])
    return Tape(path)


def test_a_new_tape_takes_the_place_of_all_parts_of_the_old(tmp_path, document):
    """It keeps the date of the old one, and is a recording of its own."""
    path = tmp_path / "t.jsonl"
    tape = written(path, parts=4)
    assert len(tape.parts) > 2
    with rewriting(tape, document) as into:
        for entry in list(tape.entries()):
            if isinstance(entry, Begun):
                into.see(Ended(t=entry.t, exchange=entry.exchange))
    new = Tape(path)

    assert [entry.exchange for entry in new.entries() if isinstance(entry, Ended)] == [1, 2, 3, 4]
    assert new.findings == []
    assert (new.header.epoch, new.header.began, new.header.digest) == (7.0, "b", document.digest)
    assert new.header.recording != "old"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["t.jsonl", "t.jsonl.index"]


def test_many_entries_are_written_in_batches(tmp_path, document):
    """In their order."""
    path = tmp_path / "t.jsonl"
    with rewriting(written(path), document) as into:
        for number in range(1, 2000):
            into.see(Ended(t=number, exchange=number))

    assert [e.exchange for e in Tape(path).entries() if isinstance(e, Ended)] == list(range(1, 2000))


def test_the_old_tape_stays_if_the_new_one_fails(tmp_path, document):
    """With everything that is beside it, and nothing else."""
    path = tmp_path / "t.jsonl"
    tape = written(path)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}

    def fail() -> None:
        with rewriting(tape, document) as into:
            into.see(Ended(t=1.0, exchange=1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_the_configuration_of_a_tape_can_be_written_down(tmp_path):
    """The main file comes first; names that lead elsewhere do not."""
    tape = written(tmp_path / "t.jsonl", files={"g.yaml": "version: 1\n", "../more.yaml": "x: 1\n"})
    folder = tmp_path / "folder"
    folder.mkdir()

    assert write_configuration(tape, folder) == folder / "g.yaml"
    assert sorted(each.name for each in folder.iterdir()) == ["g.yaml", "more.yaml"]
    assert not (tmp_path / "more.yaml").exists()


def test_a_tape_without_configuration_says_so(tmp_path):
    """And how to name one."""
    tape = written(tmp_path / "t.jsonl")

    assert configuration_of(tape) == {}
    with pytest.raises(TapeError, match="--config"):
        write_configuration(tape, tmp_path)
