"""What is shown while something takes time."""

import io
import sys

import pytest

from sluiceway.pipeline.cli.progress import CallBar, StartDisplay, start_display
from sluiceway.pipeline.model.component import State


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Make stderr a terminal; inside the test, for pytest puts its own there before."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")

    def take():
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return take


def test_components_are_shown_as_they_come_up(terminal):
    """One line each, with a mark, its state and the reason; nothing once it is closed."""
    terminal = terminal()
    with start_display() as display:
        assert isinstance(display, StartDisplay)
        display("sinks.up", State.STARTING, "")
        display("sinks.up", State.DEGRADED, "slow")
        display.close()
        shown = terminal.getvalue()
        display("sinks.up", State.READY, "")

    assert "sinks.up" in shown
    assert "slow" in shown
    assert "!" in shown
    assert "✓" not in terminal.getvalue()


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_a_mark(terminal, state):
    """A new one cannot be forgotten."""
    terminal = terminal()
    with StartDisplay() as display:
        display("x", state, "")

    assert state in terminal.getvalue()


def test_nothing_is_drawn_where_there_is_no_terminal():
    """Log lines say it there."""
    with start_display() as display:
        assert display is None


async def test_a_call_has_a_bar(terminal):
    """Share and message follow the reports."""
    terminal = terminal()
    with CallBar() as report:
        await report(1, 4, "reading\x1b")
        await report(2, None, "")

    assert "25%" in terminal.getvalue()
    assert "reading?" in terminal.getvalue()
