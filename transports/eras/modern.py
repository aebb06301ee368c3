"""
The modern era towards HTTP clients: which messages belong to it, and what their headers must say.

2026-07-28, basic/transports/streamable-http and basic/versioning. Every request carries its version and the client's
capabilities in `params._meta`, and mirrors version, method and target in headers, so that intermediaries can act on
headers alone. One that reads the body, as we do, must check that both say the same (SEP-2243).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from typing import Final

from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.errors import HeaderMismatch, InvalidParams, UnknownMethod, UnsupportedVersion
from sluiceway.pipeline.protocol.mcp import METHODS, MODERN_VERSIONS, Era, MetaKey
from sluiceway.pipeline.protocol.messages import EMPTY, Message, Notification, Request, Response

VERSION_HEADER: Final = "mcp-protocol-version"
METHOD_HEADER: Final = "mcp-method"
NAME_HEADER: Final = "mcp-name"
PARAM_PREFIX: Final = "mcp-param-"

_VERSION: Final = MetaKey.VERSION.value
_SENTINEL: Final = "=?base64?"
_SENTINEL_END: Final = "?="


def era_of(message: Message, headers: Mapping[str, str]) -> Era:
    """
    The era of a POSTed message: by its body, then by its version header.

    A body that claims a version, whichever, is modern: what is wrong with the claim is told by `check_request`. So a
    removed method (`initialize`, `ping`) with modern metadata never gets a legacy answer.
    """
    if not isinstance(message, Response) and _VERSION in message.meta:
        return Era.MODERN
    return Era.MODERN if headers.get(VERSION_HEADER) in MODERN_VERSIONS else Era.LEGACY


def check_request(request: Request, headers: Mapping[str, str], repeated: Collection[str] = ()) -> None:
    """
    Check metadata, then headers, then version, then whether the method still exists: the order both SDKs keep.

    Args:
        request: The message.
        headers: Request headers, names in lower case.
        repeated: Names that stood more than once: their readers could disagree.

    Raises:
        InvalidParams: A required `_meta` key is missing or has the wrong type (-32602).
        HeaderMismatch: A header is missing, malformed, repeated or differs from the body (-32020).
        UnsupportedVersion: The claimed version is not one we speak (-32022).
        UnknownMethod: The method was removed in this revision (-32601, HTTP 404).
    """
    meta, row = request.meta, request.row
    for key, kind, noun in ((MetaKey.VERSION, str, "a string"), (MetaKey.CLIENT_CAPABILITIES, dict, "an object")):
        if not isinstance(meta.get(key), kind):
            raise InvalidParams(f"params._meta needs {key}, {noun}, in every request of {MODERN_VERSIONS[-1]}")
    for name in repeated:
        if name in (VERSION_HEADER, METHOD_HEADER, NAME_HEADER) or name.startswith(PARAM_PREFIX):
            raise HeaderMismatch(f"header {name} stands more than once")
    version = meta[MetaKey.VERSION]
    _check_mirror(headers, VERSION_HEADER, version)
    _check_mirror(headers, METHOD_HEADER, request.method)
    if row.modern and request.target is not None:
        _check_mirror(headers, NAME_HEADER, request.target, coded=True)
    for name, value in headers.items():
        if name.startswith(PARAM_PREFIX) and decode_header_value(value) is None:
            raise HeaderMismatch(f"header {name} is not valid base64 of UTF-8 between {_SENTINEL} and {_SENTINEL_END}")
    check_version(version)
    if not row.modern:
        raise UnknownMethod(f"{request.method} does not exist in {version}")


def check_notification(notification: Notification, headers: Mapping[str, str]) -> bool:
    """
    Check the version a notification claims, if it claims one.

    Returns:
        Whether it means anything here: the core protocol has none left over HTTP (closing the response stream is the
        cancel), but those of extensions are passed on.

    Raises:
        HeaderMismatch: The version header says something else.
        UnsupportedVersion: The claimed version is not one we speak.
    """
    claimed = notification.meta.get(MetaKey.VERSION)
    if claimed is not None:
        _check_mirror(headers, VERSION_HEADER, claimed)
        check_version(claimed)
    return notification.method not in METHODS


def client_of(
    request: Request | Notification, headers: Mapping[str, str], address: str | None, certificate: str | None = None
) -> Client:
    """The sender of a message that `check_request` or `check_notification` let pass."""
    meta = request.meta
    capabilities, info = meta.get(MetaKey.CLIENT_CAPABILITIES), meta.get(MetaKey.CLIENT_INFO)
    return Client(
        era=Era.MODERN,
        version=meta.get(MetaKey.VERSION, headers.get(VERSION_HEADER)),
        capabilities=capabilities if isinstance(capabilities, dict) else EMPTY,
        info=info if isinstance(info, dict) else EMPTY,
        transport="http",
        address=address,
        headers=headers,
        certificate=certificate,
    )


def visitor(headers: Mapping[str, str], address: str | None, certificate: str | None) -> Client:
    """The sender of an HTTP request whose body nobody has read yet."""
    return Client(
        era=Era.MODERN, version=None, transport="http", address=address, headers=headers, certificate=certificate
    )


def check_version(version: str) -> None:
    """
    Check a claimed version.

    Raises:
        UnsupportedVersion: With `supported` and `requested`, from which a client can choose.
    """
    if version not in MODERN_VERSIONS:
        raise UnsupportedVersion(
            f"protocol version {version[:40]!r} is not supported per request",
            data={"supported": list(MODERN_VERSIONS), "requested": version},
        )


def decode_header_value(value: str) -> str | None:
    """The text behind a header value: itself, or what its base64 sentinel carries; None if that is malformed."""
    if not (value.startswith(_SENTINEL) and value.endswith(_SENTINEL_END) and len(value) >= 11):
        return value
    payload = value[len(_SENTINEL) : -len(_SENTINEL_END)]
    try:
        data = base64.b64decode(payload, validate=True)
        text = data.decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return text if base64.b64encode(data).decode("ascii") == payload else None


def _check_mirror(headers: Mapping[str, str], name: str, expected: object, *, coded: bool = False) -> None:
    given = headers.get(name)
    if given is None:
        raise HeaderMismatch(f"header {name} is missing; it must repeat what the body says")
    if (decode_header_value(given) if coded else given) != expected:
        raise HeaderMismatch(f"header {name} differs from the body")
