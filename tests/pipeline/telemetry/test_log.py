"""How a process logs, once it was configured."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from typing import Any

import pytest
import structlog
import trio

from sluiceway.pipeline.telemetry import log
from sluiceway.pipeline.telemetry.log import configure_logging


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    """A stream nobody reads any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def lines(stream: io.StringIO) -> list[Any]:
    """The JSON lines written so far."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_are_json_with_time_level_and_event_first() -> None:
    """Then what was bound, then what was passed."""
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    structlog.get_logger().bind(component="sinks.a").warning("degraded", reason="slow", count=3)

    [line] = lines(stream)
    assert list(line) == ["time", "level", "event", "component", "reason", "count"]
    assert (line["level"], line["event"], line["component"]) == ("warning", "degraded", "sinks.a")
    assert line["time"].endswith("Z")


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_less_severe_lines_are_not_written(level: Any) -> None:
    """The level's own are."""
    stream = io.StringIO()
    configure_logging(level, "json", stream)
    logger = structlog.get_logger()
    names = ["debug", "info", "warning", "error"]
    for name in names:
        getattr(logger, name)("x")

    assert [line["level"] for line in lines(stream)] == names[names.index(level) :]


def test_a_disabled_level_runs_nothing() -> None:
    """Not even the values are looked at."""
    configure_logging("info", "json", io.StringIO())

    class Unshown:
        def __repr__(self) -> str:
            raise AssertionError("was rendered")

    structlog.get_logger().bind(a=1).debug("x %s", Unshown(), value=Unshown())


async def test_context_variables_are_in_every_line_of_their_task() -> None:
    """And in no other task's."""
    stream = io.StringIO()
    configure_logging("info", "json", stream)

    async def work(name: str) -> None:
        structlog.contextvars.bind_contextvars(correlation_id=name)
        await trio.lowlevel.checkpoint()
        structlog.get_logger().info(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, "a")
        nursery.start_soon(work, "b")
    structlog.get_logger().info("c")

    assert {"a": "a", "b": "b", "c": None} == {line["event"]: line.get("correlation_id") for line in lines(stream)}


@pytest.mark.parametrize(
    "key",
    ["authorization", "Authorization", "cookie", "set-cookie", "token", "access_token", "client_secret", "password",
     "api-key", "x-api-key", "apiKey", "API_KEY", "private_key"],
)  # fmt: skip
@pytest.mark.parametrize("form", ["json", "text"])
def test_secrets_are_masked_by_the_name_of_their_key(key: str, form: Any) -> None:
    """Passed, bound, in the context, and inside values, lists and tuples of values."""
    stream = io.StringIO()
    configure_logging("info", form, stream)
    structlog.contextvars.bind_contextvars(**{key: "hunter2"})
    logger = structlog.get_logger().bind(**{key: "hunter2"})
    logger.info("x", **{key: "hunter2"}, headers={"deep": [{key: "hunter2"}]}, pair=({key: "hunter2"},))

    assert "hunter2" not in stream.getvalue()
    assert "***" in stream.getvalue()


def test_an_exception_is_a_bounded_traceback_without_local_variables() -> None:
    """Locals hold what nobody wants in a log."""
    stream = io.StringIO()
    configure_logging("info", "json", stream)

    def fail(text: str) -> None:
        hunter2 = text
        raise ValueError(hunter2[:0] + "x" * 100_000)

    try:
        fail("-".join(["ca", "na", "ry"]))
    except ValueError:
        structlog.get_logger().exception("failed", long="y" * 100_000)

    [line] = lines(stream)
    assert line["level"] == "error"
    assert "in fail" in line["exception"]
    assert "ca-na-ry" not in line["exception"]
    assert len(line["exception"]) < log.MAX_STRING_CHARS + 20
    assert len(line["long"]) < log.MAX_STRING_CHARS + 20


def test_a_line_needs_no_event() -> None:
    """A careless log call is not a crash; and nobody can overwrite time and level."""
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    structlog.get_logger().info(None, level="fake", time="never", a=1)

    [line] = lines(stream)
    assert (line["event"], line["level"], line["a"]) == ("", "info", 1)
    assert line["time"] != "never"


def test_the_form_follows_the_stream_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text with colour on a terminal, JSON elsewhere."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        configure_logging("info", "auto", stream)
        structlog.get_logger().info("started", port=1)

    assert "\x1b[32mINFO \x1b[0m started" in terminal.getvalue()
    assert lines(pipe)[0]["port"] == 1


@pytest.mark.parametrize(("stream", "no_color"), [(io.StringIO(), None), (Terminal(), "1")])
def test_there_is_no_colour_without_a_terminal_or_against_no_color(
    stream: io.StringIO, no_color: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """https://no-color.org"""
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    configure_logging("info", "text", stream)
    structlog.get_logger().info("started", port=1)

    assert stream.getvalue().endswith("INFO  started port=1\n")


def test_the_standard_librarys_logging_comes_out_in_the_same_form() -> None:
    """hypercorn's, for example: message formatted, level kept, traceback included."""
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    logger = logging.getLogger("hypercorn.error")
    logger.warning("%s is slow", "it")
    try:
        raise KeyError("k")
    except KeyError:
        logger.exception("crash")
    logger.log(35, "between")

    slow, crash, between = lines(stream)
    assert (slow["event"], slow["level"], slow["logger"]) == ("it is slow", "warning", "hypercorn.error")
    assert "KeyError: 'k'" in crash["exception"]
    assert between["level"] == "warning"


def test_a_librarys_malformed_log_call_is_logged_as_it_is() -> None:
    """It is not our caller's fault."""
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    [handler] = (handler for handler in logging.getLogger().handlers if isinstance(handler, log._FromStdlib))
    handler.handle(logging.LogRecord("lib", logging.ERROR, __file__, 1, "%d of %d", ("x",), None))

    assert lines(stream)[0]["event"] == "%d of %d"


def test_other_libraries_never_log_their_debug_lines() -> None:
    """hpack prints every header at debug, `authorization` included."""
    stream = io.StringIO()
    configure_logging("debug", "json", stream)
    logging.getLogger("hpack.hpack").debug("Decoded authorization: hunter2")
    structlog.get_logger().debug("ours")

    assert [line["event"] for line in lines(stream)] == ["ours"]


def test_configuring_again_replaces_what_was_configured() -> None:
    """No line comes twice, and the old stream is let go."""
    first, second = io.StringIO(), io.StringIO()
    configure_logging("debug", "json", first)
    configure_logging("error", "json", second)
    for logger in (structlog.get_logger(), logging.getLogger("lib")):
        logger.info("x")
        logger.error("y")

    assert first.getvalue() == ""
    assert [line["event"] for line in lines(second)] == ["y", "y"]


@pytest.mark.parametrize("closed", [True, False])
def test_a_line_that_cannot_be_written_is_lost_and_nothing_else(closed: bool) -> None:
    """A reader that went away, a stream that was closed."""
    stream = io.StringIO() if closed else Broken()
    configure_logging("info", "json", stream)
    if closed:
        stream.close()
    structlog.get_logger().info("x")


def test_the_file_watcher_does_not_tell_of_every_change() -> None:
    """A log that lies in the watched folder would be a change itself, and so on for ever."""
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    logging.getLogger("watchfiles.main").info("1 change detected")
    logging.getLogger("watchfiles.main").warning("odd")

    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["odd"]


def test_standard_output_is_never_written_to() -> None:
    """It may be the wire of a stdio client. In a process of its own, for the streams are the process's."""
    code = """
import logging, structlog
from sluiceway.pipeline.telemetry.log import configure_logging
configure_logging("debug")
structlog.get_logger().info("ours")
structlog.get_logger("named").bind(a=1).error("bound")
logging.getLogger("lib").critical("theirs")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == ""
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["ours", "bound", "theirs"]
