"""What options point to: secrets and files, as they are now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from sluiceway.pipeline.model.options import Secret
from sluiceway.pipeline.runtime.outside import digest_outside


@attrs.frozen
class Inner:
    """A group of options."""

    cert: Path | None = None
    keys: tuple[Secret, ...] = ()


@attrs.frozen
class Options:
    """Options of a sink."""

    inner: Inner = Inner()
    env: Mapping[str, str | Secret] = attrs.Factory(dict)
    label: str = ""


def test_a_secret_counts_by_its_value_wherever_it_stands(tmp_path: Path) -> None:
    """In a mapping, in a list, in a group; from a file or from the environment."""
    secret = tmp_path / "secret"
    secret.write_text("one")
    for options in (
        Options(env={"KEY": Secret(from_file=secret)}),
        Options(inner=Inner(keys=(Secret(from_file=secret),))),
    ):
        secret.write_text("one")
        before = digest_outside(options)
        assert digest_outside(options) == before
        secret.write_text("two")
        assert digest_outside(options) != before
        secret.unlink()
        assert digest_outside(options) != before


def test_a_variable_counts_as_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another value is another digest; none at all is no error."""
    options = Options(env={"KEY": Secret(from_env="SOME_KEY")})
    monkeypatch.setenv("SOME_KEY", "one")
    one = digest_outside(options)
    monkeypatch.setenv("SOME_KEY", "two")
    two = digest_outside(options)
    monkeypatch.delenv("SOME_KEY")

    assert 3 == len({one, two, digest_outside(options)})


def test_a_file_counts_by_its_content_and_a_directory_by_nothing(tmp_path: Path) -> None:
    """A certificate that was renewed in its place is another one; what happens in a working directory is not ours."""
    cert = tmp_path / "cert.pem"
    options = Options(inner=Inner(cert=cert))
    missing = digest_outside(options)
    cert.write_text("a")
    first = digest_outside(options)
    cert.write_text("b")

    directory = Options(inner=Inner(cert=tmp_path))
    before = digest_outside(directory)
    (tmp_path / "more").write_text("x")

    assert 3 == len({missing, first, digest_outside(options)})
    assert digest_outside(directory) == before


def test_a_file_that_cannot_be_read_is_no_error(tmp_path: Path) -> None:
    """Whoever needs it says so when it opens."""
    endless = tmp_path / ("x" * 300)

    assert isinstance(digest_outside(Options(inner=Inner(cert=endless))), bytes)


def test_what_options_say_themselves_is_no_part_of_it() -> None:
    """They are compared as they are."""
    assert digest_outside(Options(label="a")) == digest_outside(Options(label="b"))
    assert digest_outside(None) == digest_outside(Options())
