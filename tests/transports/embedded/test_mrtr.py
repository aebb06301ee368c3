"""The state between two rounds: authenticated, expiring, bound."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import pytest

from sluiceway.pipeline.model.session import ANONYMOUS, Caller
from sluiceway.transports.embedded.mrtr import (
    MAX_STATE,
    InvalidState,
    Sealer,
    StateTooLarge,
    binding_of,
    responses_of,
)

SEALER = Sealer(b"k" * 32, ttl_s=60)
PARAMS = {"name": "book", "arguments": {"a": 1, "b": 2}, "_meta": {"x": 1}}
BINDING = binding_of("kit", ANONYMOUS, "tools/call", PARAMS)


def test_answers_come_back_until_they_expire() -> None:
    """What was sealed opens within its time, and not after."""
    state = SEALER.seal({"name": {"action": "accept"}}, BINDING, now=100)

    assert {"name": {"action": "accept"}} == SEALER.open(state, BINDING, now=160)
    with pytest.raises(InvalidState, match="expired"):
        SEALER.open(state, BINDING, now=160.1)


def test_a_retry_may_differ_in_what_varies_only() -> None:
    """Answers, state, progress token and key order may change; what is asked for may not."""
    retry = {"arguments": {"b": 2, "a": 1}, "inputResponses": {}, "requestState": "s", "name": "book", "_meta": {}}

    assert BINDING == binding_of("kit", ANONYMOUS, "tools/call", retry)


@pytest.mark.parametrize(
    "binding",
    [
        binding_of("other", ANONYMOUS, "tools/call", PARAMS),
        binding_of("kit", Caller("ana"), "tools/call", PARAMS),
        binding_of("kit", Caller("anonymous", tenant="acme"), "tools/call", PARAMS),
        binding_of("kit", ANONYMOUS, "prompts/get", PARAMS),
        binding_of("kit", ANONYMOUS, "tools/call", {**PARAMS, "name": "pay"}),
        binding_of("kit", ANONYMOUS, "tools/call", {**PARAMS, "arguments": {"a": 1, "b": 3}}),
    ],
)
def test_a_state_is_good_for_its_own_request_only(binding: bytes) -> None:
    """Another server, caller, tenant, method, target or argument cannot use it."""
    state = SEALER.seal({}, BINDING, now=0)

    with pytest.raises(InvalidState, match="of another"):
        SEALER.open(state, binding, now=0)


def test_every_change_of_any_character_is_noticed() -> None:
    """No bit of a state can be altered, and none added."""
    state = SEALER.seal({"a": 1}, BINDING, now=0)
    altered = [f"{state[:at]}{'A' if state[at] != 'A' else 'B'}{state[at + 1 :]}" for at in range(len(state))]
    raw = bytearray(urlsafe_b64decode(state))
    raw[-1] ^= 1

    for each in (*altered, f"{state}-TAMPERED", f"{state}=", f" {state}", state[:-4], urlsafe_b64encode(raw).decode()):
        with pytest.raises(InvalidState):
            SEALER.open(each, BINDING, now=0)


@pytest.mark.parametrize("state", ["", "é", "rubbish", None, 7, "A" * (MAX_STATE + 1)])
def test_what_is_no_state_is_refused(state: Any) -> None:
    """Rubbish of any type and size."""
    with pytest.raises(InvalidState):
        SEALER.open(state, BINDING, now=0)


def test_another_key_cannot_open_it() -> None:
    """Only processes that share the key continue each other's requests."""
    state = SEALER.seal({}, BINDING, now=0)

    assert {} == Sealer(b"k" * 32, ttl_s=1).open(state, BINDING, now=0)
    with pytest.raises(InvalidState):
        Sealer(b"x" * 32, ttl_s=60).open(state, BINDING, now=0)


def test_too_many_answers_are_refused() -> None:
    """A state has a limit, and the text names it."""
    with pytest.raises(StateTooLarge, match=str(MAX_STATE)):
        SEALER.seal({"a": "x" * MAX_STATE}, BINDING, now=0)


@pytest.mark.parametrize("responses", [None, 7, [], {"a": 12345}, {"a": {}, "b": "x"}])
def test_responses_that_are_no_objects_are_refused(responses: Any) -> None:
    """`inputResponses` is an object of objects, or absent."""
    with pytest.raises(InvalidState, match="inputResponses"):
        responses_of({"inputResponses": responses})

    assert {} == responses_of({})
