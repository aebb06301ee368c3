"""`explain` with a question: what a caller may do, from the configuration alone."""

from __future__ import annotations

from typing import Any

import pytest

from sluiceway.pipeline.cli.exits import Exit

GATEWAY = """\
version: 1
sources:
  local:
    http: {bind: "127.0.0.1:8080"}
pipelines:
  main:
    chain:
      - access:
          rules:
            - {id: readers, role: reader, allow: "tools:db_*", arguments: {n: {le: 1}}}
            - {tenant: acme, allow: "files.*", rate: 100/min}
            - {scopes: "docs:read", allow: "resources:docs://*"}
      - access: {id: second, when: {tenant: acme}, rules: [{allow: "*"}]}
      - access: {id: third, enabled: false}
    sink: demo
sinks:
  demo:
    embedded: {server: demo}
"""


@pytest.fixture
def gateway(write: Any) -> Any:
    return write("a.yaml", GATEWAY)


@pytest.mark.parametrize(
    ("question", "first"),
    [
        (["--caller", "ana", "--role", "reader", "--tool", "db_x"], "allowed by readers"),
        (["--role", "other", "--role", "reader", "--tool", "db_x", "--arguments", '{"n": 2}'],
         "refused by readers: arguments"),
        (["--tool", "db_x"], "refused: no rule allows it"),
        (["--prompt", "db_x", "--role", "reader"], "refused: no rule allows it"),
        (["--tenant", "acme", "--tool", "files.a"], "allowed by rules[1]\n  at most rules[1]: 100/min"),
        (["--resource", "docs://a"], "refused by rules[2]: scopes missing\n  these scopes would help: docs:read"),
        (["--resource", "docs://a", "--scope", "docs:read"], "allowed by rules[2]"),
        (["--resource", "docs://a", "--scope", "docs:read", "--method", "resources/subscribe"], "allowed by rules[2]"),
        (["--method", "ping"], "allowed: free"),
    ],
)  # fmt: skip
def test_a_caller_may_or_may_not_and_every_rule_says_why(
    sluiceway: Any, gateway: Any, question: list[str], first: str
) -> None:
    """The answer of the stage itself."""
    outcome = sluiceway("explain", "pipelines.main.chain[0]", gateway, *question)

    assert (Exit.OK, "") == (outcome.code, outcome.err)
    assert outcome.out.startswith(f"pipelines.main.chain[0] (access): {first}\n")
    if "ping" not in question:
        assert [line.split()[0] for line in outcome.out.splitlines()[-3:]] == ["readers", "rules[1]", "rules[2]"]


def test_all_stages_that_decide_are_asked(sluiceway: Any, gateway: Any) -> None:
    """With their guards; without those that are switched off."""
    outcome = sluiceway("explain", ".", gateway, "--tool", "x")
    one = sluiceway("explain", "pipelines.main.chain.second", gateway, "--tool", "x")

    assert "pipelines.main.chain[0] (access): refused" in outcome.out
    lines = ["allowed by rules[0]", "  for the exchanges of its `when` only", "  rules[0]  allowed", ""]
    assert "pipelines.main.chain[1] (access): " + "\n".join(lines) == one.out
    assert one.out in outcome.out
    assert "chain[2]" not in outcome.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--caller", "ana"], "name one thing"),
        (["--tool", "a", "--prompt", "b"], "name one thing"),
        (["--tool", "a", "--arguments", "{"], "--arguments: not JSON"),
        (["--method", "tools/call"], "name: say which tool"),
    ],
)
def test_a_question_that_makes_no_sense_is_an_error_of_the_command_line(
    sluiceway: Any, gateway: Any, arguments: list[str], said: str
) -> None:
    """Exit code 2, and the remedy."""
    outcome = sluiceway("explain", ".", gateway, *arguments)

    assert Exit.USAGE == outcome.code
    assert said in outcome.err


def test_a_question_needs_a_file_and_a_stage_that_decides(sluiceway: Any, write: Any, good: str) -> None:
    """Rules stand in a configuration."""
    no_file = sluiceway("explain", ".", "--tool", "x")
    no_stage = sluiceway("explain", ".", write("good.yaml", good), "--tool", "x")
    elsewhere = sluiceway("explain", "sinks.demo", write("a.yaml", GATEWAY), "--tool", "x")

    assert (Exit.USAGE, Exit.FOUND, Exit.FOUND) == (no_file.code, no_stage.code, elsewhere.code)
    assert "name the file" in no_file.err
    assert "no stage says what callers may do" in no_stage.err
    assert "no stage at sinks.demo" in elsewhere.err
