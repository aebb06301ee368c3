"""What goes where, and how."""

import io
import sys

import pytest

from sluiceway.pipeline.cli.output import console, emit, emit_json, first_sentence, printable, say, table


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self):
        return True


def test_the_product_goes_to_stdout_and_words_about_it_to_stderr(capsys):
    """Each ends its line."""
    emit("data")
    emit("line\n")
    emit_json({"ä": [1]})
    say("words")

    assert ('data\nline\n{\n  "ä": [\n    1\n  ]\n}\n', "words\n") == capsys.readouterr()


def test_a_table_in_a_pipe_is_aligned_and_nothing_is_cut(capsys):
    """No colour, no trailing space, no wrapping."""
    table(("a", "b"), [("x" * 100, "y"), ("\x1b[31m", "z" * 200)], styles=("bold",))

    assert f"a{' ' * 101}b\n{'x' * 100}  y\n?[31m{' ' * 97}{'z' * 200}\n" == capsys.readouterr().out


@pytest.mark.parametrize("no_colour", [True, False])
def test_a_table_on_a_terminal_has_colour_unless_it_is_not_wanted(monkeypatch, no_colour):
    """NO_COLOR is obeyed."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    if no_colour:
        monkeypatch.setenv("NO_COLOR", "1")
    else:
        monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    table(("name",), [("value",)], styles=("red",))

    assert "value" in terminal.getvalue()
    assert no_colour is ("31m" not in terminal.getvalue())


def test_nothing_is_wrapped_where_there_is_no_terminal():
    """A long line stays one line."""
    stream = io.StringIO()
    console(stream).print("[bold] " + "x " * 500)

    assert ("[bold] " + "x " * 500).rstrip() == stream.getvalue().rstrip()


@pytest.mark.parametrize(
    ("text", "first"),
    [("Add numbers. Any.", "Add numbers"), ("  One.\nTwo", "One"), ("v1.2 of it", "v1.2 of it"), ("", "")],
)
def test_a_description_is_cut_after_its_first_sentence(text, first):
    """A full stop inside a word ends nothing."""
    assert first == first_sentence(text)


def test_controls_do_not_reach_the_terminal():
    """Line ends stay, the rest is shown as what it is: noise."""
    assert printable("a\x1b]0;x\x07\tb\nc") == "a?]0;x? b\nc"
