"""
JSON Schema 2020-12 of the configuration, for the components that are installed: what editors complete and check with.

Made of the same declarations the parser reads. What a schema cannot say (that an id exists, the order of stages) is
left to `check`. Anywhere a value is expected, text with `${...}` is allowed as well.
"""

from __future__ import annotations

import inspect
import json
from typing import Any, Final

from ..model.cases import Answer, CallerGiven, Case, ClientGiven, ErrorGiven, Expect, Mock, RequestGiven, Rule, Together
from ..model.component import Component, ComponentKind
from ..model.document import Limits, Run
from ..model.options import ConfigPath, Duration, Rate, Ratio, Secret, Size
from ..model.registry import Registry
from ..model.when import When
from .declarations import (
    ATOMS,
    NULL,
    Atom,
    Choice,
    Group,
    ListOf,
    MapOf,
    OneOf,
    Option,
    Shape,
    options_of,
    to_data,
)
from .include import VERSION
from .keys import CHAIN_DOC, COMPONENT_KEYS, TOP_KEYS, PipelineKeys, StageKeys, SuiteKeys, common_keys

Schema = dict[str, Any]

_NUMBER: Final = r"[0-9]+(\.[0-9]+)?\s*"
_DURATION: Final = rf"{_NUMBER}(ms|s|m|min|h|d)"
_PATTERNS: Final[dict[Any, str]] = {
    Duration: rf"^{_DURATION}$",
    Size: rf"^{_NUMBER}(B|kB|MB|GB|KiB|MiB|GiB)$",
    Rate: rf"^\s*{_NUMBER}/\s*({_DURATION}|ms|s|m|min|h|d)$",
    Ratio: rf"^{_NUMBER}%$",
}
_VARIABLE: Final[Schema] = {"type": "string", "pattern": r"\$\{"}
_BLANK: Final = r"\$\{|<[A-Za-z_][A-Za-z0-9_]*>"
TESTS: Final[Schema] = {"type": "array", "items": {"$ref": "#/$defs/test"}}
PARTS: Final = (Expect, Mock, Answer, Rule, ClientGiven, CallerGiven, RequestGiven, ErrorGiven, Together)
"""Parts of tests that stand in several places."""
_ONE_OFF: Final = "^[^:]+:[^:]+$"
"""A component named by `module:Class`."""
_ATOMS: Final[dict[Any, Schema]] = {
    str: {"type": "string"},
    None: {"type": "null"},
    ConfigPath: {"type": "string", "minLength": 1},
    Any: {},
    int: {"anyOf": [{"type": "integer"}, _VARIABLE]},
    float: {"anyOf": [{"type": "number"}, _VARIABLE]},
    bool: {"anyOf": [{"type": "boolean"}, _VARIABLE]},
    Ratio: {"anyOf": [{"type": "string", "pattern": _PATTERNS[Ratio]}, {"type": "number", "minimum": 0, "maximum": 1},
                      _VARIABLE]},
    Secret: {
        "type": "object",
        "properties": {
            "from_env": {"type": "string", "description": "Environment variable that holds the value."},
            "from_file": {"type": "string", "description": "File that holds the value, relative to this one."},
        },
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
    },
}  # fmt: skip


def schema(registry: Registry | None = None) -> Schema:
    """
    The schema of a configuration file.

    Args:
        registry: Whose components to include; those installed if absent. What cannot be loaded is left out.
    """
    registry = Registry() if registry is None else registry
    definitions: Schema = {}
    classes: dict[ComponentKind, dict[str, type[Component]]] = {kind: {} for kind in ComponentKind}
    for row in registry.rows():
        if row.cls is not None:
            classes[row.kind][row.name] = row.cls
            definitions[f"{row.kind}.{row.name}"] = _component(row.kind, row.cls)
    definitions["stage"] = _stage(classes[ComponentKind.MIDDLEWARE])
    definitions["chain"] = {"type": "array", "items": {"$ref": "#/$defs/stage"}, "description": CHAIN_DOC}
    for kind in COMPONENT_KEYS:
        definitions[kind.value] = _declared(kind, list(classes[kind]))
    definitions["pipeline"] = _pipeline()
    definitions["run"] = _group(Run)
    definitions |= case_schemas()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sluiceway configuration",
        "type": "object",
        "properties": _top(),
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
        "required": ["version"],
        "anyOf": [{"required": ["pipelines"]}, {"required": ["include"]}],
        "$defs": definitions,
    }


def suite_schema() -> Schema:
    """The schema of a file of tests, `<name>_test.yaml`."""
    keys = _object(options_of(SuiteKeys))
    properties = {
        "version": {"const": VERSION},
        **keys["properties"],
        "tests": {"description": TOP_KEYS["tests"], **TESTS},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tests of a Sluiceway configuration",
        "type": "object",
        "properties": properties,
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
        "required": ["tests"],
        "$defs": case_schemas(),
    }


def case_schemas() -> Schema:
    """
    The schema of one test, `test`, and those of its parts that stand in several places, by name.

    Wherever a value is expected, a blank of the test's table may stand (`<name>`).
    """
    parts = {cls: _with_blanks(_group(cls)) for cls in PARTS}
    names = {json.dumps(part): f"test.{cls.__name__.lower()}" for cls, part in parts.items()}

    def shared(schema: Any, *, whole: bool = False) -> Any:
        if isinstance(schema, list):
            return [shared(each) for each in schema]
        if not isinstance(schema, dict):
            return schema
        name = None if whole or "properties" not in schema else names.get(json.dumps(schema))
        return {"$ref": f"#/$defs/{name}"} if name else {key: shared(value) for key, value in schema.items()}

    definitions = {names[json.dumps(part)]: shared(part, whole=True) for part in parts.values()}
    return {"test": shared(_with_blanks(_group(Case))), **definitions}


def _with_blanks(schema: Any) -> Any:
    """The same schema, in which a blank is allowed wherever text with a variable is, and for lists and mappings."""
    if isinstance(schema, list):
        return [_or_blank(_with_blanks(each)) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result: Schema = {}
    for key, value in schema.items():
        if key == "pattern" and value == _VARIABLE["pattern"]:
            result[key] = _BLANK
        elif key == "properties":
            result[key] = {name: _or_blank(_with_blanks(each)) for name, each in value.items()}
        elif key in ("additionalProperties", "items") and isinstance(value, dict):
            result[key] = _or_blank(_with_blanks(value))
        elif key in ("examples", "default", "enum"):
            result[key] = value
        else:
            result[key] = _with_blanks(value)
    return result


def _or_blank(schema: Any) -> Any:
    """A list or mapping, or the blank that becomes one."""
    if not isinstance(schema, dict) or schema.get("type") not in ("object", "array"):
        return schema
    about = {key: schema[key] for key in ("description", "examples", "default") if key in schema}
    inner = {key: value for key, value in schema.items() if key not in about}
    return {**about, "anyOf": [inner, {"type": "string", "pattern": _BLANK}]}


def _top() -> Schema:
    texts = {"type": "array", "items": {"type": "string"}}
    values: Schema = {"version": {"const": VERSION}, "include": texts, "plugins": texts, "run": {"$ref": "#/$defs/run"}}
    sections = {section: kind.value for kind, (section, _) in COMPONENT_KEYS.items()} | {"pipelines": "pipeline"}
    values["tests"] = TESTS
    for section, definition in sections.items():
        values[section] = {"type": "object", "additionalProperties": {"$ref": f"#/$defs/{definition}"}}
    return {key: {"description": doc} | values[key] for key, doc in TOP_KEYS.items()}


def _component(kind: ComponentKind, cls: type[Component]) -> Schema:
    """The options of a component; those of a stage with the keys every stage has."""
    options = options_of(cls.Config)
    result = _object([*options, *(options_of(StageKeys) if kind is ComponentKind.MIDDLEWARE else ())])
    result["type"] = "object" if any(option.required for option in options) else ["object", "null"]
    if summary := summary_of(cls):
        result["description"] = summary
    return result


def _stage(classes: dict[str, type[Component]]) -> Schema:
    """A name alone, if nothing is required, or one name with its options."""
    bare = [name for name, cls in classes.items() if not any(option.required for option in options_of(cls.Config))]
    one_property = [
        {
            "type": "object",
            "properties": {name: {"$ref": f"#/$defs/middleware.{name}"}},
            "required": [name],
            "additionalProperties": False,
        }
        for name in classes
    ]
    one_off = {
        "type": "object",
        "patternProperties": {_ONE_OFF: {"type": ["object", "null"]}},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"anyOf": [{"enum": bare}, *one_property, {"type": "string", "pattern": _ONE_OFF}, one_off]}


def _declared(kind: ComponentKind, names: list[str]) -> Schema:
    """A store, source or sink: its common keys and exactly one key that says what it is."""
    properties = {name: {"$ref": f"#/$defs/{kind}.{name}"} for name in names}
    properties |= {option.name: option_schema(option) for option in options_of(COMPONENT_KEYS[kind][1])}
    if kind is ComponentKind.SINK:
        properties["chain"] = {"$ref": "#/$defs/chain"}
    common = {"enum": list(common_keys(kind))}
    one_off = {
        "propertyNames": {"anyOf": [common, {"pattern": _ONE_OFF}]},
        "not": {"propertyNames": common},
    }
    return {
        "type": "object",
        "properties": properties,
        "patternProperties": {_ONE_OFF: {"type": ["object", "null"]}},
        "additionalProperties": False,
        "oneOf": [*({"required": [name]} for name in names), one_off],
    }


def _pipeline() -> Schema:
    result = _object([*options_of(PipelineKeys), *options_of(Limits)])
    result["properties"]["chain"] = {"$ref": "#/$defs/chain"}
    return result


def _group(cls: type) -> Schema:
    result = _object(options_of(cls))
    if cls is When:  # takes one pattern for a list of one
        for name, property_ in result["properties"].items():
            result["properties"][name] = {
                **{key: value for key, value in property_.items() if key in ("description", "examples")},
                "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            }
    return result


def _object(options: Any) -> Schema:
    options = list(options)
    result: Schema = {
        "type": "object",
        "properties": {option.name: option_schema(option) for option in options},
        "additionalProperties": False,
    }
    required = [option.name for option in options if option.required]
    return result | ({"required": required} if required else {})


def option_schema(option: Option) -> Schema:
    """The schema of one option: its values, and everything its declaration says about it."""
    result = {"description": option.info.doc, **_values(option.shape, option)}
    if option.info.example is not None:
        result["examples"] = [option.info.example]
    if not option.required and option.default is not None:
        result["default"] = to_data(option.default, option.shape)
    if option.info.deprecated:
        result["deprecated"] = True
        result["description"] += f" Deprecated: use {option.info.deprecated}."
    return result


def _values(shape: Shape, option: Option) -> Schema:
    match shape:
        case Atom():
            return _atom(shape, option)
        case Choice():
            texts = [value for value in shape.values if isinstance(value, str)]
            return {"anyOf": [{"enum": list(shape.values)}, _VARIABLE]} if texts else {"enum": list(shape.values)}
        case ListOf():
            return {"type": "array", "items": _values(shape.item, option)}
        case MapOf():
            return {"type": "object", "additionalProperties": _values(shape.value, option)}
        case Group():
            return _group(shape.cls)
        case OneOf():
            return {"anyOf": [_values(each, option) for each in shape.shapes]}


def _atom(shape: Atom, option: Option) -> Schema:
    if shape.type in _PATTERNS and shape.type is not Ratio:
        return {"type": "string", "anyOf": [{"pattern": _PATTERNS[shape.type]}, {"pattern": _VARIABLE["pattern"]}]}
    result = _ATOMS[shape.type]
    if shape in (ATOMS[int], ATOMS[float]):
        info = option.info
        bounds = {"minimum": info.ge, "exclusiveMinimum": info.gt, "maximum": info.le}
        number = result["anyOf"][0] | {key: value for key, value in bounds.items() if value is not None}
        return {"anyOf": [number, _VARIABLE]}
    return dict(result) if shape != NULL else {"type": "null"}


def summary_of(cls: type) -> str:
    """The first paragraph of a class's own docstring, on one line."""
    doc = inspect.cleandoc(cls.__doc__ or "")
    return " ".join(doc.split("\n\n", 1)[0].split())
