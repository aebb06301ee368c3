"""Why, or why not: a question in plain data, answered by the same policy that the stage asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sluiceway.pipeline.model.session import ANONYMOUS, Caller
from sluiceway.pipeline.protocol.messages import Json

from .arguments import ANY
from .asking import COMPLETE, FREE, LIST_OF_TASKS, LISTEN, LISTS, OF_TASKS, ROWS, Asked, asked_by
from .policy import Policy

_KEYS: Final = ("caller", "tenant", "roles", "scopes", "method", "name", "arguments")
_OPEN: Final = {**dict.fromkeys(FREE, "free"), **dict.fromkeys(LISTS, "filtered"), LISTEN: "filtered"}


def explain(policy: Policy, question: Mapping[str, Json], now: float) -> dict[str, Json]:
    """
    Whether a caller may do something, and why.

    Args:
        policy: The rules.
        question: `method`, and `name` where it has a target; `caller`, `tenant`, `roles` and `scopes` of who asks,
            nobody by default; `arguments`, without which tests of arguments are left out.
        now: Seconds since 1970.

    Returns:
        `allowed`, `reason`, the `rule` that decides (empty if none does), `scopes` that would help, and what each of
        the `rules` says.

    Raises:
        ValueError: The question cannot be understood; the text says what is expected.
    """
    unknown = sorted(question.keys() - set(_KEYS))
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; a question has: {', '.join(_KEYS)}")
    method = _text(question, "method") or "tools/call"
    if method in _OPEN:
        return _answer(allowed=True, reason=_OPEN[method])
    if method in OF_TASKS or method == LIST_OF_TASKS:
        return _answer(allowed=True, reason="for whoever made the task")
    caller, asked = _caller(question), _asked(method, question)
    asking = (caller, asked.sort, asked.name, asked.action, now, asked.arguments)
    verdict = policy.why(*asking)
    answer = _answer(allowed=verdict.allowed, reason=str(verdict.reason), rule=verdict.rule, scopes=verdict.scopes)
    answer["rules"] = [{"rule": rule, "says": str(says)} for rule, says in policy.consider(*asking)]
    limits = [f"{permit.id}: {permit.rule.rate}" for permit in verdict.permits if permit.rule.rate is not None]
    return {**answer, "limits": limits} if limits else answer


def _answer(*, allowed: bool, reason: str, rule: str = "", scopes: tuple[str, ...] = ()) -> dict[str, Json]:
    return {"allowed": allowed, "reason": reason, "rule": rule, "scopes": list(scopes), "rules": []}


def _asked(method: str, question: Mapping[str, Json]) -> Asked:
    name = _text(question, "name")
    if name is None and (method in ROWS or method == COMPLETE):
        raise ValueError(f"name: say which {ROWS[method].noun if method in ROWS else 'prompt'} {method} is about")
    if method == COMPLETE:
        method = "prompts/get"
    target = ROWS[method].target if method in ROWS else "name"
    asked = asked_by(method, {target: name, "arguments": question.get("arguments", ANY)})
    assert asked is not None
    return asked


def _caller(question: Mapping[str, Json]) -> Caller:
    return Caller(
        _text(question, "caller") or ANONYMOUS.subject,
        _text(question, "tenant"),
        scopes=_texts(question, "scopes"),
        roles=_texts(question, "roles"),
    )


def _text(question: Mapping[str, Json], key: str) -> str | None:
    value = question.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{key}: expected text")
    return value


def _texts(question: Mapping[str, Json], key: str) -> frozenset[str]:
    value = question.get(key, [])
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{key}: expected a list of texts")
    return frozenset(value)
