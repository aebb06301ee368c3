"""
Schemas of tools, made ready once and checked in bounded time.

Nothing is fetched (a `$ref` to a network or a file is an unusable schema), patterns run on an engine that is linear in
the text (RE2's kind: no look-around, no back-references), sizes and steps are bounded, and no message repeats a value.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, final

import jsonschema_rs
from attrs import frozen

from sluiceway.pipeline.model.keys import canonical, digest
from sluiceway.pipeline.protocol.json_pointer import escape
from sluiceway.pipeline.protocol.messages import Json

from .work import Work, depth_of, values_in

MAX_VALUES: Final = 5_000
"""Values that a schema may consist of."""
MAX_STEPS: Final = 1_000_000
"""Steps that a check may take; some 20 ms."""
MAX_EXPLAINED: Final = 1_000
"""Steps up to which every wrong field gets its reason: to explain costs a thousand times what checking does."""
MAX_ERRORS: Final = 20
"""Wrong fields that are listed."""
MAX_CHARS: Final = 200
"""Characters of one reason."""


class UnusableSchema(Exception):
    """Nothing can be checked against this schema, or not in bounded time; the text says why."""


@final
@frozen
class Wrong:
    """One field that does not fit."""

    path: str
    """Where, as a JSON pointer (RFC 6901); empty for the whole."""
    problem: str
    """What is wrong with it, without its value."""

    def to_json(self) -> Json:
        """For `error.data`."""
        return {"path": self.path, "problem": self.problem}


@final
class Schema:
    """
    One schema, ready.

    Raises:
        UnusableSchema: It is none, it is too large, or it refers to something outside.
    """

    def __init__(self, definition: Mapping[str, Json]) -> None:
        if values_in(definition, MAX_VALUES) > MAX_VALUES:
            raise UnusableSchema(f"the schema consists of more than {MAX_VALUES} values")
        self._definition = definition
        self._validator = _compile(definition)
        self._work = Work(definition, MAX_STEPS)

    def check(self, value: Json) -> list[Wrong]:
        """
        Every field of a value that does not fit, at most `MAX_ERRORS`.

        Raises:
            UnusableSchema: With a value as deep as this one, the check could take too long.
        """
        depth = depth_of(value)
        try:
            steps = self._work.steps(depth)
        except RecursionError as error:
            raise UnusableSchema("its references lead through too many schemas") from error
        if steps > MAX_STEPS or (steps > MAX_EXPLAINED and steps * values_in(value, MAX_STEPS) > 10 * MAX_STEPS):
            raise UnusableSchema(f"to check a value of {depth} levels against it can take more than {MAX_STEPS} steps")
        if self._validator.is_valid(value):
            return []
        return self._explained(value) if steps <= MAX_EXPLAINED else self._named(value)

    def _explained(self, value: Json) -> list[Wrong]:
        wrong: list[Wrong] = []
        for error in self._validator.iter_errors(value):
            path = "".join(f"/{escape(str(part))}" for part in error.instance_path)
            wrong.append(Wrong(path, error.message[:MAX_CHARS]))
            if len(wrong) == MAX_ERRORS:
                break
        return wrong

    def _named(self, value: Json) -> list[Wrong]:
        """The members that do not fit by themselves, without the reason; the whole if each of them does."""
        wrong: list[Wrong] = []
        members = self._definition.get("properties")
        if isinstance(value, dict) and isinstance(members, dict):
            required = self._definition.get("required")
            missing = [name for name in (required if isinstance(required, list) else ()) if name not in value]
            wrong += [Wrong("", f'"{name}" is a required property'[:MAX_CHARS]) for name in missing]
            for name in members.keys() & value.keys():
                pointer = {**self._definition, "$ref": f"#/properties/{escape(name)}"}
                one = {key: item for key, item in pointer.items() if key in ("$ref", "$defs", "$schema", "definitions")}
                if not _compile({**one, "properties": members}).is_valid(value[name]):
                    wrong.append(Wrong(f"/{escape(name)}", "does not fit its schema"))
        return wrong[:MAX_ERRORS] or [Wrong("", "does not fit the schema")]


@final
class Schemas:
    """Schemas by what they say, made ready when they are first needed. Bounded; the least recently used go first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._ready: OrderedDict[str, Schema | UnusableSchema] = OrderedDict()
        self._names: OrderedDict[int, tuple[Mapping[str, Json], str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ready)

    def ready(self, definition: Mapping[str, Json]) -> Schema:
        """
        The schema of a definition. The same object is looked up in a microsecond, an equal one is hashed first.

        Raises:
            UnusableSchema: See `Schema`.
        """
        name = self._name_of(definition)
        schema = self._ready.get(name)
        if schema is None:
            try:
                schema = Schema(definition)
            except UnusableSchema as error:
                schema = error
            self._ready[name] = schema
            if len(self._ready) > self._most:
                self._ready.popitem(last=False)
        else:
            self._ready.move_to_end(name)
        if isinstance(schema, UnusableSchema):
            raise UnusableSchema(str(schema))
        return schema

    def _name_of(self, definition: Mapping[str, Json]) -> str:
        known = self._names.get(id(definition))
        if known is not None and known[0] is definition:  # held, so that nobody else can have its id
            return known[1]
        name = digest(canonical(definition))
        self._names[id(definition)] = (definition, name)
        if len(self._names) > self._most:
            self._names.popitem(last=False)
        return name


def _compile(definition: Mapping[str, Json]) -> Any:
    try:
        return jsonschema_rs.validator_for(
            dict(definition), retriever=_refuse, mask="the value", pattern_options=jsonschema_rs.RegexOptions()
        )
    except (ValueError, RecursionError, jsonschema_rs.ReferencingError) as error:  # a ValidationError is a ValueError
        raise UnusableSchema(str(error).partition("\n")[0][:MAX_CHARS]) from error


def _refuse(uri: str) -> Json:
    raise ValueError(f"{uri[:100]} is not fetched: what a schema refers to must be in it")
