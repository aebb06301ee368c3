"""`sluiceway status`: ask the admin listener of a running gateway."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ..admin.address import Address, parse_address
from ..model.document import Admin
from ..model.options import Secret, render_duration
from ..protocol.messages import Json
from .exits import Exit, Failure, usage
from .output import Format, emit, emit_json, table

TOKEN_VARIABLE: Final = "SLUICEWAY_ADMIN_TOKEN"  # noqa: S105  # the name of a variable, not a token
"""Where the token is read from when no file names another place."""

TURN_ON: Final = f"""\
The admin listener is off, or it listens elsewhere. These lines turn it on:

    run:
      admin:
        bind: {Admin().bind}
        token: {{from_env: {TOKEN_VARIABLE}}}

Set {TOKEN_VARIABLE} to a secret of your own for the gateway, and for: sluiceway status"""
"""What stands between asking for a status and getting one."""


def status(
    file: Path | None = None,
    /,
    *,
    admin: str | None = None,
    format: Format = "text",
) -> int:
    """
    Show the state of a running gateway: its components and pipelines.

    Args:
        file: Its configuration, which says where the admin listener is. Without it, the default address is asked,
            with the token of SLUICEWAY_ADMIN_TOKEN if that is set.
        admin: Address of the admin listener, host:port or unix:path, instead of the configured one.
        format: `text` for people, `json` for programs.
    """
    declared = Admin() if file is None else _declared(file)
    if declared is None:
        raise Failure(TURN_ON)
    try:
        address = parse_address(admin or declared.bind)
    except ValueError as error:
        raise usage(str(error)) from error
    answer = _ask(address, _token(declared.token))
    if format == "json":
        emit_json(answer)
    else:
        _show(answer)
    return Exit.OK if answer["ready"] else Exit.FOUND


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


def _ask(address: Address, token: str | None) -> Json:
    import httpx2
    import trio

    transport = httpx2.AsyncHTTPTransport(uds=None if address.path is None else str(address.path), trust_env=False)
    base = "http://localhost" if address.path is not None else f"http://{address}"
    headers = {} if token is None else {"authorization": f"Bearer {token}"}

    async def get() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=transport, trust_env=False) as client:
            return await client.get(f"{base}/-/status", headers=headers)

    try:
        response = trio.run(get)
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise Failure(f"nobody answers at {address}.\n\n{TURN_ON}") from error
    except httpx2.TransportError as error:
        raise Failure(f"{address}: {str(error) or type(error).__name__}") from error
    if response.status_code == 401:
        raise Failure(f"{address} wants a token; set {TOKEN_VARIABLE}, or name the configuration file")
    if response.status_code != 200:
        raise Failure(f"{address} answered HTTP {response.status_code}: {response.text[:200]}")
    return response.json()


def _show(answer: Json) -> None:
    state = "draining" if answer.get("draining") else "ready" if answer["ready"] else "not ready"
    uptime = render_duration(float(int(answer["uptime_s"])))
    emit(f"sluiceway {answer['version']}: {state}, up {uptime}, configuration {answer['generation']}")
    emit("")
    rows = [(each["id"], each["kind"], each["state"], each["reason"]) for each in answer["components"]]
    table(("component", "kind", "state", "reason"), rows, styles=("", "dim"))
    emit("")
    names = ("in_flight", "waiting", "listeners", "served", "refused")
    table(
        ("pipeline", *(name.replace("_", " ") for name in names)),
        [(each["id"], *(str(each[name]) for name in names)) for each in answer["pipelines"]],
    )
