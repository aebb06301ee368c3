"""
The builder of embedded servers: decorators for tools, resources, prompts, completions and methods.

A `Server` is a description: it is opened by a sink, possibly by several, and may be changed while open; clients are
told of changed lists. Decorated functions stay what they were and can be called in tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, final

from sluiceway.pipeline.protocol.messages import Json

from ..patterns import Pattern, PatternKind
from .catalog import Catalog
from .content import without_none
from .context import Context
from .handlers import Handler
from .inject import Providers, Scope
from .methods import Routes
from .prompts import Completer, Prompt
from .resources import Resource, ResourceTemplate
from .runtime import Runtime
from .schema import parameters_of
from .subscriptions import ListKind
from .tools import FunctionTool, Tool, summary_of
from .uri_template import UriTemplate

_F = TypeVar("_F", bound=Callable[..., Any])
_Icons = Sequence[Mapping[str, Json]] | None
_Meta = Mapping[str, Json] | None

Lifespan = Callable[[], AbstractAsyncContextManager[Any]]


@final
class Server:
    """
    An MCP server made of Python functions.

    Args:
        name: `serverInfo.name`.
        version: `serverInfo.version`.
        title: For people.
        description: One sentence for people.
        website_url: Where to read more.
        icons: As `Icon` objects.
        instructions: For the client's model: how to use what this server offers.
        ttl_ms: How long clients of 2026-07-28 may keep lists and resources, unless a resource says otherwise.
        cache_scope: `public` only if lists and resources are the same for every caller.
    """

    def __init__(
        self,
        name: str,
        *,
        version: str = "0.0.0",
        title: str | None = None,
        description: str | None = None,
        website_url: str | None = None,
        icons: _Icons = None,
        instructions: str | None = None,
        ttl_ms: int = 0,
        cache_scope: str = "private",
    ) -> None:
        self.name = name
        self.version = version
        self.instructions = instructions
        self.ttl_ms = ttl_ms
        self.cache_scope = cache_scope
        self.details = without_none(title=title, description=description, websiteUrl=website_url, icons=icons)
        """Further members of `serverInfo`."""
        self.tools: Catalog[Tool] = Catalog("tool", lambda: self._changed("tools"))
        self.resources: Catalog[Resource] = Catalog("resource", lambda: self._changed("resources"))
        self.templates: Catalog[ResourceTemplate] = Catalog("template", lambda: self._changed("resources"))
        self.prompts: Catalog[Prompt] = Catalog("prompt", lambda: self._changed("prompts"))
        self.completers: dict[tuple[str, str], Completer] = {}
        """By prompt name or template, and argument."""
        self.routes = Routes()
        self.providers = Providers(Context)
        self.lifespan_hook: Lifespan | None = None
        self._runtimes: list[Runtime] = []

    def tool(
        self,
        *,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        annotations: Mapping[str, Json] | None = None,
        icons: _Icons = None,
        meta: _Meta = None,
        thread: bool = False,
        replace: bool = False,
    ) -> Callable[[_F], _F]:
        """
        Make a function a tool; its arguments, their schema and their checks come from its type hints.

        Args:
            name: The function's name unless given.
            title: For people.
            description: For the model; the first paragraph of the docstring unless given.
            annotations: `readOnlyHint`, `destructiveHint`, `idempotentHint`, `openWorldHint`.
            icons: As `Icon` objects.
            meta: Becomes `_meta`.
            thread: Run a sync function in a worker thread, because it blocks.
            replace: Replace a tool of the same name instead of refusing.
        """

        def decorate(function: _F) -> _F:
            handler = self._handler(function, thread)
            tool = FunctionTool(handler, name or function.__name__, description or summary_of(function))
            tool.title, tool.annotations, tool.icons, tool.meta = title, annotations, icons, meta
            self.add_tool(tool, replace=replace)
            return function

        return decorate

    def add_tool(self, tool: Tool, *, replace: bool = False) -> None:
        """
        Register a tool object, such as one in command style.

        Raises:
            ValueError: The name is taken or missing, or the schema cannot be used.
        """
        if not tool.name:
            raise ValueError(f"{type(tool).__name__} needs a name")
        try:
            _ = tool.checker, tool.mirrored
        except ValueError as error:
            raise ValueError(f"tool {tool.name!r}: {error}") from error
        self.tools.add(tool.name, tool, replace=replace)

    def resource(
        self,
        uri: str,
        *,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        mime_type: str | None = None,
        annotations: Mapping[str, Json] | None = None,
        icons: _Icons = None,
        size: int | None = None,
        meta: _Meta = None,
        ttl_ms: int | None = None,
        cache_scope: str | None = None,
        thread: bool = False,
        replace: bool = False,
    ) -> Callable[[_F], _F]:
        """
        Make a function a resource, or a template if the uri has `{variables}`, which become its arguments.

        Args:
            uri: A uri, or an RFC 6570 level 1 template.
            name: The function's name unless given.
            title: For people.
            description: The first paragraph of the docstring unless given.
            mime_type: `text/plain`, `application/json` or `application/octet-stream` by what is returned unless given.
            annotations: `audience`, `priority`, `lastModified`.
            icons: As `Icon` objects.
            size: Bytes, if known.
            meta: Becomes `_meta`.
            ttl_ms: How long clients of 2026-07-28 may keep what they read.
            cache_scope: `public` only if it is the same for every caller.
            thread: Run a sync function in a worker thread, because it blocks.
            replace: Replace a resource of the same uri instead of refusing.
        """

        def decorate(function: _F) -> _F:
            handler = self._handler(function, thread)
            about: dict[str, Any] = {
                "name": name or function.__name__, "title": title, "description": description or summary_of(function),
                "icons": icons, "meta": meta, "handler": handler, "mime_type": mime_type, "annotations": annotations,
                "ttl_ms": ttl_ms, "cache_scope": cache_scope,
            }  # fmt: skip
            template = UriTemplate(uri) if "{" in uri else None
            _check_variables(uri, template.names if template else (), handler)
            if template is None:
                self.resources.add(uri, Resource(uri=uri, size=size, **about), replace=replace)
            else:
                self.templates.add(uri, ResourceTemplate(template=template, **about), replace=replace)
            return function

        return decorate

    def prompt(
        self,
        *,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        icons: _Icons = None,
        meta: _Meta = None,
        thread: bool = False,
        replace: bool = False,
    ) -> Callable[[_F], _F]:
        """
        Make a function a prompt. Its arguments arrive as text and are converted to what the hints say.

        Args:
            name: The function's name unless given.
            title: For people.
            description: The first paragraph of the docstring unless given.
            icons: As `Icon` objects.
            meta: Becomes `_meta`.
            thread: Run a sync function in a worker thread, because it blocks.
            replace: Replace a prompt of the same name instead of refusing.
        """

        def decorate(function: _F) -> _F:
            prompt = Prompt(
                name=name or function.__name__,
                title=title,
                description=description or summary_of(function),
                icons=icons,
                meta=meta,
                handler=self._handler(function, thread),
            )
            self.prompts.add(prompt.name, prompt, replace=replace)
            return function

        return decorate

    def completion(self, of: str, argument: str, *, replace: bool = False) -> Callable[[_F], _F]:
        """
        Suggest values for an argument of a prompt or a variable of a template.

        The function takes `value: str`, what was typed so far, and if it likes `arguments: dict[str, str]`, the other
        ones already chosen; it returns an iterable of text, best first.

        Args:
            of: The prompt's name or the template's uri, registered before.
            argument: Its argument or variable.
            replace: Replace what is there instead of refusing.

        Raises:
            ValueError: There is no such prompt, template or argument, or it has suggestions already.
        """

        def decorate(function: _F) -> _F:
            if argument not in self.arguments_of(of):
                raise ValueError(f"{of!r} is no prompt or template with an argument {argument!r}")
            if (of, argument) in self.completers and not replace:
                raise ValueError(f"{of!r} has a completion for {argument!r} already; pass replace=True to replace it")
            self.completers[of, argument] = Completer(handler=self._handler(function, thread=False))
            return function

        return decorate

    def arguments_of(self, of: str) -> tuple[str, ...]:
        """The arguments of a prompt or the variables of a template; empty for anything else."""
        if of in self.prompts:
            return tuple(self.prompts[of].handler.parameters.schema["properties"])
        return self.templates[of].template.names if of in self.templates else ()

    def method(
        self, pattern: str, *, kind: PatternKind | None = None, priority: int = 0, replace: bool = False
    ) -> Callable[[_F], _F]:
        """
        Serve methods of your own. The function's arguments are members of `params`; it returns a JSON object.

        Args:
            pattern: What methods to serve.
            kind: `exact`, `glob`, `prefix` or `regex`; glob if the pattern has a `*` or `?`, else exact.
            priority: Higher wins where two patterns match; equally specific ones are refused otherwise.
            replace: Replace the handler of the same pattern instead of refusing.
        """
        guessed: PatternKind = "glob" if "*" in pattern or "?" in pattern else "exact"
        compiled = Pattern(pattern, kind or guessed, priority)

        def decorate(function: _F) -> _F:
            handler = Handler(function, parameters_of(function, self.providers.knows, closed=False))
            self.routes.add(compiled, handler, replace=replace)
            return function

        return decorate

    def provide(
        self,
        provided: type[Any],
        instance: Any = None,
        *,
        factory: Callable[..., Any] | None = None,
        scope: Scope = "singleton",
    ) -> None:
        """
        Have parameters of a type filled in by the server. Call it before the decorators that use the type.

        Args:
            provided: The type, as handlers annotate it.
            instance: The object, if it exists already.
            factory: Makes it: a function, async function or async context manager function; may take provided types.
            scope: `singleton`, made when the server opens and closed with it, or `request`.

        Raises:
            ValueError: The type is provided already, or neither or both of instance and factory are given.
        """
        if (instance is None) is (factory is None):
            raise ValueError(f"provide {provided.__qualname__} by an instance or a factory")
        self.providers.add(provided, instance, factory, scope)

    def lifespan(self, function: Lifespan) -> Lifespan:
        """
        Run an async context manager function around the server's life; what it yields is `Context.lifespan`.

        If it fails on the way in, the gateway does not start and says why.

        Raises:
            ValueError: There is one already.
        """
        if self.lifespan_hook is not None:
            raise ValueError("this server has a lifespan already")
        self.lifespan_hook = function
        return function

    def resource_updated(self, uri: str) -> None:
        """Tell the clients that subscribed to a resource that it changed. Never blocks."""
        for runtime in self._runtimes:
            runtime.hub.resource_updated(uri)

    def attach(self, runtime: Runtime) -> None:
        """Tell an open runtime of changes from now on; the sink calls this, and `detach` when it closes."""
        self._runtimes.append(runtime)

    def detach(self, runtime: Runtime) -> None:
        """Take a runtime back."""
        self._runtimes.remove(runtime)

    def _changed(self, kind: ListKind) -> None:
        for runtime in self._runtimes:
            runtime.changed(kind)

    def _handler(self, function: Callable[..., Any], thread: bool) -> Handler:
        return Handler(function, parameters_of(function, self.providers.knows), thread)


def _check_variables(uri: str, names: tuple[str, ...], handler: Handler) -> None:
    taken = set(handler.parameters.schema["properties"])
    if taken != set(names):
        raise ValueError(f"{uri!r} gives {sorted(names)}, but the function takes {sorted(taken)}; name them alike")
