"""Answers that are compressed, for whom, and which never are."""

from __future__ import annotations

import gzip
import json
import threading
from importlib import import_module

import pytest
from backports import zstd

from sluiceway.pipeline.protocol.messages import Result
from sluiceway.transports.http_source import compression
from sluiceway.transports.http_source.compression import choose_coding, compress, installed_codings

LARGE = {"content": [{"type": "text", "text": "so it goes " * 1000}]}
DECODE = {"gzip": gzip.decompress, "br": import_module("brotli").decompress, "zstd": zstd.decompress}


async def large(exchange):
    """Answers with much, or with little."""
    return Result(LARGE if exchange.request.params.get("name") == "large" else {})


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
async def test_a_large_answer_is_compressed_for_who_accepts_it(running, autojump_clock, coding):
    """The body is the same behind it, and caches are told what it depends on."""
    async with running(large, compress_from=1024) as served:
        answer = await served.post_modern(served.modern("tools/call", name="large"), accept_encoding=coding)

    assert answer.headers["content-encoding"] == coding
    assert "accept-encoding" in answer.headers["vary"]
    assert len(answer.body) == int(answer.headers["content-length"]) < 1024
    assert json.loads(DECODE[coding](answer.body))["result"] == LARGE


@pytest.mark.parametrize(
    ("name", "options", "accepted"),
    [
        ("small", {"compress_from": 1024}, "gzip"),
        ("large", {"compress_from": 1024}, None),
        ("large", {"compress_from": 1024}, "identity, gzip;q=0"),
        ("large", {}, "gzip"),
    ],
)
async def test_other_answers_are_not(running, autojump_clock, name, options, accepted):
    """Too small, not accepted, refused, or not configured."""
    async with running(large, **options) as served:
        answer = await served.post_modern(served.modern("tools/call", name=name), accept_encoding=accepted)

    assert "content-encoding" not in answer.headers
    assert answer.json["result"] == (LARGE if name == "large" else {})
    assert ("vary" in answer.headers) == bool(options)


async def test_event_streams_never_are(running, autojump_clock):
    """What waits in a compressor is late."""
    async with running(compress_from=1) as served:
        answer = await served.post_modern(served.modern("tools/call", name="progress"), accept_encoding="gzip")

    assert "text/event-stream" == answer.headers["content-type"]
    assert "content-encoding" not in answer.headers
    assert len(answer.messages) == 2


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("gzip, br", "br"),
        ("br;q=0.1, gzip;q=0.5", "gzip"),
        ("*", "zstd"),
        ("*;q=0.5, gzip", "gzip"),
        ("GZip ; Q=0.3", "gzip"),
        ("deflate", None),
        ("gzip;q=nonsense", None),
        ("", None),
        (None, None),
    ],
)
def test_the_client_chooses(header, expected):
    """By quality; of equally liked ones it is the best there is (RFC 9110, section 12.5.3)."""
    assert choose_coding(header, installed_codings()) == expected


def test_gzip_is_there_without_any_package(monkeypatch):
    """The others are left out where they cannot be imported."""

    def none(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(compression, "import_module", none)

    assert list(installed_codings()) == ["gzip"]


async def test_a_large_body_is_compressed_elsewhere(monkeypatch):
    """In a thread, so that nobody else waits."""
    monkeypatch.setattr(compression, "THREAD_FROM", 10)

    assert gzip.decompress(await compress(b"x" * 100, installed_codings()["gzip"])) == b"x" * 100


async def test_only_a_large_body_leaves_the_thread_that_serves():
    """What takes longer than a switch of threads; below that the switch would cost more than it saves."""
    threads = []

    def encode(body):
        threads.append(threading.current_thread() is threading.main_thread())
        return body

    for size in (compression.THREAD_FROM - 1, compression.THREAD_FROM):
        await compress(b"x" * size, encode)

    assert threads == [True, False]
