"""
Tools: functions with a schema from their type hints, and command-style classes with a schema of their own.

Both are `Tool` objects with the same life: validate first, execute then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Protocol

import jsonschema_rs

from sluiceway.pipeline.protocol.messages import Json

from ..mirrored import Mirrored, mirrored_of
from .content import ToolResult, to_tool_result, without_none
from .errors import InvalidParams
from .handlers import Handler, run_function
from .schema import output_schema

if TYPE_CHECKING:
    from .context import Context

NO_ARGUMENTS: Final[Mapping[str, Json]] = {"type": "object", "properties": {}, "additionalProperties": False}
"""The schema of a tool that takes nothing."""


class Checker(Protocol):
    """A compiled JSON Schema."""

    def __call__(self, value: Json) -> str | None:
        """What is wrong with a value, naming the place; None if nothing is."""


def compile_schema(schema: Mapping[str, Json]) -> Checker:
    """
    Compile a schema. Nothing is ever fetched: references must point into the schema itself (SEP-2106).

    Raises:
        ValueError: It is not a schema, or refers to something outside.
    """
    try:
        validator = jsonschema_rs.validator_for(dict(schema), retriever=_refuse)
    except jsonschema_rs.ValidationError as error:
        raise ValueError(f"not a usable JSON Schema: {error.message}") from error

    def check(value: Json) -> str | None:
        for error in validator.iter_errors(value):
            place = ".".join(str(step) for step in error.instance_path)
            return f"{place}: {error.message}" if place else error.message
        return None

    return check


def _refuse(uri: str) -> Json:
    raise ValueError(f"{uri} is outside the schema, and nothing is fetched; put it under $defs")


class Tool:
    """
    A tool in command style: subclass it, set the attributes, write `execute`, and `server.add_tool(MyTool())`.

    `execute` may be sync or async and returns what a tool function may return; `validate` may be extended for what a
    schema cannot say. A call that does not validate is never executed.
    """

    name: str = ""
    """1 to 128 of `A-Z a-z 0-9 _ . -` (SEP-986)."""
    description: str = ""
    schema: Mapping[str, Json] = NO_ARGUMENTS
    """JSON Schema 2020-12 of the arguments; listed exactly as it is."""
    output_schema: Mapping[str, Json] | None = None
    """JSON Schema of the structured result; None for tools without one."""
    title: str | None = None
    annotations: Mapping[str, Json] | None = None
    """`readOnlyHint`, `destructiveHint`, `idempotentHint`, `openWorldHint`."""
    icons: Sequence[Mapping[str, Json]] | None = None
    meta: Mapping[str, Json] | None = None
    """Becomes `_meta`."""

    @cached_property
    def checker(self) -> Checker:
        """The compiled schema; made when the tool is registered."""
        return compile_schema(self.schema)

    @cached_property
    def mirrored(self) -> tuple[Mirrored, ...]:
        """The arguments with an `x-mcp-header`."""
        return mirrored_of(self.schema)

    def validate(self, arguments: Mapping[str, Json]) -> Any:
        """
        Check the arguments against the schema.

        Returns:
            What `execute` gets.

        Raises:
            InvalidParams: Names the parameter.
        """
        problem = self.checker(arguments)
        if problem is not None:
            raise InvalidParams(problem)
        return arguments

    def execute(self, arguments: Any, context: Context) -> Any:
        """Do it; sync or async."""
        raise TypeError(f"{type(self).__name__} does not implement execute")

    async def call(self, arguments: Any, context: Context) -> ToolResult:
        """Execute validated arguments and make a result of what comes out."""
        value = await run_function(lambda: self.execute(arguments, context))
        return to_tool_result(value, structured=self.output_schema is not None)

    def definition(self) -> dict[str, Json]:
        """As it is listed."""
        return without_none(
            name=self.name,
            title=self.title,
            description=self.description,
            inputSchema=self.schema,
            outputSchema=self.output_schema,
            annotations=self.annotations,
            icons=self.icons,
            _meta=self.meta,
        )


class FunctionTool(Tool):
    """
    A function as a tool.

    Args:
        handler: The function and its parameters.
        name: The tool's name.
        description: For the model; the docstring unless given.
    """

    def __init__(self, handler: Handler, name: str, description: str) -> None:
        self.name = name
        self.description = description
        self.handler = handler
        self.schema = handler.parameters.schema
        self.output_schema = output_schema(handler.function)

    def validate(self, arguments: Mapping[str, Json]) -> Mapping[str, Any]:
        """Check and convert the arguments in one step."""
        return self.handler.parameters.convert(arguments)

    async def execute(self, arguments: Mapping[str, Any], context: Context) -> Any:
        """Call the function with the arguments and what it wants injected."""
        return await self.handler.call(arguments, context)


def summary_of(function: Callable[..., Any]) -> str:
    """The first paragraph of a function's docstring, on one line; empty without one."""
    paragraph = (function.__doc__ or "").strip().partition("\n\n")[0]
    return " ".join(paragraph.split())
