"""What a request asks leave for, read off its method and params. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, final

from attrs import frozen

from sluiceway.pipeline.protocol.messages import Json

from .arguments import ANY
from .capability import Sort

FREE: Final = frozenset(
    {
        "initialize",
        "ping",
        "server/discover",
        "logging/setLevel",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "notifications/roots/list_changed",
        "notifications/tasks/status",
    }
)
"""Methods that need no leave: they reach nothing that rules are about."""

OF_TASKS: Final = frozenset({"tasks/get", "tasks/result", "tasks/update", "tasks/cancel"})
"""Methods about a task: for whoever made it."""


class Asked(NamedTuple):
    """One thing, and what is to be done with it."""

    sort: Sort
    name: str
    action: str
    arguments: Json
    """What goes with a tool or prompt; None if there is nothing, `ANY` where it does not matter."""
    noun: str
    """What messages call it."""


@final
@frozen
class Row:
    """How the methods about one thing are read."""

    sort: Sort
    action: str
    target: str
    noun: str


ROWS: Final[Mapping[str, Row]] = {
    "tools/call": Row("tools", "call", "name", "tool"),
    "prompts/get": Row("prompts", "get", "name", "prompt"),
    "resources/read": Row("resources", "read", "uri", "resource"),
    "resources/subscribe": Row("resources", "subscribe", "uri", "resource"),
    "resources/unsubscribe": Row("resources", "subscribe", "uri", "resource"),
}
"""Methods about one thing."""


@final
@frozen
class Listing:
    """How the entries of a list are read."""

    sort: Sort
    action: str
    """What must be allowed for an entry to be shown."""
    members: str
    """The member of the result that holds them."""
    key: str
    """The member of an entry that names it."""


LISTS: Final[Mapping[str, Listing]] = {
    "tools/list": Listing("tools", "call", "tools", "name"),
    "prompts/list": Listing("prompts", "get", "prompts", "name"),
    "resources/list": Listing("resources", "read", "resources", "uri"),
    "resources/templates/list": Listing("resources", "read", "resourceTemplates", "uriTemplate"),
}
"""Lists that rules filter."""
LIST_OF_TASKS: Final = "tasks/list"
LISTEN: Final = "subscriptions/listen"
COMPLETE: Final = "completion/complete"


def asked_by(method: str, params: Mapping[str, Json]) -> Asked | None:
    """
    What a request about one thing asks leave for; None for one that names nothing a rule could be about.

    To complete an argument asks for the prompt or the resource template it belongs to. A method that MCP does not
    define asks for itself.
    """
    row = ROWS.get(method)
    if row is not None:
        name = params.get(row.target)
        if not isinstance(name, str):
            return None
        return Asked(row.sort, name, row.action, params.get("arguments"), row.noun)
    if method == COMPLETE:
        return _completed(params.get("ref"))
    return Asked("methods", method, "call", None, "method")


def _completed(ref: Json) -> Asked | None:
    match ref:
        case {"type": "ref/prompt", "name": str(name)}:
            return Asked("prompts", name, "get", ANY, "prompt")
        case {"type": "ref/resource", "uri": str(uri)}:
            return Asked("resources", uri, "read", ANY, "resource")
    return None
