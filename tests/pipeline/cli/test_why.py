"""`explain` with a question: what a caller may do, from the configuration alone."""

from __future__ import annotations

import json
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


FURTHER = """\
version: 1
sources: {local: {http: {bind: "127.0.0.1:8080"}, pipeline: main}}
pipelines:
  main:
    chain:
      - auth_anonymous
      - tenant: {tenants: {acme: {}, globex: {enabled: false}}}
      - pin: {lock: ./tools.lock.json}
    sink: all
sinks:
  all:
    route:
      to:
        files: {tools: {deny: ["rm_*"], rename: {cat: read}}, resources: {allow: ["file://*"]}}
        docs: {prefix: d, prompts: {allow: []}}
      rules: [{of: name, exact: special, to: docs}]
  files: {embedded: {server: demo}}
  docs: {embedded: {server: demo}}
run: {admin: {bind: "unix:./admin.sock"}}
"""


@pytest.fixture
def further(write: Any) -> Any:
    write("tools.lock.json", '{"version": 1, "tools": {"files.read": {"digest": "sha256:0"}}}')
    return write("b.yaml", FURTHER)


@pytest.mark.parametrize(
    ("question", "tenant", "pin", "route"),
    [
        (["--tool", "files.read", "--tenant", "acme"], "allowed: acts for acme",
         "allowed: the lock file has it, as long as it is what was approved", "allowed: goes to files"),
        (["--tool", "d.find"], "refused: the caller has no tenant, and one is required",
         "refused: the lock file does not know it, and unknown is hide", "allowed: goes to docs"),
        (["--tool", "files.rm_x", "--tenant", "globex"], "refused: Tenant not found",
         "refused: the lock file does not know it, and unknown is hide",
         "refused: none of its upstreams has this name for clients"),
        (["--resource", "file://a", "--tenant", "acme"], "allowed: acts for acme", "allowed: no tool is called",
         "allowed: goes to files or docs"),
        (["--tool", "special", "--tenant", "acme"], "allowed: acts for acme",
         "refused: the lock file does not know it, and unknown is hide", "allowed: goes to docs, as `rules` says"),
        (["--method", "tools/list", "--tenant", "acme"], "allowed: acts for acme", "allowed: no tool is called",
         "allowed: goes to all of them"),
    ],
)  # fmt: skip
def test_tenants_pins_and_routers_say_why_too(
    sluiceway: Any, further: Any, question: list[str], tenant: str, pin: str, route: str
) -> None:
    """In the order in which an exchange meets them."""
    outcome = sluiceway("explain", further, *question)

    assert (Exit.OK, "") == (outcome.code, outcome.err)
    assert [
        f"pipelines.main.chain[1] (tenant): {tenant}",
        f"pipelines.main.chain[2] (pin): {pin}",
        f"sinks.all (route): {route}",
    ] == [line for line in outcome.out.splitlines() if not line.startswith("  ")]


@pytest.mark.parametrize(
    ("question", "says"),
    [
        (["--tool", "files.cat"], ["  files  clients know it as read", "  docs   its names begin with d."]),
        (["--tool", "files.rm_x"], ["  files  rm_x is hidden by allow or deny", "  docs   its names begin with d."]),
        (["--tool", "files.read"], ["  files  shown, there called cat", "  docs   its names begin with d."]),
        (["--prompt", "d.x"], ["  files  its names begin with files.", "  docs   x is hidden by allow or deny"]),
        (["--resource", "ftp://a"], ["  files  hidden by allow or deny", "  docs   shown"]),
    ],
)
def test_a_router_says_of_each_upstream_why_it_does_not_get_a_name(
    sluiceway: Any, further: Any, question: list[str], says: list[str]
) -> None:
    """Prefixes, renames, and what is hidden."""
    outcome = sluiceway("explain", "sinks.all", further, *question)

    assert says == outcome.out.splitlines()[1:]


def test_a_lock_file_that_cannot_be_read_lets_nothing_pass(sluiceway: Any, further: Any) -> None:
    """The stage would not open."""
    (further.parent / "tools.lock.json").unlink()
    outcome = sluiceway("explain", "pipelines.main.chain.pin", further, "--tool", "files.read")

    assert outcome.out.startswith("pipelines.main.chain[2] (pin): refused: ")
    assert "makes it" in outcome.out


def test_a_running_gateway_says_how_its_upstreams_are(
    sluiceway: Any, further: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --live; as JSON for programs."""
    status = {
        "components": [
            {"id": "sinks.files", "kind": "sink", "state": "ready", "reason": ""},
            {"id": "sinks.docs", "kind": "sink", "state": "degraded", "reason": "cannot be reached"},
            {"id": "sinks.docs.circuit_breaker", "kind": "middleware", "state": "degraded", "reason": "circuit open",
             "details": {"state": "open"}},
            {"id": "pipelines.main.log", "kind": "middleware", "state": "ready", "reason": ""},
        ]
    }  # fmt: skip
    monkeypatch.setattr("sluiceway.pipeline.cli.asking.AdminListener.ask", lambda *_: status)
    text = sluiceway("explain", further, "--tool", "files.read", "--live").out
    outcome = sluiceway("explain", further, "--tool", "files.read", "--live", "--format", "json")
    answers = json.loads(outcome.out)["answers"]

    assert [
        ("sinks.files", True, "ready"),
        ("sinks.docs", False, "degraded: cannot be reached"),
        ("sinks.docs.circuit_breaker", False, "the circuit is open"),
    ] == [(each["path"], each["allowed"], each["reason"]) for each in answers if each["kind"] == "status"]
    assert "sinks.docs (status): degraded: cannot be reached" in text.splitlines()
