"""
What a gateway gives out under a seal, and gets back: cursors of merged lists, states of questions, ids of tasks.

Seals are made with keys that are on no tape. So in a replay the gateway gives out other tokens than it did, and would
not know those that clients of the tape bring back: they bring back its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

from ..protocol.errors import UpstreamProtocolError
from ..protocol.messages import Json, Reply, Result
from .entries import MessageData, ReplyData

GIVEN: Final = {"nextCursor": "cursor", "requestState": "requestState", "taskId": "taskId"}
"""Members of results that hold tokens, and what params call them that bring them back."""

PLACES: Final = (
    *(f"reply.result.{member}" for member in GIVEN),
    "reply.result.task.taskId",
    "relayed.*.params.taskId",
    "*related-task.taskId",
)
"""
Where tokens stand in replies, and ids of tasks in what is said of them, as globs: their seal can be another one
in every run. That they are good shows when they are brought back.
"""

MAX_TOKENS: Final = 10_000
"""Tokens that are known, and exchanges of which one side is known; the oldest go."""

Given = Mapping[str, str]
"""The tokens of a result, by member."""


@final
class Tokens:
    """Which token stands for which."""

    def __init__(self) -> None:
        self._then: dict[int, Given] = {}
        self._now: dict[int, Given] = {}
        self._current: dict[str, str] = {}

    def gave(self, exchange: int, reply: ReplyData | None) -> None:
        """What an exchange of the tape was answered."""
        self._pair(exchange, _given(None if reply is None else reply.result), self._then, self._now)

    def gives(self, exchange: int, reply: Reply | None) -> None:
        """What it is answered now."""
        try:
            result = reply.value if isinstance(reply, Result) else None
        except UpstreamProtocolError:  # nobody can read it
            result = None
        self._pair(exchange, _given(result), self._now, self._then)

    def brought(self, message: MessageData) -> MessageData:
        """A client's message as it would be today."""
        params: dict[str, Any] = message.params
        for name in GIVEN.values():
            token = params.get(name)
            if isinstance(token, str) and token in self._current:
                params = {**params, name: self._current[token]}
        return message if params is message.params else MessageData(message.method, params, message.id)

    def _pair(self, exchange: int, given: Given, here: dict[int, Given], there: dict[int, Given]) -> None:
        other = there.pop(exchange, None)
        if other is None:
            if given:
                _keep(here, exchange, given)
            return
        then, now = (given, other) if here is self._then else (other, given)
        for member, token in then.items():
            if member in now and now[member] != token:
                _keep(self._current, token, now[member])


def _given(result: Mapping[str, Json] | None) -> Given:
    if result is None:
        return {}
    task = result.get("task")
    found = {member: result.get(member) for member in GIVEN}
    if isinstance(task, dict):  # made by a call (2025-11-25)
        found["taskId"] = task.get("taskId")
    return {member: token for member, token in found.items() if isinstance(token, str)}


def _keep(table: dict[Any, Any], key: Any, value: Any) -> None:
    table[key] = value
    if len(table) > MAX_TOKENS:
        del table[next(iter(table))]
