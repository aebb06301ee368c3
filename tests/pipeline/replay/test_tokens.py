"""Tokens under a seal: clients of a tape bring back what the gateway of today has given out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from sluiceway.pipeline.protocol.messages import ErrorReply, Result
from sluiceway.pipeline.replay import tokens as module
from sluiceway.pipeline.replay.entries import MessageData, ReplyData
from sluiceway.pipeline.replay.tokens import Tokens


def then(tokens: Tokens) -> None:
    """What the tape has."""
    tokens.gave(1, ReplyData(result={"tools": [], "nextCursor": "old"}))


def now(tokens: Tokens) -> None:
    """What happens today."""
    tokens.gives(1, Result({"tools": [], "nextCursor": "new"}))


@pytest.mark.parametrize("order", [(then, now), (now, then)])
def test_a_cursor_that_was_given_is_brought_back_as_it_is_given_now(
    order: tuple[Callable[[Tokens], None], ...],
) -> None:
    """Whichever side is known first."""
    tokens = Tokens()
    for tell in order:
        tell(tokens)

    assert tokens.brought(MessageData("tools/list", {"cursor": "old"}, 2)) == MessageData(
        "tools/list", {"cursor": "new"}, 2
    )


def test_a_state_of_a_question_is_a_token_too() -> None:
    """It comes back under the name under which it was given."""
    tokens = Tokens()
    tokens.gave(1, ReplyData(result={"requestState": "old"}))
    tokens.gives(1, Result({"requestState": "new"}))

    assert tokens.brought(MessageData("tools/call", {"requestState": "old"})).params == {"requestState": "new"}


@pytest.mark.parametrize("result", [{"task": {"taskId": "old"}}, {"resultType": "task", "taskId": "old"}])
def test_an_id_of_a_task_is_a_token_too(result: dict[str, Any]) -> None:
    """As a call of 2025-11-25 makes it, and as one of the extension does."""
    tokens = Tokens()
    tokens.gave(1, ReplyData(result=result))
    tokens.gives(1, Result(msgspec.json.decode(msgspec.json.encode(result).replace(b"old", b"new"))))

    assert tokens.brought(MessageData("tasks/get", {"taskId": "old"})).params == {"taskId": "new"}


def test_what_nobody_gave_stays_as_it_is() -> None:
    """A message without a known token is the very same."""
    tokens = Tokens()
    then(tokens)
    tokens.gives(1, ErrorReply(-32000, "no"))
    message = MessageData("tools/list", {"cursor": "old"})

    assert tokens.brought(message) is message


def test_what_cannot_be_read_gives_nothing() -> None:
    """A result that does not pass the gate has no tokens that anybody knows."""
    tokens = Tokens()
    then(tokens)
    tokens.gives(1, Result(raw=b'{"nextCursor": 1, "nextCursor": 2}'))
    message = MessageData("tools/list", {"cursor": "old"})

    assert tokens.brought(message) is message


def test_the_oldest_token_goes_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is bounded."""
    monkeypatch.setattr(module, "MAX_TOKENS", 2)
    tokens = Tokens()
    for number in range(3):
        tokens.gave(number, ReplyData(result={"nextCursor": f"old{number}"}))
        tokens.gives(number, Result({"nextCursor": f"new{number}"}))

    brought = [tokens.brought(MessageData("tools/list", {"cursor": f"old{number}"})) for number in range(3)]

    assert [each.params["cursor"] for each in brought] == ["old0", "new1", "new2"]
