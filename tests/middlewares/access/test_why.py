"""Why, or why not: questions in plain data."""

from __future__ import annotations

from typing import Any

import pytest

from sluiceway.middlewares.access.arguments import Condition
from sluiceway.middlewares.access.config import AccessConfig, Rule
from sluiceway.middlewares.access.policy import Policy
from sluiceway.middlewares.access.why import explain
from sluiceway.pipeline.protocol.mcp import METHODS

POLICY = Policy(
    AccessConfig(
        rules=(
            Rule(id="tools", tenant="acme", allow="tools:t", arguments={"n": Condition(le=1)}),
            Rule(id="prompts", role="writer", allow="prompts:p"),
            Rule(id="docs", scopes="docs:read", allow="resources:docs://*", actions=("read",)),
            Rule(id="vendor", subject="ana", allow="methods:acme/*", valid_until=1000),
        )
    )
)


def ask(**question: Any) -> tuple[bool, str, str]:
    answer = explain(POLICY, question, 0.5)
    return answer["allowed"], answer["reason"], answer["rule"]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ({"name": "t"}, (False, "no rule allows it", "")),
        ({"tenant": "acme", "name": "t"}, (True, "allowed", "tools")),
        ({"tenant": "acme", "name": "t", "arguments": {"n": 2}}, (False, "arguments", "tools")),
        ({"tenant": "acme", "name": "t", "arguments": None}, (False, "arguments", "tools")),
        ({"method": "prompts/get", "name": "p", "roles": ["writer"]}, (True, "allowed", "prompts")),
        ({"method": "completion/complete", "name": "p", "roles": ["writer"]}, (True, "allowed", "prompts")),
        ({"method": "resources/read", "name": "docs://a"}, (False, "scopes missing", "docs")),
        ({"method": "resources/read", "name": "docs://a", "scopes": ("docs:read",)}, (True, "allowed", "docs")),
        ({"method": "resources/subscribe", "name": "docs://a", "scopes": ["docs:read"]},
         (False, "another action", "docs")),
        ({"method": "acme/x", "caller": "ana"}, (True, "allowed", "vendor")),
        ({"method": "acme/x"}, (False, "no rule allows it", "")),
        ({"method": "ping"}, (True, "free", "")),
        ({"method": "tools/list"}, (True, "filtered", "")),
        ({"method": "subscriptions/listen"}, (True, "filtered", "")),
        ({"method": "tasks/get", "name": "t1"}, (True, "for whoever made the task", "")),
        ({"method": "tasks/list"}, (True, "for whoever made the task", "")),
    ],
)  # fmt: skip
def test_a_question_is_answered(question: Any, answer: tuple[bool, str, str]) -> None:
    """As the stage decides it; without arguments, whether there are some."""
    assert answer == ask(**question)


def test_the_scopes_that_would_help_are_named() -> None:
    """For an operator who wonders what to grant."""
    answer = explain(POLICY, {"method": "resources/read", "name": "docs://a"}, 0.5)

    assert ["docs:read"] == answer["scopes"]
    assert {"rule": "docs", "says": "scopes missing"} in answer["rules"]
    assert {"rule": "vendor", "says": "another caller"} in answer["rules"]


def test_every_method_has_an_answer() -> None:
    """Nothing of MCP is unknown to it."""
    for method in METHODS:
        assert explain(POLICY, {"method": method, "name": "x"}, 0.5)["rules"] or ask(method=method, name="x")[0]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({}, "name: say which tool tools/call is about"),
        ({"method": "resources/read"}, "name: say which resource resources/read is about"),
        ({"method": "completion/complete"}, "name: say which prompt completion/complete is about"),
        ({"tool": "x"}, "unknown key 'tool'; a question has: caller"),
        ({"name": 1}, "name: expected text"),
        ({"name": "t", "roles": "reader"}, "roles: expected a list of texts"),
        ({"name": "t", "scopes": [1]}, "scopes: expected a list of texts"),
    ],
)
def test_a_question_that_cannot_be_understood_is_an_error(question: Any, said: str) -> None:
    """The text says what is expected."""
    with pytest.raises(ValueError, match=said):
        explain(POLICY, question, 0.5)
