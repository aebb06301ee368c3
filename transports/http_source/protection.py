"""
What the gateway publishes about an endpoint that asks who is calling (RFC 9728), and where tokens must not be.

The document comes from the auth stages of the source's pipeline. It stands at the well-known place of the endpoint's
own path, at that of the resource's path if a proxy in front of us changes paths, and at the root, where clients look
last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

from sluiceway.pipeline.protocol.errors import MalformedCredentials
from sluiceway.pipeline.protocol.messages import Json, encode_json

from .answers import Answer, HttpError, json_answer

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"

_MAX_AGE_S: Final = 300
"""Seconds a client may keep the document."""


def is_place_of(path: str, endpoint: str, document: Mapping[str, Json]) -> bool:
    """Whether a path is where the document of an endpoint stands."""
    if not path.startswith(WELL_KNOWN):
        return False
    resource = document.get("resource")
    own = urlsplit(resource).path if isinstance(resource, str) else ""
    return path.removeprefix(WELL_KNOWN) in ("", endpoint.rstrip("/"), own.rstrip("/"))


def metadata_answer(method: str, document: Mapping[str, Json]) -> Answer:
    """
    The document as a response.

    Raises:
        HttpError: It is there to be read only.
    """
    if method not in ("GET", "HEAD"):
        raise HttpError(405, f"{method} is not used here", {"allow": "GET, HEAD"})
    return json_answer(200, encode_json(document), {"cache-control": f"public, max-age={_MAX_AGE_S}"})


def refuse_query_token(query: bytes) -> None:
    """
    Check that no token stands in the query (RFC 6750 section 2.3; MCP, authorization, token handling).

    Raises:
        MalformedCredentials: One does.
    """
    names = (part.partition(b"=")[0] for part in query.split(b"&"))
    if any(unquote_to_bytes(name).lower() == b"access_token" for name in names):
        raise MalformedCredentials(
            "a token in the query ends up in logs; send it in the header authorization",
            challenge='Bearer error="invalid_request", error_description="the token belongs into the header"',
        )
