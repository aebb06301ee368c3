"""Spellings of durations, sizes, shares and rates, secrets, and what an option says about itself."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.model.options import (
    OptionInfo,
    Rate,
    Secret,
    option,
    option_info,
    parse_duration,
    parse_rate,
    parse_ratio,
    parse_size,
    render_duration,
    render_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("5s", 5), ("1.5s", 1.5), ("2m", 120), ("2min", 120), ("1h", 3600), ("7d", 604800),
     (" 5 s ", 5), ("0s", 0)],
)  # fmt: skip
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    """In Python: float seconds."""
    assert seconds == parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("512B", 512), ("64KiB", 65536), ("10MiB", 10485760), ("1GiB", 1073741824), ("1.5kB", 1500), ("2MB", 2000000),
     ("1GB", 10**9)],
)  # fmt: skip
def test_a_size_is_a_number_and_a_unit(text: str, size: int) -> None:
    """In Python: int bytes, in powers of two with an `i`, of ten without."""
    assert size == parse_size(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("60/min", Rate(60, 60)), ("60/m", Rate(60, 60)), ("10/s", Rate(10, 1)), ("100 / h", Rate(100, 3600)),
     ("5/250ms", Rate(5, 0.25)), ("0.5/s", Rate(0.5, 1)), ("3/10s", Rate(3, 10))],
)  # fmt: skip
def test_a_rate_is_a_count_in_a_time(text: str, rate: Rate) -> None:
    """A unit alone means one of it."""
    assert rate == parse_rate(text)


@pytest.mark.parametrize(("text", "ratio"), [("20%", 0.2), ("0%", 0.0), ("100 %", 1.0), ("0.5%", 0.005)])
def test_a_share_is_in_percent(text: str, ratio: float) -> None:
    """In Python: 0 to 1."""
    assert ratio == parse_ratio(text)


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_duration, "5", "a duration needs a unit: write 5s if you mean that"),
        (parse_duration, "soon", "expected a duration such as 5s, got 'soon'"),
        (parse_duration, "", "expected a duration such as 5s, got ''"),
        (parse_duration, "-1s", "expected a duration such as 5s, got '-1s'"),
        (parse_duration, "٣s", "expected a duration such as 5s, got '٣s'"),
        (parse_duration, "1e3s", "expected a duration such as 5s, got '1e3s'"),
        (parse_duration, "9" * 400 + "s", "expected a duration such as 5s"),
        (parse_duration, "5S", "unknown unit 'S' in '5S'; use one of ms, s, m, min, h, d"),
        (parse_size, "64", "a size needs a unit: write 64KiB if you mean that"),
        (parse_size, "1kb", "unknown unit 'kb' in '1kb'; use one of B, kB, MB, GB, KiB, MiB, GiB"),
        (parse_size, "0.5B", "'0.5B' is not a whole number of bytes"),
        (parse_ratio, "0.2", "expected a share such as 20%, got '0.2'"),
        (parse_ratio, "120%", "'120%' is more than 100%"),
        (parse_rate, "60", "expected a rate such as 60/min, got '60'"),
        (parse_rate, "x/s", "expected a rate such as 60/min, got 'x/s'"),
        (parse_rate, "5/soon", "expected a duration such as 5s, got 'soon'"),
        (parse_rate, "0/s", "a rate must be positive, got '0/s'"),
        (parse_rate, "5/0s", "a rate must be positive, got '5/0s'"),
    ],
)
def test_a_wrong_spelling_says_what_to_write_instead(parse: object, text: str, message: str) -> None:
    """The message names the text and a right form."""
    assert callable(parse)
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "250ms"), (0.0005, "0.5ms"), (1, "1s"), (1.5, "1.5s"), (90, "90s"), (120, "2m"), (3600, "1h"),
     (86400, "1d"), (129600, "36h"), (1234567, "1234567s")],
)  # fmt: skip
def test_a_duration_is_rendered_with_the_largest_unit_that_fits(seconds: float, text: str) -> None:
    """Exactly, and without exponents."""
    assert text == render_duration(seconds)


@pytest.mark.parametrize(("size", "text"), [(0, "0B"), (1, "1B"), (1024, "1KiB"), (1536, "1536B"), (1 << 30, "1GiB")])
def test_a_size_is_rendered_with_the_largest_unit_that_fits(size: int, text: str) -> None:
    """Exactly."""
    assert text == render_size(size)


@pytest.mark.parametrize(
    ("rate", "text"),
    [(Rate(60, 60), "60/min"), (Rate(1234567, 1), "1234567/s"), (Rate(10, 10), "10/10s"), (Rate(5, 0.25), "5/250ms"),
     (Rate(1, 86400), "1/d"), (Rate(0.5, 120), "0.5/2m")],
)  # fmt: skip
def test_a_rate_is_rendered_as_it_is_written(rate: Rate, text: str) -> None:
    """`min` for a minute, so that nobody reads a metre."""
    assert text == str(rate)


@given(st.integers(0, 10**9))
def test_a_duration_reads_back_to_the_millisecond(ms: int) -> None:
    """What is rendered is parsed to the same duration."""
    assert ms / 1000 == pytest.approx(parse_duration(render_duration(ms / 1000)), abs=1e-9)


@given(st.integers(0, 2**49))
def test_a_size_reads_back_exactly(size: int) -> None:
    """What is rendered is parsed to the same size."""
    assert size == parse_size(render_size(size))


@given(st.integers(1, 10**9), st.integers(1, 10**8))
def test_a_rate_reads_back(count: int, ms: int) -> None:
    """What is rendered is parsed to the same rate."""
    rate = parse_rate(str(Rate(count, ms / 1000)))

    assert (count, pytest.approx(ms / 1000)) == (rate.count, rate.per_s)


@given(st.text(max_size=12), st.sampled_from([parse_duration, parse_size, parse_ratio, parse_rate]))
def test_no_text_makes_a_parser_raise_anything_else(text: str, parse: object) -> None:
    """A value, or a `ValueError` with a sentence."""
    assert callable(parse)
    try:
        parse(text)
    except ValueError as error:
        message = str(error)
    else:
        message = "parsed"

    assert message


def test_a_secret_is_read_from_the_environment_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before, and not at all if it is not set."""
    secret = Secret(from_env="SLUICEWAY_TEST_SECRET")
    with pytest.raises(LookupError, match="environment variable SLUICEWAY_TEST_SECRET is not set"):
        secret.resolve()
    monkeypatch.setenv("SLUICEWAY_TEST_SECRET", "hunter2 ")

    assert "hunter2 " == secret.resolve()


def test_a_secret_is_read_from_a_file_without_its_newline(tmp_path: Path) -> None:
    """Editors add a newline; spaces belong to the secret."""
    file = tmp_path / "key"
    secret = Secret(from_file=file)
    with pytest.raises(LookupError, match="cannot be read"):
        secret.resolve()
    file.write_bytes(b" hunter2 \r\n")

    assert " hunter2 " == secret.resolve()


def test_a_secret_that_is_not_text_cannot_be_read(tmp_path: Path) -> None:
    """The error does not show what was read."""
    file = tmp_path / "key"
    file.write_bytes(b"hunter2\xff")

    with pytest.raises(LookupError, match="cannot be read") as caught:
        Secret(from_file=file).resolve()
    assert "hunter2" not in str(caught.value)


def test_a_secret_shows_its_origin_only() -> None:
    """`repr` is what ends up in logs."""
    assert "Secret(from_env=TOKEN)" == repr(Secret(from_env="TOKEN"))
    assert "Secret(from_file=/run/key)" == repr(Secret(from_file=Path("/run/key")))


@pytest.mark.parametrize(
    ("info", "value", "sentence"),
    [
        (OptionInfo("d", ge=1), 0, "must be at least 1, got 0"),
        (OptionInfo("d", ge=1), 1, None),
        (OptionInfo("d", gt=0), 0, "must be more than 0, got 0"),
        (OptionInfo("d", gt=0), 0.1, None),
        (OptionInfo("d", le=10), 11, "must be at most 10, got 11"),
        (OptionInfo("d", le=10), 10, None),
        (OptionInfo("d"), -1e9, None),
    ],
)
def test_bounds_are_sentences(info: OptionInfo, value: float, sentence: str | None) -> None:
    """`ge` and `le` include the bound, `gt` does not."""
    assert sentence == info.check_bounds(value)


def test_bounds_are_shown_in_the_unit_of_the_option() -> None:
    """A caller says how numbers are written."""
    assert "must be at least 1s, got 500ms" == OptionInfo("d", ge=1).check_bounds(0.5, render_duration)


def test_an_option_is_a_field_that_knows_its_declaration() -> None:
    """Default, factory, and everything else that was said."""

    @frozen
    class Config:
        a: int = option(doc="One.", ge=1, since="1.1")
        b: str | None = option(None, doc="Two.", example="x", refers="sink", deprecated="a")
        c: dict[str, int] = option(factory=dict, doc="Three.")

    a, b, c = attrs.fields(Config)

    assert OptionInfo(doc="One.", ge=1, since="1.1") == option_info(a)
    assert OptionInfo(doc="Two.", example="x", refers="sink", deprecated="a") == option_info(b)
    assert (Config(1).b, Config(1).c, c.default) == (None, {}, attrs.Factory(dict))


def test_a_field_that_is_no_option_is_told_apart() -> None:
    """Components may only have options."""

    @frozen
    class Config:
        a: int = 1

    with pytest.raises(TypeError, match="a is not an option"):
        option_info(attrs.fields(Config)[0])
