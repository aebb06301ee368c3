"""Asking the admin listener of a running gateway: where it is, with which token, and what its refusals mean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, final

from attrs import field, frozen

from ..admin.address import Address, parse_address
from ..model.document import Admin
from ..model.options import Secret
from ..protocol.messages import Json, encode_json
from .exits import Failure, usage

TOKEN_VARIABLE: Final = "SLUICEWAY_ADMIN_TOKEN"  # noqa: S105  # the name of a variable, not a token
"""Where the token is read from when no file names another place."""

TURN_ON: Final = f"""\
The admin listener is off, or it listens elsewhere. These lines turn it on:

    run:
      admin:
        bind: {Admin().bind}
        token: {{from_env: {TOKEN_VARIABLE}}}

Set {TOKEN_VARIABLE} to a secret of your own for the gateway, and for: sluiceway status"""
"""What stands between asking a gateway and getting an answer."""


@final
@frozen
class AdminListener:
    """An admin listener, and what it takes to be heard by it."""

    address: Address
    token: str | None = field(repr=False)

    def ask(self, method: str, path: str, content: Json = None) -> Json:
        """
        Send one request and return the JSON of its answer.

        Args:
            method: GET or POST.
            path: Quoted already.
            content: Sent as JSON, unless it is None.

        Raises:
            Failure: Nobody answers, or not with 200; the text says why.
        """
        import httpx2
        import trio

        address = self.address
        transport = httpx2.AsyncHTTPTransport(uds=None if address.path is None else str(address.path), trust_env=False)
        base = "http://localhost" if address.path is not None else f"http://{address}"
        headers = {} if self.token is None else {"authorization": f"Bearer {self.token}"}
        body = None if content is None else encode_json(content)

        async def send() -> httpx2.Response:
            async with httpx2.AsyncClient(transport=transport, trust_env=False) as client:
                return await client.request(method, f"{base}{path}", headers=headers, content=body)

        try:
            response = trio.run(send)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise Failure(f"nobody answers at {address}.\n\n{TURN_ON}") from error
        except httpx2.TransportError as error:
            raise Failure(f"{address}: {str(error) or type(error).__name__}") from error
        if response.status_code == 401:
            raise Failure(f"{address} wants a token; set {TOKEN_VARIABLE}, or name the configuration file")
        if response.status_code != 200:
            raise Failure(f"{address} answered HTTP {response.status_code}: {response.text[:400]}")
        return response.json()


def find_admin(file: Path | None, admin: str | None) -> AdminListener:
    """
    The listener that a configuration declares, or the default one without a file.

    Args:
        file: The configuration of the gateway.
        admin: Another address, as in `run.admin.bind`.

    Raises:
        Failure: The configuration declares none, or its token cannot be read.
    """
    declared = Admin() if file is None else _declared(file)
    if declared is None:
        raise Failure(TURN_ON)
    try:
        address = parse_address(admin or declared.bind)
    except ValueError as error:
        raise usage(str(error)) from error
    return AdminListener(address, _token(declared.token))


def _declared(file: Path) -> Admin | None:
    from .documents import load_or_fail

    return load_or_fail(file).run.admin


def _token(secret: Secret | None) -> str | None:
    if secret is None:
        return os.environ.get(TOKEN_VARIABLE)
    try:
        return secret.resolve()
    except LookupError as error:
        raise Failure(str(error)) from error
