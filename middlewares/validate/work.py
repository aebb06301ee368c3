"""
How much work a schema can make, before anybody does it.

A schema comes from an upstream, arguments from a client, and either may be out to stop the gateway: a schema of a
hundred lines whose references double at every step takes longer than the age of the universe, and no validator can be
interrupted. So the steps are counted first, over the schema alone, for the depth that the value has. The count is an
upper bound but for repetition: every element of a list is checked against the same schema, so it is per element.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, final
from urllib.parse import unquote

from sluiceway.pipeline.protocol.json_pointer import names_in
from sluiceway.pipeline.protocol.messages import Json

_SAME: Final = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"})
"""Keywords whose schemas apply to the same value (JSON Schema 2020-12, core, section 10.2, and older drafts)."""
_INSIDE: Final = frozenset(
    {
        "properties", "patternProperties", "additionalProperties", "propertyNames", "unevaluatedProperties", "items",
        "prefixItems", "additionalItems", "contains", "unevaluatedItems",
    }
)  # fmt: skip
"""Keywords whose schemas apply to what is inside the value (section 10.3)."""
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")


def depth_of(value: Json) -> int:
    """Levels of containers: 0 for a text, 1 for a flat object."""
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


def values_in(value: Json, most: int) -> int:
    """How many values a JSON document holds, itself included; stops counting above `most`."""
    count, waiting = 0, [value]
    while waiting and count <= most:
        count += 1
        each = waiting.pop()
        if isinstance(each, dict | list):
            waiting += each.values() if isinstance(each, dict) else each
    return count


@final
class Work:
    """
    Counts the steps that one schema can take.

    Args:
        root: The schema.
        most: Where counting stops: more than this is more than anybody wants to know.
    """

    def __init__(self, root: Json, most: int) -> None:
        self._root = root
        self._most = most
        self._known: dict[tuple[int, int], int] = {}

    def steps(self, depth: int) -> int:
        """Steps for a value with so many levels; at most `most` + 1."""
        return self._steps(self._root, depth, frozenset())

    def _steps(self, schema: Json, depth: int, entered: frozenset[int]) -> int:
        if not isinstance(schema, dict) or id(schema) in entered:  # a reference to itself, without a step inside
            return 1
        key = (id(schema), depth)
        if key not in self._known:
            count, entered = 1, entered | {id(schema)}
            for same in self._same(schema):
                count += self._steps(same, depth, entered)
                if count > self._most:
                    break
            for inside in _inside(schema) if depth > 0 else ():
                count += self._steps(inside, depth - 1, frozenset())
                if count > self._most:
                    break
            self._known[key] = min(count, self._most + 1)
        return self._known[key]

    def _same(self, schema: Mapping[str, Json]) -> Iterator[Json]:
        for keyword in _SAME & schema.keys():
            yield from _schemas_in(keyword, schema[keyword])
        for keyword in _REFERENCES:
            if isinstance(reference := schema.get(keyword), str):
                yield self._target(reference)

    def _target(self, reference: str) -> Json:
        """What a reference within the document leads to; one that leads elsewhere, or by name, leads to all of it."""
        pointer = reference.partition("#")[2]
        if not pointer.startswith("/"):
            return self._root
        target = self._root
        for name in names_in(unquote(pointer)):
            if isinstance(target, dict):
                target = target.get(name)
            elif isinstance(target, list):
                target = target[int(name)] if name.isdecimal() and int(name) < len(target) else None
        return target


def _inside(schema: Mapping[str, Json]) -> Iterator[Json]:
    for keyword in _INSIDE & schema.keys():
        yield from _schemas_in(keyword, schema[keyword])


def _schemas_in(keyword: str, value: Json) -> Iterator[Json]:
    """The schemas under a keyword: one, a list of them, or a map."""
    if isinstance(value, list):
        yield from value
    elif keyword in ("properties", "patternProperties", "dependentSchemas", "dependencies") and isinstance(value, dict):
        yield from value.values()
    else:
        yield value
