"""`sluiceway act`: have a component of a running gateway do something."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from ..protocol.messages import Json, decode_json
from .asking import AdminListener, find_admin
from .exits import Exit, usage
from .output import Format, emit, emit_json, table

NOTHING: Final = "no component has an action"


def act(
    file: Path,
    component: str = "",
    action: str = "",
    /,
    *arguments: str,
    admin: str | None = None,
    format: Format = "text",  # the option's name
) -> int:
    """
    Have a component of a running gateway do something: empty a cache, close a circuit.

    Without an action, the actions of the component are listed; without a component, those of all.

    Args:
        file: The gateway's configuration, which says where its admin listener is.
        component: Id of a component, as status shows it.
        action: One of its actions.
        arguments: What the action needs to know, as name=value; a value that is JSON is taken as such.
        admin: Address of the admin listener, host:port or unix:path, instead of the configured one.
        format: `text` for people, `json` for programs.
    """
    listener = find_admin(file, admin)
    if not action:
        return _list(listener, component, format)
    answer = listener.ask("POST", f"{_path(component)}/{quote(action, safe='')}", dict(map(_argument, arguments)))
    if format == "json":
        emit_json(answer)
    elif answer["result"] is not None:
        emit_json(answer["result"])
    return Exit.OK


def _list(listener: AdminListener, component: str, form: Format) -> int:
    ids = [component] if component else [each["id"] for each in listener.ask("GET", "/-/status")["components"]]
    actions = {each: listener.ask("GET", _path(each))["actions"] for each in ids}
    actions = {each: what for each, what in actions.items() if what}
    if form == "json":
        emit_json(actions)
    elif actions:
        rows = [(each, name, text) for each, what in actions.items() for name, text in what.items()]
        table(("component", "action", "what it does"), rows, styles=("", "", "dim"))
    else:
        emit(NOTHING if not component else f"{component} has no action")
    return Exit.OK


def _path(component: str) -> str:
    return f"/-/components/{quote(component, safe='')}"


def _argument(text: str) -> tuple[str, Json]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise usage(f"expected name=value, got {text!r}")
    try:
        return name, decode_json(value)
    except msgspec.DecodeError:
        return name, value
