"""`sluiceway keys`: make, list and revoke the API keys of a file that the stage `auth_api_key` reads."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

from ..model.options import Secret, parse_duration
from .exits import Failure, usage
from .output import Format, emit, emit_json, say, table

if TYPE_CHECKING:
    from sluiceway.middlewares.auth.api_keys import ApiKey

PEPPER_VARIABLE: Final = "SLUICEWAY_KEY_PEPPER"

keys = App(name="keys", help="Make, list and revoke the API keys of a file.")


@keys.command(name="new")
def new(
    file: Path,
    /,
    *,
    subject: str,
    id: str | None = None,
    tenant: str | None = None,
    also_tenant: Annotated[list[str] | None, Parameter(negative="")] = None,
    role: Annotated[list[str] | None, Parameter(negative="")] = None,
    scope: Annotated[list[str] | None, Parameter(negative="")] = None,
    expires: str | None = None,
    note: str = "",
    pepper_file: Path | None = None,
    from_stdin: bool = False,
) -> None:
    """
    Make a key, add its digest to a file, and show the key. It is shown this once and kept nowhere.

    The digest is made under a pepper, the same that the stage's option `pepper` names: the environment variable
    SLUICEWAY_KEY_PEPPER, or a file. To rotate a key, make another one for the same subject, and revoke the first when
    nobody uses it any more.

    Args:
        file: The file of keys; made if it is not there.
        subject: Who the key is for.
        id: What the key is called in logs and here; made up if not given.
        tenant: The tenant it belongs to.
        also_tenant: A further tenant it may choose; may be given several times.
        role: A role; may be given several times.
        scope: A scope; may be given several times.
        expires: When it ends: a date such as 2027-01-31T00:00:00Z, or a time from now such as 90d.
        note: For people.
        pepper_file: File of the pepper, in place of the environment variable.
        from_stdin: Read the key from stdin instead of making one: a key that others know already.
    """
    from sluiceway.middlewares.auth.api_keys import ApiKey, digest_of, make_key

    pepper = _pepper(pepper_file)
    key = _given() if from_stdin else make_key()
    record = ApiKey(
        id=id if id is not None else f"k-{secrets.token_hex(4)}",
        digest=digest_of(pepper, key),
        subject=subject,
        tenant=tenant,
        tenants=tuple(also_tenant or ()),
        roles=tuple(role or ()),
        scopes=tuple(scope or ()),
        expires=_end(expires),
        note=note,
    )
    _write(file, [*_read(file, must_exist=False), record])
    if not from_stdin:
        emit(key)
    say(f"key {record.id} for {subject} is in {file}; a running gateway takes it over by itself")


@keys.command(name="list")
def list_keys(file: Path, /, *, format: Format = "text") -> None:
    """
    Show the keys of a file, without what opens anything.

    Args:
        file: The file of keys.
        format: `text` or `json`.
    """
    found = _read(file)
    if format == "json":
        import msgspec

        emit_json([{k: v for k, v in msgspec.to_builtins(key).items() if k != "digest"} for key in found])
        return
    columns = ("id", "subject", "tenant", "roles", "scopes", "expires", "note")
    table(columns, [_row(key) for key in found])


@keys.command(name="revoke")
def revoke(file: Path, id: str, /) -> None:
    """
    Take a key out of a file. A running gateway refuses it within seconds (its option `reload`).

    Args:
        file: The file of keys.
        id: The key's id, as `list` shows it.
    """
    found = _read(file)
    left = [key for key in found if key.id != id]
    if len(left) == len(found):
        raise Failure(f"{file} has no key {id!r}; see: sluiceway keys list {file}")
    _write(file, left)
    say(f"key {id} is revoked")


def _row(key: ApiKey) -> Sequence[str]:
    expires = "never" if key.expires is None else key.expires.isoformat()
    if key.expires is not None and key.expires <= datetime.now(UTC):
        expires += " (expired)"
    return (key.id, key.subject, key.tenant or "-", " ".join(key.roles) or "-", " ".join(key.scopes) or "-", expires,
            key.note)  # fmt: skip


def _pepper(file: Path | None) -> bytes:
    from sluiceway.middlewares.auth.api_keys import check_pepper

    secret = Secret(from_file=file) if file is not None else Secret(from_env=PEPPER_VARIABLE)
    try:
        return check_pepper(secret.resolve())
    except LookupError as error:
        raise Failure(f"there is no pepper: {error}; one is made by: openssl rand -hex 32") from error
    except ValueError as error:
        raise Failure(str(error)) from error


def _given() -> str:
    from sluiceway.middlewares.auth.api_keys import MAX_KEY, SHAPE

    key = sys.stdin.readline().strip()
    if not SHAPE.fullmatch(key) or len(key) < 20:
        raise Failure(f"a key on stdin is one line of 20 to {MAX_KEY} visible ASCII characters, without commas")
    return key


def _end(text: str | None) -> datetime | None:
    """When a key ends, from a date or a time from now."""
    if text is None:
        return None
    try:
        return (datetime.now(UTC) + timedelta(seconds=parse_duration(text))).replace(microsecond=0)
    except ValueError:
        pass  # a date, then
    try:
        end = datetime.fromisoformat(text)
    except ValueError as error:
        raise usage(f"--expires is a date such as 2027-01-31T00:00:00Z or a time such as 90d, not {text!r}") from error
    if end.tzinfo is None:
        raise usage(f"--expires {text} needs a time zone, such as {text}Z")
    return end


def _read(file: Path, *, must_exist: bool = True) -> Sequence[ApiKey]:
    from sluiceway.middlewares.auth.api_keys import parse_keys

    if not must_exist and not file.exists():
        return ()
    try:
        return parse_keys(file.read_bytes())
    except ValueError as error:
        raise Failure(f"{file}: {error}") from error


def _write(file: Path, found: Sequence[ApiKey]) -> None:
    """Replace the file in one step: who reads it meanwhile sees the old one or the new one, whole."""
    from sluiceway.middlewares.auth.api_keys import check_keys, render_keys

    try:
        check_keys(found)
    except ValueError as error:
        raise Failure(str(error)) from error
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # readable by its owner only
    try:
        with os.fdopen(handle, "wb") as temporary:
            temporary.write(render_keys(found))
        if file.exists():
            os.chmod(name, file.stat().st_mode & 0o777)
        os.replace(name, file)
    except OSError:
        os.unlink(name)
        raise
