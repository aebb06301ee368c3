"""Keys are made, listed and revoked; none is ever written down."""

from __future__ import annotations

import io
import json
import stat
from datetime import UTC, datetime

import pytest

from sluiceway.middlewares.auth.api_keys import digest_of, parse_keys
from sluiceway.pipeline.cli.exits import Exit

PEPPER = "0123456789abcdef"


@pytest.fixture(autouse=True)
def pepper(monkeypatch):
    monkeypatch.setenv("SLUICEWAY_KEY_PEPPER", PEPPER)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.json"


def test_a_key_is_shown_once_and_its_digest_kept(sluiceway, file):
    """The key alone on stdout; the file is for its owner's eyes only."""
    outcome = sluiceway(
        "keys", "new", str(file), "--subject", "ana", "--tenant", "acme", "--also-tenant", "globex", "--role", "dev",
        "--scope", "read", "--scope", "write", "--expires", "2030-01-31T00:00:00Z", "--note", "for ana", "--id", "one",
    )  # fmt: skip
    key = outcome.out.strip()
    (kept,) = parse_keys(file.read_bytes())

    assert outcome.code == Exit.OK
    assert kept.digest == digest_of(PEPPER.encode(), key)
    assert (kept.id, kept.subject, kept.tenant, kept.tenants) == ("one", "ana", "acme", ("globex",))
    assert (kept.roles, kept.scopes, kept.note) == (("dev",), ("read", "write"), "for ana")
    assert kept.expires == datetime(2030, 1, 31, tzinfo=UTC)
    assert key not in outcome.err
    assert key not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_second_key_of_one_subject_stands_beside_the_first(sluiceway, file, tmp_path):
    """That is how a key is rotated; the file keeps its mode, and the folder gets nothing else."""
    sluiceway("keys", "new", str(file), "--subject", "ana")
    file.chmod(0o640)
    sluiceway("keys", "new", str(file), "--subject", "ana", "--expires", "90d")
    first, second = parse_keys(file.read_bytes())
    outcome = sluiceway("keys", "revoke", str(file), first.id)

    assert first.digest != second.digest
    assert second.expires is not None
    assert 89 < (second.expires - datetime.now(UTC)).total_seconds() / 86_400 <= 90
    assert (outcome.code, outcome.out) == (Exit.OK, "")
    assert parse_keys(file.read_bytes()) == (second,)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


def test_keys_are_listed_without_what_opens_anything(sluiceway, file):
    """As a table and as JSON; one that has expired is marked."""
    sluiceway("keys", "new", str(file), "--subject", "ana", "--id", "old", "--expires", "2020-01-01T00:00:00+00:00")
    sluiceway("keys", "new", str(file), "--subject", "bob", "--id", "new")
    table = sluiceway("keys", "list", str(file))
    listed = json.loads(sluiceway("keys", "list", str(file), "--format", "json").out)

    assert table.out.splitlines()[1].split()[:2] == ["old", "ana"]
    assert "(expired)" in table.out
    assert "never" in table.out
    assert "hmac-sha256" not in table.out
    assert listed == [
        {"id": "old", "subject": "ana", "expires": "2020-01-01T00:00:00Z"},
        {"id": "new", "subject": "bob"},
    ]


def test_a_key_that_others_know_already_comes_from_stdin(sluiceway, file, monkeypatch):
    """Never from the command line, where everybody could read it; and it is not repeated."""
    monkeypatch.setattr("sys.stdin", io.StringIO("an-old-key-of-another-gateway\n"))
    outcome = sluiceway("keys", "new", str(file), "--subject", "ana", "--from-stdin")

    assert (outcome.code, outcome.out) == (Exit.OK, "")
    assert parse_keys(file.read_bytes())[0].digest == digest_of(PEPPER.encode(), "an-old-key-of-another-gateway")


def test_the_pepper_may_be_in_a_file(sluiceway, file, tmp_path):
    """As the stage's may."""
    (tmp_path / "pepper").write_text("another pepper of enough length\n")
    key = sluiceway("keys", "new", str(file), "--subject", "ana", "--pepper-file", str(tmp_path / "pepper")).out.strip()

    assert parse_keys(file.read_bytes())[0].digest == digest_of(b"another pepper of enough length", key)


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["list", "FILE"], Exit.FOUND, "No such file"),
        (["revoke", "GOOD", "nobody"], Exit.FOUND, "has no key 'nobody'"),
        (["list", "BAD"], Exit.FOUND, "not a file of keys"),
        (["new", "BAD", "--subject", "ana"], Exit.FOUND, "not a file of keys"),
        (["new", "GOOD", "--subject", "ana", "--id", "one"], Exit.FOUND, "'one' is there twice"),
        (["new", "GOOD", "--subject", "ana", "--expires", "soon"], Exit.USAGE, "not 'soon'"),
        (["new", "GOOD", "--subject", "ana", "--expires", "2030-01-01T00:00:00"], Exit.USAGE, "needs a time zone"),
        (["new", "GOOD", "--subject", "ana", "--pepper-file", "FILE"], Exit.FOUND, "there is no pepper"),
        (["new", "GOOD", "--subject", "ana", "--pepper-file", "SHORT"], Exit.FOUND, "it needs 16"),
        (["new", "GOOD", "--subject", "ana", "--from-stdin"], Exit.FOUND, "a key on stdin is one line"),
    ],
)
def test_what_cannot_be_done_is_said(sluiceway, tmp_path, monkeypatch, words, code, complaint):
    """And the file stays as it was."""
    good, bad, short = tmp_path / "good", tmp_path / "bad", tmp_path / "short"
    sluiceway("keys", "new", str(good), "--subject", "ana", "--id", "one")
    before = good.read_bytes()
    bad.write_text("keys?")
    short.write_text("short")
    monkeypatch.setattr("sys.stdin", io.StringIO("too short\n"))
    places = {"FILE": tmp_path / "none", "GOOD": good, "BAD": bad, "SHORT": short}

    outcome = sluiceway("keys", *(str(places.get(word, word)) for word in words))

    assert outcome.code == code
    assert complaint in outcome.err
    assert good.read_bytes() == before


def test_without_a_pepper_there_are_no_keys(sluiceway, file, monkeypatch):
    """The message says how to make one."""
    monkeypatch.delenv("SLUICEWAY_KEY_PEPPER")
    outcome = sluiceway("keys", "new", str(file), "--subject", "ana")

    assert outcome.code == Exit.FOUND
    assert "openssl rand -hex 32" in outcome.err
    assert not file.exists()


def test_a_file_that_cannot_be_replaced_stays(sluiceway, file, tmp_path, monkeypatch):
    """Nothing half-written is left beside it."""
    sluiceway("keys", "new", str(file), "--subject", "ana")
    before = file.read_bytes()

    def fail(*_arguments):
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr("os.replace", fail)
    outcome = sluiceway("keys", "new", str(file), "--subject", "bob")

    assert (outcome.code, file.read_bytes()) == (Exit.FOUND, before)
    assert "No space left" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]
