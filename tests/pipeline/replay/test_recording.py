"""What the options of a recording do, and what becomes of it when the disk or the gateway fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve
from msgspec.structs import replace

from sluiceway.pipeline.config import ConfigError, from_data, load
from sluiceway.pipeline.model.document import Document, Record
from sluiceway.pipeline.model.options import Size
from sluiceway.pipeline.protocol.errors import ComponentError
from sluiceway.pipeline.replay.entries import Begun, Configured, Header, Lost, StageEntered, Trailer
from sluiceway.pipeline.replay.reading import Tape
from sluiceway.pipeline.replay.recording import open_edges, open_recorder, path_in
from sluiceway.pipeline.replay.scribe import AGAIN_S
from sluiceway.pipeline.runtime.engine import Engine
from sluiceway.pipeline.testing import FakeSink, PipelineHarness


def document(folder: Path, **record: Any) -> Document:
    """A gateway that records."""
    return from_data(
        {
            "version": 1,
            "sources": {"in": {"http": {"bind": "127.0.0.1:1"}}},
            "pipelines": {"main": {"chain": ["request_id"], "sink": "up"}},
            "sinks": {"up": {"embedded": {}}},
            "run": {"record": {"folder": str(folder), "min_free": "0B", **record}},
        }
    )


async def run_once(configured: Document, *calls: dict[str, Any], tape: Path | None = None) -> None:
    """Start a gateway, make some calls, stop it."""
    async with (
        open_edges(configured, tape) as edges,
        PipelineHarness(configured, sinks={"up": FakeSink.echo()}, edges=edges) as gateway,
    ):
        for call in calls or ({"name": "echo"},):
            await gateway.call("tools/call", call)


def tapes_in(folder: Path) -> list[Path]:
    """The first parts of tapes, oldest first."""
    return sorted(each for each in folder.iterdir() if each.suffix in (".jsonl", ".gz"))


async def test_folder_gets_a_tape_for_each_start(tmp_path):
    """`folder` is made, for its owner only; a gateway without `record` records nothing."""
    folder = tmp_path / "deep" / "tapes"
    await run_once(document(folder))
    await run_once(document(folder))
    async with open_edges(evolve(document(folder), run=evolve(document(folder).run, record=None))) as edges:
        nothing = edges

    assert nothing is None
    assert len(tapes_in(folder)) == 2
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in tapes_in(folder):
        assert any(isinstance(each, Begun) for each in Tape(path).entries())


async def test_compress_writes_gzip(tmp_path):
    """`compress: true`, which shows in the name, too."""
    await run_once(document(tmp_path, compress=True))
    await run_once(document(tmp_path, compress=False))
    plain, zipped = sorted(tapes_in(tmp_path), key=lambda each: each.suffix == ".gz")

    assert zipped.read_bytes()[:2] == b"\x1f\x8b"
    assert plain.read_bytes()[:1] == b"{"
    assert len(list(Tape(zipped).entries())) > 5


async def test_stages_are_recorded_one_by_one(tmp_path):
    """`stages: true`."""
    await run_once(document(tmp_path, stages=True))

    assert any(isinstance(each, StageEntered) for each in Tape(tapes_in(tmp_path)[0]).entries())


async def test_config_writes_the_text_of_the_files(tmp_path):
    """`config: true`; what a variable stands for is not in it, and a secret that is written there is taken out."""
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "version: 1\nsources:\n  in:\n    http: {bind: '127.0.0.1:1'}\npipelines:\n  main: {chain: [], sink: up}\n"
        "sinks:\n  up:\n    embedded: {}\n"
        f"run:\n  record: {{folder: '{tmp_path}/tapes', config: true, min_free: 0B}}\n"
        "  admin: {bind: 'unix:./a.sock', token: {from_env: ADMIN_TOKEN}}\nx-note: sesame-open\n"
    )
    os.environ["ADMIN_TOKEN"] = "sesame-open"  # the point of it
    try:
        await run_once(load(file))
    finally:
        del os.environ["ADMIN_TOKEN"]
    (configured,) = (e for e in Tape(tapes_in(tmp_path / "tapes")[0]).entries() if isinstance(e, Configured))

    assert configured.files["gateway.yaml"] == file.read_text().replace("sesame-open", "***")


async def test_redact_masks_further_keys(tmp_path):
    """`redact` adds to those that are masked anyway; the header says which."""
    await run_once(document(tmp_path, redact=["*iban*"]), {"name": "pay", "arguments": {"iban": "DE00", "note": "x"}})
    path = tapes_in(tmp_path)[0]

    assert "DE00" not in path.read_text()
    assert "*iban*" in Tape(path).header.redactions.keys


async def test_headers_are_kept_if_they_are_named(tmp_path, options, recorded, entries, autojump_clock):
    """`headers` names more of them; credentials are none of them."""
    headers = {"x-client-name": "c", "x-other": "o", "authorization": "Bearer x", "user-agent": "me"}
    async with recorded(headers=("x-client-*", "authorization")) as gateway:
        gateway.client = replace(gateway.client, headers=headers)
        await gateway.call("ping")

    assert entries(Begun)[0].client.headers == {"x-client-name": "c", "user-agent": "me"}
    assert "x-client-*" in entries(Header)[0].redactions.headers


async def test_part_size_and_part_for_begin_parts(tape_path, options, autojump_clock):
    """`part_size` by what is written, `part_for` by the time."""

    async def parts(path: Path, **changed: Any) -> list[int]:
        """The parts of a tape of ten lines, one a second."""
        async with open_recorder(path, evolve(options, **changed), inline=True) as recorder:
            recorder.scribe.writer._now, recorder.scribe.writer._begun = trio.current_time, trio.current_time()
            for number in range(10):
                recorder.put(0, recorder.narration.clock_set, float(number))
                await trio.sleep(1)
        assert Tape(path).findings == []
        return [number for number, _ in Tape(path).parts]

    assert await parts(tape_path, part_size=1) == list(range(1, 12))
    assert await parts(tape_path.with_name("b"), part_for=1.0e9) == [1]
    assert await parts(tape_path.with_name("c"), part_for=3.5) == [1, 2, 3]


async def test_keep_size_and_keep_for_drop_parts(tmp_path):
    """`keep_size` counts earlier tapes of the folder, `keep_for` their age; nothing else there is touched."""
    mine = tmp_path / "notes.jsonl"
    mine.write_text("not a tape")
    await run_once(document(tmp_path))
    first = next(each for each in tapes_in(tmp_path) if each != mine)
    await run_once(document(tmp_path, keep_size="1GiB", keep_for="1h"))
    assert first.exists()
    os.utime(first, (1.0, 1.0))
    await run_once(document(tmp_path, keep_for="1h"))
    assert not first.exists()
    await run_once(document(tmp_path, keep_size="1B"))

    assert len([each for each in tapes_in(tmp_path) if each != mine]) == 1
    assert mine.exists()


async def test_with_less_than_min_free_nothing_is_recorded(recorded, tape_path, options, autojump_clock):
    """`min_free`: the gateway starts and serves nonetheless, and the tape begins when there is room."""
    async with recorded(min_free=1 << 62) as gateway:
        scribe = gateway.engine._edges.scribe
        await gateway.call("ping")
        await trio.sleep(AGAIN_S + 1)
        await gateway.call("ping")
        await trio.sleep(1)
        assert not tape_path.exists()
        assert "min_free" in scribe.failure
        object.__setattr__(scribe.writer._bounds, "min_free", 0)
        await trio.sleep(AGAIN_S)
        await gateway.call("tools/list")

    found = list(Tape(tape_path).entries())
    assert [e.message.method for e in found if isinstance(e, Begun)] == ["tools/list"]
    assert sum(e.entries for e in found if isinstance(e, Lost)) == scribe.lost > 10


async def test_max_waiting_bounds_what_waits(recorded, tape_path, autojump_clock):
    """`max_waiting` in bytes; what is left out is counted."""
    async with recorded(max_waiting=Size(10_000)) as gateway:
        for _ in range(50):
            await gateway.call("ping")
        waiting = gateway.engine._edges.scribe.waiting

    assert waiting <= 10_000 + 400
    assert any(isinstance(each, Lost) for each in Tape(tape_path).entries())


async def test_a_disk_that_fails_holds_up_nobody(recorded, tape_path, monkeypatch, autojump_clock):
    """What was on its way is counted as lost; when it works again, the tape goes on."""
    async with recorded() as gateway:
        await gateway.call("ping")
        await trio.sleep(1)
        writer = gateway.engine._edges.scribe.writer
        real = writer.append

        def fail(entries):
            raise OSError(errno.EIO, "broken")

        writer.append = fail
        await gateway.call("ping")
        await trio.sleep(1)
        await gateway.call("ping")
        writer.append = real
        await trio.sleep(AGAIN_S)
        await gateway.call("tools/list")

    tape = Tape(tape_path)
    found = list(tape.entries())
    assert [e.message.method for e in found if isinstance(e, Begun)] == ["ping", "tools/list"]
    assert [(e.entries, e.reason) for e in found if isinstance(e, Lost)] == [(8, "broken")]
    assert isinstance(found[-1], Trailer)
    assert found[-1].lost == 8


async def test_a_disk_that_cannot_be_synced_is_tried_again(recorded, tape_path, monkeypatch, autojump_clock):
    """Lines that were written are on the tape."""

    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, "broken")

    async with recorded() as gateway:
        monkeypatch.setattr(os, "fdatasync", fail)
        await gateway.call("ping")
        await trio.sleep(2)
        assert gateway.engine._edges.scribe.failure == "broken"
        monkeypatch.undo()
        await trio.sleep(AGAIN_S)
        await gateway.call("ping")
        await trio.sleep(2)
        assert gateway.engine._edges.scribe.failure == ""

    assert len([e for e in Tape(tape_path).entries() if isinstance(e, Begun)]) == 2


async def test_an_end_that_cannot_be_written_is_missing(recorded, tape_path, monkeypatch, autojump_clock):
    """The gateway stops nonetheless."""

    def fail(entries):
        raise OSError(errno.EIO, "broken")

    async with recorded() as gateway:
        await gateway.call("ping")
        await trio.sleep(1)
        gateway.engine._edges.scribe.writer._put = fail
    tape = Tape(tape_path)

    assert [e.exchange for e in tape.entries() if isinstance(e, Begun)] == [1]
    assert [f.what for f in tape.findings] == ["unfinished"]


async def test_a_tape_that_exists_is_no_place_for_another(tmp_path):
    """The gateway does not start, and says why."""
    path = tmp_path / "calls.jsonl"
    path.write_text("mine")
    with pytest.raises(ComponentError, match="never written over"):
        async with open_recorder(path):
            raise AssertionError("must not begin")

    assert path.read_text() == "mine"


@pytest.mark.parametrize("where", ["tape", "folder"])
async def test_a_place_that_cannot_be_written_to_is_named(where, tmp_path):
    """Likewise."""
    (tmp_path / "file").write_text("")
    configured = document(tmp_path / "file" / "tapes")
    tape = tmp_path / "nowhere" / "a.jsonl" if where == "tape" else None
    with pytest.raises(ComponentError, match=r"nowhere/a\.jsonl cannot be written|file/tapes cannot be used"):
        async with open_edges(configured, tape):
            raise AssertionError("must not begin")


async def test_an_error_of_the_gateway_is_not_taken_for_one_of_the_recorder(tmp_path):
    """Even if it is an `OSError`; and the tape has its end."""
    path = tmp_path / "calls.jsonl"
    with pytest.raises(OSError, match="mine"):
        async with open_recorder(path, Record(folder=tmp_path, min_free=0)):
            raise OSError("mine")

    assert isinstance(list(Tape(path).entries())[-1], Trailer)


async def test_a_cancelled_gateway_leaves_a_whole_tape(tmp_path):
    """The second signal, for example."""
    path = tmp_path / "calls.jsonl"
    with trio.CancelScope() as scope:
        async with (
            open_recorder(path, Record(folder=tmp_path, min_free=0)) as recorder,
            Engine(document(tmp_path), listen=False, edges=recorder).running(),
        ):
            scope.cancel()
            await trio.sleep_forever()
    tape = Tape(path)

    assert isinstance(list(tape.entries())[-1], Trailer)
    assert tape.findings == []


async def test_a_thread_that_hangs_does_not_hold_up_the_end(tmp_path, monkeypatch, autojump_clock):
    """The mock clock sees no thread: it hangs for as long as anybody waits for it."""
    path = tmp_path / "calls.jsonl"
    async with open_recorder(path, Record(folder=tmp_path, min_free=0)) as recorder:
        blocked = trio.Event()

        async def hang(*_arguments: object) -> None:
            blocked.set()
            await trio.sleep_forever()

        recorder.scribe.do = hang
        recorder.put(0, recorder.narration.clock_set, 1.0)
        await blocked.wait()

    assert recorder.scribe.writer.is_open, "a thread that is at it must not find its descriptor in other hands"
    recorder.scribe.writer.close()


def test_a_tape_in_a_folder_is_named_by_date_and_process(tmp_path):
    """So that two gateways do not meet."""
    name = path_in(Record(folder=tmp_path, compress=True), 1_800_000_000.25).name

    assert name == f"20270115T080000.250000Z-{os.getpid()}.jsonl.gz"


def test_a_recording_needs_a_folder():
    """Without one, nobody would know where it went."""
    with pytest.raises(ConfigError, match="folder"):
        from_data({"version": 1, "run": {"record": {}}})
