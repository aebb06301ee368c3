"""
From a function's signature to JSON Schema and back: what a tool takes, what it returns, and who gives it the rest.

msgspec makes the schema and checks the arguments, so both follow from one declaration: type hints, with
`Annotated[..., msgspec.Meta(description=..., ge=...)]` for more. attrs, dataclass, TypedDict and msgspec types nest.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, final, get_args, get_origin, get_type_hints

import msgspec
from attrs import frozen

from sluiceway.pipeline.protocol.messages import Json, encode_json

from .content import Block, ToolResult
from .errors import InvalidParams

Injectable = Callable[[Any], bool]
"""Whether a type is provided by the server rather than sent by the client."""

_AT: Final = re.compile(r"^(?P<problem>.*?) - at `\$\.?(?P<path>.*)`$", re.DOTALL)
_NOT_DATA: Final = (str, bytes, int, float, bool, type(None), ToolResult, Block)


@final
@frozen
class Parameters:
    """What a function takes: some from the client, some from the server."""

    struct: type[msgspec.Struct]
    """Holds what the client sends; one field per parameter."""
    schema: Mapping[str, Json]
    """JSON Schema 2020-12 of an object."""
    injected: Mapping[str, Any]
    """Parameters the server fills in, by name, with their types."""

    def convert(self, arguments: Json, *, strict: bool = True) -> dict[str, Any]:
        """
        Check and convert what a client sent.

        Args:
            arguments: A JSON object.
            strict: False also reads numbers and booleans out of text (prompt and uri arguments are text).

        Raises:
            InvalidParams: Names the parameter and what is wrong with it.
        """
        try:
            return msgspec.structs.asdict(msgspec.convert(arguments, self.struct, strict=strict))
        except msgspec.ValidationError as error:
            raise InvalidParams(describe(error)) from error


def describe(error: msgspec.ValidationError) -> str:
    """A validation error with the parameter's name in front, as people write it."""
    match = _AT.match(str(error))
    return f"{match['path']}: {match['problem']}" if match and match["path"] else str(error)


def bare(hint: Any) -> Any:
    """A type hint without its `Annotated` notes."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def parameters_of(function: Callable[..., Any], injectable: Injectable, *, closed: bool = True) -> Parameters:
    """
    Read a function's signature.

    Args:
        function: Every parameter annotated; no positional-only ones, no `*args`, no `**kwargs`.
        injectable: Says which types come from the server.
        closed: Whether members the function does not know are refused.

    Raises:
        TypeError: The signature cannot be served; the text names the parameter and the remedy.
    """
    name = getattr(function, "__qualname__", repr(function))
    hints = get_type_hints(function, include_extras=True)
    fields: list[tuple[Any, ...]] = []
    injected: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{name}: {parameter} cannot be filled from named arguments; name each parameter")
        if parameter.name not in hints:
            raise TypeError(f"{name}: parameter {parameter.name!r} needs a type annotation")
        hint = hints[parameter.name]
        if injectable(bare(hint)):
            injected[parameter.name] = bare(hint)
        elif parameter.default is parameter.empty:
            fields.append((parameter.name, hint))
        else:
            fields.append((parameter.name, hint, parameter.default))
    struct = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=closed)
    try:
        schema = object_schema(struct)
    except TypeError as error:
        wrong = ", ".join(f"{field[0]}: {bare(field[1])!r}" for field in fields)
        raise TypeError(
            f"{name}: a parameter is neither JSON nor provided ({wrong}); "
            "call server.provide(Type, ...) before the decorator if the server is to fill it in"
        ) from error
    schema.pop("title", None)
    return Parameters(struct, schema, injected)


def object_schema(annotation: Any) -> dict[str, Json]:
    """
    The JSON Schema of a type with the object itself at the root, as tools need it, and the rest under `$defs`.

    Raises:
        TypeError: The type has no JSON form.
    """
    schema = msgspec.json.schema(annotation)
    reference = schema.get("$ref")
    if reference is None:
        return schema
    definitions: dict[str, Json] = schema["$defs"]
    name = reference.rpartition("/")[2]
    root = dict(definitions[name])
    if encode_json(definitions).count(encode_json(reference)) == 0:
        del definitions[name]
    if definitions:
        root["$defs"] = definitions
    if not root.get("required", True):
        del root["required"]
    return root


def form_schema(annotation: Any) -> dict[str, Json]:
    """
    The schema of a form (`elicitation/create`): one level of text, numbers, booleans and choices.

    Raises:
        TypeError: A member is something a form cannot ask for.
    """
    schema = object_schema(annotation)
    definitions = schema.get("$defs", {})
    members: dict[str, Json] = {}
    for name, member in schema.get("properties", {}).items():
        reference = member.get("$ref", "").rpartition("/")[2]
        flat = {**definitions.get(reference, {}), **member} if reference else dict(member)
        flat.pop("$ref", None)
        if "enum" in flat and all(isinstance(each, str) for each in flat["enum"]):
            flat["type"] = "string"
        if flat.get("type") not in ("string", "number", "integer", "boolean", "array"):
            raise TypeError(f"{name}: a form asks for text, numbers, booleans and choices only; use a simpler type")
        members[name] = flat
    required = {"required": schema["required"]} if "required" in schema else {}
    return {"type": "object", "properties": members, **required}


def output_schema(function: Callable[..., Any]) -> dict[str, Json] | None:
    """The schema of a function's result where that is a JSON object of a declared shape; None where it is not."""
    hint = bare(get_type_hints(function, include_extras=True).get("return"))
    if hint is None or hint is Any or (isinstance(hint, type) and issubclass(hint, _NOT_DATA)):
        return None
    try:
        schema = object_schema(hint)
    except TypeError:
        return None
    return schema if schema.get("type") == "object" else None
