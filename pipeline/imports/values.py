"""
Values of foreign configurations: variables in them, and secrets.

Clients write variables as `${NAME}`, `${NAME:-default}` (Claude Code), `${env:NAME}`, `${input:id}`, `${userHome}` and
`${workspaceFolder}` (VS Code, Cursor). Ours are the first two, so the others become variables of the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

from ..protocol.messages import Json
from .model import FromEnv, Notes, Value, variable_name

_PLACEHOLDER: Final = re.compile(r"\$\{([^{}]*)\}|\$\$|\$(?=\{)")
_OURS: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?::-.*)?", re.DOTALL)
_WHOLE: Final = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_WORDS: Final = frozenset(
    {"token", "secret", "secrets", "password", "passwd", "passphrase", "pass", "pwd", "apikey", "key", "credential",
     "credentials", "auth", "authorization", "cookie", "bearer", "pat"}
)  # fmt: skip
_SECRET_ENDS: Final = ("password", "passwd", "secret", "token", "apikey")
"""Ends of words that are written as one, such as PGPASSWORD."""
_SECRET_VALUE: Final = re.compile(
    r"(?:Bearer |Basic |sk-|sk_|pk_live|rk_live|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|AKIA|AIza|ya29\.|"
    r"eyJ[\w-]{10}|ntn_|secret_|lin_api_|hf_|npm_|-----BEGIN )"
)
_WORDS: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+")
_SCHEMES: Final = ("Bearer ", "Basic ")
_PAIR: Final = re.compile(r"(-*[A-Za-z0-9_.-]+)(=|: ?)(.+)", re.DOTALL)
"""`--token=x`, `TOKEN=x` (docker run -e) or `Authorization: x` (mcp-remote --header) in a command line."""
_WRITTEN: Final = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "accept", "accept-encoding",
     "last-event-id", "user-agent"}
)  # fmt: skip
"""Headers that the `http` sink writes itself."""
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
_DATABASE: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s:]*:[^/@\s]+@")
"""An address with a password in it."""


def as_text(value: Json) -> str | None:
    """What stands for a text in JSON: texts, numbers and booleans; None for the rest."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None


def sound(text: str, where: str, notes: Notes) -> str:
    """A text that UTF-8 can carry: half a surrogate pair becomes U+FFFD, and is noted."""
    whole = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if whole != text:
        notes.lose(where, "has text that is not Unicode (half a surrogate pair); it was replaced")
    return whole


def portable(text: str, where: str, notes: Notes) -> str:
    """A foreign text in our notation; the variables that it needs are noted."""

    def replacement(match: re.Match[str]) -> str:
        inner = match[1]
        if inner is None:
            return "$$$$" if match[0] == "$$" else "$$"
        name = inner.removeprefix("env:")
        if _OURS.fullmatch(name) and ":?" not in name and inner not in ("userHome", "workspaceFolder"):
            if ":-" not in name:
                notes.variables.setdefault(name, f"named by {where}")
            return f"${{{name}}}"
        chosen = "HOME" if inner == "userHome" else variable_name(name)
        notes.variables.setdefault(chosen, f"what ${{{inner[:40]}}} stands for in the client")
        return f"${{{chosen}}}"

    return _PLACEHOLDER.sub(replacement, sound(text, where, notes))


def is_secret_name(name: str) -> bool:
    """Whether what has this name is usually secret."""
    words = [word.lower() for word in _WORDS.findall(name)]
    return any(word in _SECRET_WORDS or word.endswith(_SECRET_ENDS) for word in words)


def is_secret(name: str, value: str) -> bool:
    """Whether a value is one that must not stand in a file."""
    if not value.strip() or value.lower() in ("true", "false") or value.isdigit():
        return False
    return is_secret_name(name) or _SECRET_VALUE.match(value) is not None or _DATABASE.match(value) is not None


def settings(values: Mapping[str, Json], owner: str, where: str, notes: Notes, *, prefix: str = "") -> dict[str, Value]:
    """
    Environment or headers: secrets become variables, the rest is text.

    Args:
        values: Names and values as they were.
        owner: The server's id.
        where: What they are, for losses.
        notes: Losses and variables are noted here.
        prefix: Put before a name to get its variable; empty where names are variables themselves.
    """
    found: dict[str, Value] = {}
    for raw, value in values.items():
        name, text = sound(raw, where, notes), as_text(value)
        if text is None:
            notes.lose(where, f"{name[:40]} has no text as its value; it is left out")
        elif whole := _WHOLE.fullmatch(text):
            notes.variables.setdefault(whole[1], f"named by {where}")
            found[name] = FromEnv(whole[1])
        elif is_secret(name, text):
            scheme = next((f", with {word!r} before it" for word in _SCHEMES if text.startswith(word)), "")
            purpose = f"{name} of {owner}{scheme}; the value is not copied"
            found[name] = FromEnv(notes.variable(prefix + name, owner, text, purpose))
        else:
            found[name] = portable(text, where, notes)
    return found


def headers_of(values: Mapping[str, Json], owner: str, notes: Notes) -> dict[str, Value]:
    """The headers for a server, without those that the sink writes itself or that HTTP cannot carry."""
    where = f"{owner}.headers"
    usable: dict[str, Json] = {}
    for name, value in values.items():
        text = as_text(value)
        if name.lower() in _WRITTEN or name.lower().startswith("mcp-"):
            notes.lose(where, f"{name.lower()} is written by the sink itself; it is left out")
        elif not _HEADER.fullmatch(name) or (text is not None and not _HEADER_VALUE.fullmatch(text)):
            notes.lose(where, "a header has a name or a value that HTTP cannot carry; it is left out")
        elif name.lower() in (each.lower() for each in usable):
            notes.lose(where, f"{name.lower()} is there twice; the first is kept")
        else:
            usable[name] = value
    return settings(usable, owner, where, notes, prefix=f"{owner}_")


def words_of_command(words: list[str], owner: str, notes: Notes) -> tuple[str, ...]:
    """A command line in our notation, with variables where it had secrets."""
    found: list[str] = []
    for index, word in enumerate(words):
        pair = _PAIR.fullmatch(word)
        before = words[index - 1] if index else ""
        named = before.lstrip("-") if before.startswith("-") and "=" not in before else ""
        if pair is not None and _hides(pair[1].lstrip("-"), pair[3]):
            found.append(f"{pair[1]}{pair[2]}${{{_argument(pair[1].lstrip('-'), pair[3], owner, notes)}}}")
        elif not word.startswith("-") and _hides(named, word):
            found.append(f"${{{_argument(named or 'secret', word, owner, notes)}}}")
        else:
            found.append(portable(word, owner, notes))
    return tuple(found)


def _hides(name: str, value: str) -> bool:
    """Whether an argument is a secret; one with variables in it holds none itself."""
    return "${" not in value and is_secret(name, value)


def _argument(name: str, value: str, owner: str, notes: Notes) -> str:
    return notes.variable(f"{owner}_{name}", owner, value, f"{name} in the command of {owner}; the value is not copied")


def address(url: str, owner: str, notes: Notes) -> str | None:
    """The address of a server in our notation; None (and a loss) if it is none that can be spoken to."""
    try:
        parts = urlsplit(sound(url.strip(), owner, notes))
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https", "ws", "wss") or not host:
        notes.lose(owner, "its address is not http://, https://, ws:// or wss://; the server is left out")
        return None
    netloc = parts.netloc.rpartition("@")[2]
    if netloc != parts.netloc:
        notes.lose(owner, "the user and password of its address are left out; put them into headers: authorization")
    if parts.fragment:
        notes.lose(owner, "the fragment of its address is left out; it is never sent")
    query = "&".join(_parameter(each, owner, notes) for each in parts.query.split("&")) if parts.query else ""
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~${}")
    return portable(urlunsplit((parts.scheme, netloc, path, "", "")), owner, notes) + (f"?{query}" if query else "")


def names_event_stream(url: str) -> bool:
    """Whether an address looks like one of HTTP+SSE, by the path that everybody uses for it."""
    return url.partition("?")[0].rstrip("/").endswith("/sse")


def _parameter(text: str, owner: str, notes: Notes) -> str:
    name, equals, value = text.partition("=")
    if equals and _hides(name, value):
        purpose = f"{name[:40]} in the address of {owner}; the value is not copied"
        return f"{portable(name, owner, notes)}=${{{notes.variable(f'{owner}_{name}', owner, value, purpose)}}}"
    return portable(quote(text, safe="/?%:@!$'()*+,;=~${}"), owner, notes)
