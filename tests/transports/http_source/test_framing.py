"""Bodies out of bytes, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.transports.http_source.edge import MAX_HEAD, HeadRefused
from sluiceway.transports.http_source.framing import LAST_CHUNK, Chunks, Sized, chunk


def taken(body: Chunks | Sized, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """What a body takes of these pieces, and what it leaves."""
    buffer, content = bytearray(), b""
    for piece in pieces:
        buffer += piece
        content += body.take(buffer)
    return content, bytes(buffer)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    st.sampled_from([b"", b"x-sum: 1\r\n", b"a: b\r\nc:\r\n"]),
    st.lists(st.integers(0, 500), max_size=8),
)
def test_chunks_are_read_alike_however_they_are_cut(contents: list[bytes], trailers: bytes, places: list[int]) -> None:
    """The content comes whole, and what follows the end is left."""
    data = b"".join(chunk(content) for content in contents) + b"0\r\n" + trailers + b"\r\n" + b"GET /next"
    body = Chunks()

    assert taken(body, cut(data, places)) == (b"".join(contents), b"GET /next")
    assert body.done


@pytest.mark.parametrize("line", [b"5;name=value", b"5 ; a", b"005", b"5\t"])
def test_what_stands_behind_a_size_is_dropped(line: bytes) -> None:
    """Extensions mean nothing here."""
    assert taken(Chunks(), [line + b"\r\nhello\r\n" + LAST_CHUNK]) == (b"hello", b"")


@pytest.mark.parametrize(
    ("data", "status"),
    {
        "no number": (b"zz\r\n", 400),
        "a sign": (b"+5\r\n", 400),
        "a prefix": (b"0x5\r\n", 400),
        "no size": (b"\r\n", 400),
        "seventeen digits": (b"f" * 17 + b"\r\n", 400),
        "a bare line feed": (b"5\nhello", 400),
        "a control character": (b"5;\x01\r\n", 400),
        "more than it said": (b"3\r\nabcX0\r\n", 400),
        "more than it said, and a line end": (b"3\r\nabcX\r\n", 400),
        "a size without end": (b"0" * 5000, 400),
        "a long extension": (b"5;" + b"a" * 5000 + b"\r\n", 400),
        "a trailer that is none": (b"0\r\nno colon\r\n", 400),
        "a folded trailer": (b"0\r\na: b\r\n c\r\n", 400),
        "too many trailers": (b"0\r\n" + b"a: b\r\n" * MAX_HEAD, 431),
    }.values(),
)
def test_what_is_not_in_chunks_is_refused(data: bytes, status: int) -> None:
    """Nothing is repaired: another reader could repair it otherwise."""
    with pytest.raises(HeadRefused) as caught:
        taken(Chunks(), [data])

    assert caught.value.status == status


def test_a_body_of_a_length_leaves_what_follows() -> None:
    """As many bytes as were said, in as many pieces as they come."""
    body = Sized(5)

    assert taken(body, [b"he", b"l", b"lo!"]) == (b"hello", b"!")
    assert body.done
