"""
Multi round-trip requests (2026-07-28, basic/patterns/mrtr): how a question is asked when nobody may call back.

The handler is run from its beginning in every round. What it asks for the first time becomes an `input_required`
result; what was answered in earlier rounds comes back in `requestState`, which is authenticated (HMAC-SHA256), expires,
and is bound to the caller, the method, and everything the request says. It holds nothing but the client's own answers,
so it is not encrypted.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final, final

import msgspec
from attrs import frozen

from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.messages import EMPTY, Json, decode_json, encode_json

MAX_STATE: Final = 256 * 1024
"""Bytes of a `requestState`; more answers than that do not fit into one request."""

_VARYING: Final = frozenset({"_meta", "inputResponses", "requestState"})
_canonical: Final = msgspec.json.Encoder(order="sorted").encode
_DIGEST: Final = 32


class InputRequired(BaseException):
    """
    Ends a round: the handler asked what the client has not answered yet.

    Not an `Exception`, so that a handler's own `except Exception` cannot take a question for a failure.
    """

    def __init__(self, requests: Mapping[str, Json]) -> None:
        super().__init__("the handler asked the client something")
        self.requests = requests
        """`inputRequests`: method and params by key."""


class InvalidState(ValueError):
    """A `requestState` that is not ours, was changed, has expired, or belongs to another request or caller."""


class StateTooLarge(ValueError):
    """The answers so far do not fit into a `requestState`."""


def binding_of(server: str, caller: Caller, method: str, params: Mapping[str, Json]) -> bytes:
    """What a state is bound to: the server's id, the caller, the method and what the request says, as a digest."""
    said = {key: value for key, value in params.items() if key not in _VARYING}
    whole = [server, caller.how, caller.tenant, caller.subject, method, said]
    return hashlib.sha256(_canonical(whole)).digest()


@final
@frozen
class Sealer:
    """
    Makes and checks `requestState`. Pure: the clock is an argument.

    Args:
        key: Of the HMAC; replicas that share it can continue each other's requests.
        ttl_s: Seconds a state is good for.
    """

    key: bytes
    ttl_s: float

    def seal(self, answers: Mapping[str, Json], binding: bytes, now: float) -> str:
        """
        A state that holds the answers so far.

        Raises:
            StateTooLarge: They are larger than `MAX_STATE`.
        """
        payload = encode_json({"answers": answers, "expires": round(now + self.ttl_s, 3)})
        state = urlsafe_b64encode(self._mac(payload, binding) + payload).decode()
        if len(state) > MAX_STATE:
            raise StateTooLarge(f"the client's answers exceed {MAX_STATE} bytes; ask for less")
        return state

    def open(self, state: Json, binding: bytes, now: float) -> dict[str, Any]:
        """
        The answers in a state.

        Raises:
            InvalidState: It cannot be trusted. Why is nobody's business but the log's.
        """
        if not isinstance(state, str) or len(state) > MAX_STATE:
            raise InvalidState("not a state of this server")
        try:
            token = urlsafe_b64decode(state.encode("ascii"))
        except (ValueError, binascii.Error) as error:
            raise InvalidState("not a state of this server") from error
        if urlsafe_b64encode(token).decode() != state:
            raise InvalidState("not in its original form")
        mac, payload = token[:_DIGEST], token[_DIGEST:]
        if not hmac.compare_digest(mac, self._mac(payload, binding)):
            raise InvalidState("changed, or of another caller, request or server")
        content = decode_json(payload)
        if content["expires"] < now:
            raise InvalidState("expired")
        answers: dict[str, Any] = content["answers"]
        return answers

    def _mac(self, payload: bytes, binding: bytes) -> bytes:
        return hmac.digest(self.key, binding + payload, "sha256")


def responses_of(params: Mapping[str, Json]) -> Mapping[str, Json]:
    """
    The `inputResponses` of a retry; empty when there are none.

    Raises:
        InvalidState: They are there and not an object of objects.
    """
    if "inputResponses" not in params:
        return EMPTY
    responses = params["inputResponses"]
    if not isinstance(responses, dict) or not all(isinstance(each, dict) for each in responses.values()):
        raise InvalidState("inputResponses must be an object of results by key")
    return responses
