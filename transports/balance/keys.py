"""What belongs together: the keys of `hash.by`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.keys import canonical, principal_of
from sluiceway.pipeline.protocol.messages import Json

KeyOf = Callable[[Exchange], bytes | None]
"""The key of an exchange, or None if it has none."""


def _caller(exchange: Exchange) -> bytes:
    return "\0".join(principal_of(exchange)).encode("utf-8", "surrogatepass")


def _text(value: str | None) -> bytes | None:
    return None if value is None else value.encode("utf-8", "surrogatepass")


def _session(exchange: Exchange) -> bytes | None:
    session = exchange.client.session
    return None if session is None else session.id.encode()


_PLAIN: Final[Mapping[str, KeyOf]] = {
    "caller": _caller,
    "tenant": lambda exchange: _text(exchange.caller.tenant),
    "session": _session,
    "target": lambda exchange: _text(exchange.target),
}


def check_subject(by: str) -> None:
    """
    Look at a value of `hash.by`.

    Raises:
        ValueError: It means nothing.
    """
    kind, colon, name = by.partition(":")
    if by not in _PLAIN and not (colon and name and kind in ("header", "argument")):
        raise ValueError(f"by: {by!r} is none of {', '.join(_PLAIN)}, header:<name>, argument:<path>")


def key_of(by: str) -> KeyOf:
    """The function that a value of `hash.by` means."""
    if by in _PLAIN:
        return _PLAIN[by]
    kind, _, name = by.partition(":")
    if kind == "header":
        header = name.lower()
        return lambda exchange: _text(exchange.client.headers.get(header))
    path = name.split(".")
    return lambda exchange: _argument(exchange.request.params.get("arguments"), path)


def _argument(value: Json, path: list[str]) -> bytes | None:
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return canonical(value)
