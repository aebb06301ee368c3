"""What is common to all verbs."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from sluiceway.pipeline.cli import main
from sluiceway.pipeline.cli.exits import Exit

VERBS = (
    "run",
    "check",
    "doctor",
    "import",
    "explain",
    "diff",
    "shrink",
    "list",
    "graph",
    "schema",
    "new",
    "keys",
    "status",
    "act",
    "tools",
    "completion",
)

COMMAND = (sys.executable, "-c", "import sys; from sluiceway.pipeline.cli import main; sys.exit(main())")

IMPORTED = """
import sys
from sluiceway.pipeline.cli import main
code = main({words!r})
costly = {{"hypercorn", "httpx2", "starlette", "structlog", "sluiceway.pipeline.runtime.engine"}}
print(code, *sorted(costly & set(sys.modules)), file=sys.stderr)
"""


def test_help_lists_every_verb(sluiceway):
    """On stdout, for it was asked for."""
    outcome = sluiceway("--help")

    assert outcome.code == Exit.OK
    assert all(f" {verb} " in outcome.out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(sluiceway, verb):
    """Each has help of its own."""
    assert "Usage: sluiceway " + verb in sluiceway(verb, "--help").out


def test_the_version_is_the_distributions(sluiceway):
    """One line on stdout."""
    assert (Exit.OK, version("sluiceway") + "\n", "") == sluiceway("--version")


@pytest.mark.parametrize("words", [("nonsense",), ("check", "--nonsense"), ("diff",), ("new", "gizmo", "x")])
def test_a_wrong_command_line_is_exit_code_2(sluiceway, words):
    """What is wrong is said on stderr."""
    outcome = sluiceway(*words)

    assert (Exit.USAGE, "") == (outcome.code, outcome.out)
    assert "Error" in outcome.err


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["check", "tiny.yaml"]])
def test_what_only_servers_need_is_not_imported(tmp_path, words):
    """`--help` and `check` do not pay for the engine, the server and the HTTP client."""
    (tmp_path / "tiny.yaml").write_text(
        "version: 1\nsources: {editor: {stdio: {}, pipeline: main}}\npipelines: {main: {sink: up}}\n"
        'sinks: {up: {stdio: {command: [server]}}, web: {http: {url: "https://mcp.example.com/mcp"}}}\n'
    )
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED.format(words=words)], capture_output=True, text=True, cwd=tmp_path, check=True
    )

    assert done.stderr.splitlines()[-1] == "0"


def test_an_interrupt_is_exit_code_130(monkeypatch):
    """Trio may raise it inside a nursery."""
    for error in (KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt()])):

        def interrupted(_words, error=error):
            raise error

        monkeypatch.setattr("sluiceway.pipeline.cli.app.run_command", interrupted)

        assert main([]) == Exit.INTERRUPTED


@pytest.mark.parametrize(
    "group",
    [ExceptionGroup("", [ValueError()]), BaseExceptionGroup("", [KeyboardInterrupt(), ValueError()])],
)
def test_a_bug_beside_an_interrupt_is_not_swallowed(monkeypatch, group):
    """A traceback is what a bug deserves."""

    def broken(_words):
        raise group

    monkeypatch.setattr("sluiceway.pipeline.cli.app.run_command", broken)
    with pytest.raises(type(group)):
        main([])


def test_a_reader_that_has_seen_enough_is_no_traceback():
    """`sluiceway schema | head -1`."""
    code = "import sys; from sluiceway.pipeline.cli import main; sys.exit(main(['schema']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()

    assert (Exit.FOUND, b"") == (process.returncode, err)


def test_no_colour_where_there_is_no_terminal(program):
    """Not in help, not in errors."""
    for words in (["--help"], ["nonsense"], ["list"]):
        outcome = program(*words)

        assert "\x1b" not in outcome.out + outcome.err


def test_what_the_system_refuses_is_a_message(sluiceway, tmp_path):
    """A traceback is for bugs."""
    (tmp_path / "file").touch()
    outcome = sluiceway("new", "middleware", "mask", "--into", tmp_path / "file")

    assert (Exit.FOUND, f"sluiceway: {tmp_path}/file/mask: Not a directory\n") == (outcome.code, outcome.err)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_full_disk_under_stdout_is_a_message():
    """Also when only the last write finds out."""
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert (Exit.FOUND, "sluiceway: No space left on device\n") == (done.returncode, done.stderr)


@pytest.mark.parametrize("closed", ["1", "2"])
def test_closed_standard_streams_are_the_null_device(closed):
    """As some supervisors start their programs; no socket may get the descriptor of stdout."""
    command = 'exec "$@" ' + f"{closed}>&-"
    done = subprocess.run(["sh", "-c", command, "sh", *COMMAND, "list"], capture_output=True, check=False)

    assert (Exit.OK, b"") == (done.returncode, done.stderr)
    assert (closed == "1") == (done.stdout == b"")
