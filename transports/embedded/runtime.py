"""A server that is open: what it offers through this sink, whom it tells of changes, and what it made to do so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, final

from attrs import define, field

from sluiceway.pipeline.model.store import Store
from sluiceway.pipeline.protocol.messages import Json

from .content import without_none
from .drains import Drains
from .errors import NotFound
from .mrtr import Sealer
from .resources import Readable, find_resource
from .subscriptions import Hub, ListKind

if TYPE_CHECKING:
    from .context import Context
    from .server import Server

Feature = Literal["tools", "resources", "prompts", "completions", "logging", "methods"]
FEATURES: Final[tuple[Feature, ...]] = ("tools", "resources", "prompts", "completions", "logging", "methods")
"""What can be exposed; `methods` are a server's own."""
LISTS: Final[tuple[ListKind, ...]] = ("tools", "resources", "prompts")


@final
@define(eq=False, kw_only=True)
class Runtime:
    """One `Server`, opened by one sink. The server itself is only a description and may be open several times."""

    server: Server
    id: str
    """The sink's id."""
    exposed: frozenset[Feature]
    page_size: int
    info: Mapping[str, Json]
    """`serverInfo`."""
    hub: Hub
    drains: Drains
    """Who ends streams that only listen when the gateway drains."""
    sealer: Sealer
    new_id: Callable[[], str]
    clock: Callable[[], float]
    """Seconds since the epoch."""
    log: Any
    store: Store | None = None
    lifespan: Any = field(default=None, init=False)
    """What the lifespan hook yielded."""
    singletons: dict[type[Any], Any] = field(factory=dict, init=False)

    def offers(self, feature: Feature) -> bool:
        """Whether a feature is exposed and there is something of it."""
        if feature not in self.exposed:
            return False
        server = self.server
        match feature:
            case "tools":
                return bool(server.tools)
            case "resources":
                return bool(server.resources or server.templates)
            case "prompts":
                return bool(server.prompts)
            case "completions":
                return bool(server.completers)
            case "methods":
                return bool(server.routes)
        return True

    def capabilities(self) -> dict[str, Json]:
        """`ServerCapabilities`: what is registered and exposed, nothing else."""
        declared: dict[str, Json] = {kind: {"listChanged": True} for kind in LISTS if self.offers(kind)}
        if "resources" in declared:
            declared["resources"]["subscribe"] = True
        for feature in ("completions", "logging"):
            if self.offers(feature):
                declared[feature] = {}
        return declared

    def about(self) -> dict[str, Json]:
        """What `initialize` and `server/discover` have in common."""
        return without_none(capabilities=self.capabilities(), instructions=self.server.instructions)

    def find(self, uri: str) -> tuple[Readable, dict[str, str]]:
        """
        Who serves a uri, and the values of its template's variables.

        Raises:
            NotFound: Nobody does.
        """
        found = find_resource(self.server.resources, self.server.templates, uri)
        if found is None:
            raise NotFound(f"resource not found: {uri}", data={"uri": uri})
        return found

    def serves(self, uri: str) -> bool:
        """Whether there is a resource of that uri, or a template that matches it."""
        return find_resource(self.server.resources, self.server.templates, uri) is not None

    async def read(self, uri: str, context: Context) -> tuple[list[dict[str, Json]], Readable]:
        """
        Read a resource.

        Returns:
            Its `contents`, and what served them.

        Raises:
            NotFound: There is none of that uri.
        """
        readable, values = self.find(uri)
        return await readable.read(values, uri, context), readable

    def changed(self, kind: ListKind) -> None:
        """A list of the server changed."""
        if kind in self.exposed:
            self.hub.list_changed(kind)
