"""
The verbs, and what is common to all of them.

Verbs are named by import path, so that `--help` and `check` do not pay for the engine, the server and the HTTP client.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from cyclopts import App, CycloptsError, Parameter

from .exits import Exit, Failure
from .output import say

_HERE: Final = "sluiceway.pipeline.cli"
_VERBS: Final = (
    ("run", "run:run", "Serve a gateway until it is told to stop."),
    ("check", "check:check", "Find everything that is wrong with configurations, without running them."),
    ("test", "test:run_tests", "Try what configurations are expected to do, in memory and in virtual time."),
    ("doctor", "doctor:doctor", "Talk to each upstream and name what is wrong, with the remedy."),
    ("import", "import_:import_", "Turn another program's configuration into one for Sluiceway."),
    ("explain", "explain:explain", "Explain a component, or one place of a configuration."),
    ("diff", "diff:diff", "Say what a configuration does otherwise than another one."),
    ("shrink", "shrink:shrink", "Find the smallest tape and configuration that still show what should not be."),
    ("list", "catalogue:list_components", "List the components that are installed."),
    ("graph", "graph:graph", "Draw a configuration as a mermaid or dot graph."),
    ("schema", "schema:schema", "Print the JSON Schema of configurations, for editors."),
    ("new", "new:new", "Write the skeleton of a component or a pipeline, with a passing test."),
    ("lock", "lock:lock", "Write down what tools are, for the stage `pin` to hold upstreams to."),
    ("keys", "keys:keys", "Make, list and revoke the API keys of a file."),
    ("record", "record:record", "Serve a gateway, and write what passes its edges to a tape."),
    ("replay", "replay:replay", "Replay a tape, and show what a gateway makes of it differently."),
    ("simulate", "simulate:simulate", "Show what a configuration would have made of a tape's traffic."),
    ("tape", "tape:tape", "Show, check and print tapes."),
    ("audit", "audit:audit", "Check and ask an audit trail."),
    ("status", "status:status", "Show the state of a running gateway."),
    ("act", "act:act", "Have a component of a running gateway do something, or list what it can do."),
    ("tools", "tools:tools", "List and call the tools behind a running gateway."),
    ("completion", "completion:completion", "Print the completion script of a shell."),
)


def build_app() -> App:
    """The command line as cyclopts has it; nothing of a verb is imported yet."""
    app = App(
        name="sluiceway",
        help="A gateway for the Model Context Protocol: a checked chain of middleware in front of any MCP server.",
        version=lambda: version("sluiceway"),
        help_format="plaintext",
        default_parameter=Parameter(negative=""),
        suppress_keyboard_interrupt=False,
        exit_on_error=False,
        result_action="return_value",
    )
    for name, target, text in _VERBS:
        app.command(f"{_HERE}.{target}", name=name, help=text)
    app.register_install_completion_command(help="Install shell completion for bash, zsh or fish.")
    return app


def run_command(arguments: Sequence[str] | None) -> int:
    """Run one command and return its exit code."""
    try:
        result = build_app()(arguments)
        sys.stdout.flush()
    except CycloptsError:
        return Exit.USAGE
    except Failure as failure:
        say(f"sluiceway: {failure}")
        return failure.code
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FOUND
    except OSError as error:  # a file that cannot be written, a full disk under stdout
        where = f"{error.filename}: " if error.filename is not None else ""
        say(f"sluiceway: {where}{error.strerror or error}")
        return Exit.FOUND
    return result if isinstance(result, int) else Exit.OK
