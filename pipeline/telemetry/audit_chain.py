"""
The form of an audit record, and the chain that makes a change of it show.

A record is one line of JSON: `{"seq":7,"prev":"<hash of record 6>", ...the entry..., "hash":"<its own>"}`. The hash
is SHA-256 over the line's own bytes up to `,"hash"`, so it covers the number, the predecessor and everything that is
said; whoever edits, removes, adds or swaps a line breaks it from there on. What a chain alone cannot show is that its
end was cut off, or that all of it was written anew: for that there are checkpoints, in a file of their own, which name
a record and its hash, and carry an HMAC if there is a key (RFC 2104).

Pure: bytes in, findings out.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, final

import msgspec
from attrs import define, field, frozen

from ..protocol.messages import Json

GENESIS: Final = "0" * 64
"""What the first record of all names as its predecessor."""
RETIRED: Final = "retired"
"""Event that says which record is the first from now on, because older ones were removed by the retention."""

_HASH_KEY: Final = b',"hash":"'
_SEAL_BYTES: Final = len(_HASH_KEY) + 64 + 2
_MAC_CONTEXT: Final = b"sluiceway audit checkpoint\n"

encode_entry = msgspec.json.Encoder().encode


class _Head(msgspec.Struct):
    seq: int
    prev: str
    hash: str
    event: str = ""
    first: int | None = None
    first_prev: str | None = None


class Checkpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """The word that a record was there."""

    seq: int
    hash: str
    at: str
    """When it was written, in UTC (RFC 3339)."""
    mac: str = ""
    """HMAC-SHA-256 over the rest, in hex; empty without a key."""


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_checkpoint = msgspec.json.Decoder(Checkpoint).decode


@final
@frozen
class Link:
    """A record as the chain sees it."""

    seq: int
    prev: str
    hash: str
    first: tuple[int, str] | None = None
    """Of a `retired` record: number of the first record that is left, and what that one names as its predecessor."""


def seal(entry: bytes, seq: int, prev: str) -> tuple[bytes, str]:
    """
    Make a record of an entry.

    Args:
        entry: A JSON object with at least one member, none of them named `seq`, `prev` or `hash`.
        seq: Its number; one more than that of the record before.
        prev: Hash of the record before.

    Returns:
        The line, with its newline, and its hash.
    """
    covered = b'{"seq":%d,"prev":"%s",%s' % (seq, prev.encode(), entry[1:-1])
    digest = hashlib.sha256(covered).hexdigest()
    return b'%s,"hash":"%s"}\n' % (covered, digest.encode()), digest


def parse_link(line: bytes) -> Link:
    """
    Read a record, without its newline.

    Raises:
        ValueError: It is no record, or not as it was written.
    """
    try:
        head = _decode_head(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"it is no audit record ({error})") from error
    covered, seal_ = line[:-_SEAL_BYTES], line[-_SEAL_BYTES:]
    digest = hashlib.sha256(covered).hexdigest()
    if seal_ != b'%s%s"}' % (_HASH_KEY, digest.encode()):
        raise ValueError("its content does not have the hash that it carries: it was changed")
    first = None
    if head.event == RETIRED and head.first is not None and head.first_prev is not None:
        first = (head.first, head.first_prev)
    return Link(head.seq, head.prev, digest, first)


def make_checkpoint(seq: int, record_hash: str, at: str, key: bytes | None) -> bytes:
    """A checkpoint as a line, with its newline."""
    mac = "" if key is None else _mac(key, seq, record_hash, at)
    return encode_entry(Checkpoint(seq, record_hash, at, mac)) + b"\n"


def _mac(key: bytes, seq: int, record_hash: str, at: str) -> str:
    return hmac.new(key, _MAC_CONTEXT + f"{seq}\n{record_hash}\n{at}".encode(), hashlib.sha256).hexdigest()


def parse_checkpoints(lines: Iterable[bytes]) -> Iterator[Checkpoint]:
    """
    Read checkpoints.

    Raises:
        ValueError: A line is none. The last one may be torn off by a crash, and then is left out.
    """
    pending: ValueError | None = None
    for number, line in enumerate(lines, 1):
        if pending is not None:
            raise pending
        try:
            checkpoint = _decode_checkpoint(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            pending = ValueError(f"line {number} of the checkpoints is none ({error})")
            pending.__cause__ = error
        else:
            yield checkpoint


@final
@frozen
class Finding:
    """Something that is not as it was written."""

    seq: int | None
    """Number of the record it is about, as far as that is known."""
    text: str


@final
@define(eq=False)
class Verdict:
    """What became of a chain."""

    records: int = 0
    """Records that are as they were written."""
    first: int = 0
    """Number of the first one; 0 if there is none."""
    last: int = 0
    """Number of the last one that is as it was written."""
    checkpoints: int = 0
    """Checkpoints that were compared with their record."""
    signed: int = 0
    """Those whose HMAC was checked."""
    findings: list[Finding] = field(factory=list)
    """The first break of the chain, and what checkpoints say; empty if all is well."""

    def as_json(self) -> Mapping[str, Json]:
        """For the command line and the admin listener."""
        return {
            "valid": not self.findings,
            "records": self.records,
            "first": self.first,
            "last": self.last,
            "checkpoints": self.checkpoints,
            "signed": self.signed,
            "findings": [{"seq": each.seq, "text": each.text} for each in self.findings],
        }


def verify(lines: Iterable[bytes], checkpoints: Iterable[bytes] = (), key: bytes | None = None) -> Verdict:
    """
    Check a chain from its first record that is left to its last.

    Args:
        lines: The records in order, each with its newline; one without is the torn last line of a crash.
        checkpoints: Lines of the checkpoint file.
        key: What checkpoints were signed with; without it their HMACs are not checked.
    """
    verdict = Verdict()
    hashes: dict[int, str] = {}
    try:
        named = list(parse_checkpoints(checkpoints))
    except ValueError as error:
        verdict.findings.append(Finding(None, str(error)))
        named = []
    wanted = {each.seq for each in named}
    _walk(verdict, lines, wanted, hashes)
    broken = bool(verdict.findings)
    for checkpoint in named:
        finding = _compare(verdict, checkpoint, hashes, key)
        if finding is not None and not (broken and checkpoint.seq > verdict.last):
            verdict.findings.append(finding)
            break
    return verdict


def _walk(verdict: Verdict, lines: Iterable[bytes], wanted: set[int], hashes: dict[int, str]) -> None:
    """Go along the chain up to its first break; note the hashes of the records that checkpoints name."""
    before: Link | None = None
    start: Link | None = None
    starts = {(1, GENESIS)}
    for line in lines:
        here = verdict.last + 1 if before is not None else None
        try:
            if not line.endswith(b"\n"):
                raise ValueError("it is not complete: a crash, which the next start repairs, or somebody cut it")
            link = parse_link(line[:-1])
        except ValueError as error:
            name = "the first record" if here is None else f"the record after {verdict.last}"
            verdict.findings.append(Finding(here, f"{name}: {error}"))
            break
        if before is not None and (link.seq != before.seq + 1 or link.prev != before.hash):
            verdict.findings.append(Finding(link.seq, _broken(before, link)))
            break
        start = start or link
        before = link
        if link.first is not None:
            starts.add(link.first)
        if link.seq in wanted:
            hashes[link.seq] = link.hash
        verdict.records += 1
        verdict.last = link.seq
    if start is None:
        return
    verdict.first = start.seq
    if (start.seq, start.prev) not in starts and not verdict.findings:
        text = f"the chain begins with record {start.seq}, and none says that those before it were retired"
        verdict.findings.append(Finding(start.seq, text))


def _broken(before: Link, link: Link) -> str:
    if link.seq != before.seq + 1:
        return f"record {link.seq} stands after record {before.seq}: records are missing, swapped or repeated"
    return f"record {link.seq} does not name record {before.seq} as it is: one of them was put in another's place"


def _compare(verdict: Verdict, checkpoint: Checkpoint, hashes: Mapping[int, str], key: bytes | None) -> Finding | None:
    if key is not None:
        mac = _mac(key, checkpoint.seq, checkpoint.hash, checkpoint.at)
        if not hmac.compare_digest(mac, checkpoint.mac):
            return Finding(checkpoint.seq, f"the checkpoint of record {checkpoint.seq} is not signed with this key")
        verdict.signed += 1
    if checkpoint.seq > verdict.last:
        text = (
            f"the chain ends with record {verdict.last}, but a checkpoint of {checkpoint.at} names record "
            f"{checkpoint.seq}: the end was cut off"
        )
        return Finding(checkpoint.seq, text)
    if checkpoint.seq < verdict.first:
        return None
    verdict.checkpoints += 1
    if hashes.get(checkpoint.seq) != checkpoint.hash:
        text = f"record {checkpoint.seq} is not the one that the checkpoint of {checkpoint.at} names"
        return Finding(checkpoint.seq, text)
    return None
