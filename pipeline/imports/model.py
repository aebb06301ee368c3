"""What a foreign configuration says, in our terms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, final

from attrs import Factory, define, field, frozen

_FOREIGN_ID: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_MAX_ID: Final = 48
"""Characters kept of a foreign name; an id may have 64, and a number may follow."""


class NotImportable(Exception):
    """Nothing of a text can be used; the message says why, and what would help."""


@final
@frozen
class Lost:
    """Something that could not be carried over as it was. Never quotes a value: it may be a secret."""

    where: str
    """The server or option it belongs to."""
    reason: str
    """What was there, why it is not there any more, and what to do instead."""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@final
@frozen
class FromEnv:
    """A value that is read from a variable of the environment when the gateway starts."""

    name: str


Value = str | FromEnv
"""A text in our own notation (`${NAME}` is a variable, `$$` a dollar sign), or a variable that is a secret."""


@final
@frozen
class Upstream:
    """One server: a program to start if it has a command, else an address."""

    id: str
    command: tuple[str, ...] = ()
    cwd: str | None = None
    env: Mapping[str, Value] = Factory(dict)
    url: str = ""
    headers: Mapping[str, Value] = Factory(dict)
    sse: bool = False
    """Its address is that of an event stream (HTTP+SSE)."""

    @property
    def kind(self) -> str:
        """The kind of its sink."""
        if self.command:
            return "stdio"
        if self.url.startswith(("ws://", "wss://")):
            return "websocket"
        return "sse" if self.sse else "http"


@final
@frozen
class Listen:
    """Where clients come in over HTTP."""

    bind: str = "127.0.0.1:8080"
    path: str = "/mcp"
    allowed_origins: tuple[str, ...] = ()
    session_idle_ms: int | None = None
    sse: str | None = None
    """The path of event streams for clients of HTTP+SSE; None for none."""
    websocket: str | None = None
    """The path at which clients open a WebSocket; None for none."""


@final
@frozen
class Imported:
    """A whole foreign configuration."""

    upstreams: tuple[Upstream, ...]
    """At least one."""
    listen: Listen | None
    """None if clients come in over stdin and stdout."""
    lost: tuple[Lost, ...]
    variables: Mapping[str, str]
    """The variables that must be set, with what each is for."""


@define(eq=False)
class Notes:
    """What a reader collects on its way: losses, ids that are taken, variables."""

    lost: list[Lost] = field(factory=list)
    variables: dict[str, str] = field(factory=dict)
    _ids: dict[str, None] = field(factory=dict)
    _secrets: dict[str, str] = field(factory=dict)

    def lose(self, where: str, reason: str) -> None:
        """Note a loss; the same one is noted once."""
        loss = Lost(where, reason)
        if loss not in self.lost:
            self.lost.append(loss)

    def id_for(self, name: str) -> str:
        """An id of ours for a foreign name, which nobody else has; a changed name is noted."""
        wanted = _FOREIGN_ID.sub("-", name).strip("-.")[:_MAX_ID] or "server"
        chosen, number = wanted, 2
        while chosen in self._ids:
            chosen, number = f"{wanted}-{number}", number + 1
        self._ids[chosen] = None
        if chosen != name:
            self.lose(chosen, f"was called {name[:_MAX_ID]!r}, which cannot be its id here")
        return chosen

    def variable(self, name: str, owner: str, value: str, purpose: str) -> str:
        """
        The name of the variable that stands for a value. Equal values of one name share it.

        Args:
            name: What it should be called.
            owner: The server's id, to tell different values of one name apart.
            value: What the variable stands for; only compared.
            purpose: What it is for.
        """
        for wanted in (variable_name(name), variable_name(f"{owner}_{name}")):
            if self._secrets.setdefault(wanted, value) == value:
                self.variables.setdefault(wanted, purpose)
                return wanted
        number = 2
        while self._secrets.setdefault(f"{wanted}_{number}", value) != value:
            number += 1
        self.variables.setdefault(f"{wanted}_{number}", purpose)
        return f"{wanted}_{number}"


def variable_name(text: str) -> str:
    """A name of a variable that is like a text: upper case, digits and underscores."""
    name = re.sub(r"[^A-Z0-9]+", "_", text.upper()).strip("_") or "VALUE"
    return f"_{name}" if name[0].isdigit() else name
