"""
Components and their options in words: for `explain NAME`, and for the reference, which is generated.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator

from ..model.component import Component, ComponentKind, Middleware
from ..model.document import Limits, Run
from ..model.registry import Registry
from .declarations import Group, ListOf, MapOf, OneOf, Option, Shape, flow, options_of, to_data, words
from .keys import CHAIN_DOC, COMPONENT_KEYS, TOP_KEYS, PipelineKeys, StageKeys

_HEADINGS = {
    ComponentKind.SOURCE: "Sources",
    ComponentKind.MIDDLEWARE: "Stages",
    ComponentKind.SINK: "Sinks",
    ComponentKind.STORE: "Stores",
}


def describe(cls: type[Component]) -> str:
    """A component as text for a terminal: what it does, its options, its order rules. Ends in a newline."""
    lines = [f"{cls.name} ({cls.kind})", "", *_doc(cls), "", "options:", *_text_options(options_of(cls.Config), "  ")]
    if rules := list(order_rules(cls)):
        lines += ["", "order:", *(f"  {rule}" for rule in rules)]
    return "\n".join(lines) + "\n"


def _doc(cls: type) -> list[str]:
    """The docstring without its lists of arguments and errors, which are for callers in Python."""
    doc = inspect.cleandoc(cls.__doc__ or "")
    return re.split(r"\n\n(?:Args|Raises):", doc)[0].splitlines()


def _text_options(options: Iterable[Option], indent: str) -> Iterator[str]:
    empty = True
    for option in options:
        empty = False
        yield f"{indent}{option.name}: {words(option.shape)}{_bounds(option)} ({default_text(option)})"
        yield f"{indent}    {option.info.doc}"
        if option.info.example is not None:
            yield f"{indent}    example: {option.name}: {flow(option.info.example)}"
        if option.info.deprecated:
            yield f"{indent}    deprecated: use {option.info.deprecated}"
        for inner in groups_in(option.shape):
            yield from _text_options(options_of(inner), indent + "    ")
    if empty:
        yield f"{indent}none"


def groups_in(shape: Shape) -> Iterator[type]:
    """The attrs classes that values of a shape are made of, one level down."""
    match shape:
        case Group(cls):
            yield cls
        case ListOf():
            yield from groups_in(shape.item)
        case MapOf():
            yield from groups_in(shape.value)
        case OneOf():
            for each in shape.shapes:
                yield from groups_in(each)
        case _:
            return


def default_text(option: Option) -> str:
    """`required`, `optional` or the default as it would be written."""
    if option.required:
        return "required"
    return "optional" if option.default is None else f"default {flow(to_data(option.default, option.shape))}"


def _bounds(option: Option) -> str:
    info = option.info
    bounds = (("at least", info.ge), ("more than", info.gt), ("at most", info.le))
    return "".join(f", {word} {flow(to_data(value, option.shape))}" for word, value in bounds if value is not None)


def order_rules(cls: type[Component]) -> Iterator[str]:
    """What a stage says about its place, with reasons: `after auth (warning): it counts per caller`."""
    for order in cls.order if issubclass(cls, Middleware) else ():
        yield " ".join(filter(None, (order.relation, order.role, f"({order.level}): {order.reason}")))


def describe_markdown(cls: type[Component], heading: str = "###") -> str:
    """A component as Markdown: what it does, a table of its options, its order rules. Ends in a newline."""
    doc = "\n".join(_doc(cls)) or "Not documented."
    parts = [f"{heading} `{cls.name}`", doc, _table(options_of(cls.Config))]
    if rules := list(order_rules(cls)):
        parts.append("Order:\n\n" + "\n".join(f"* {rule}" for rule in rules))
    return "\n\n".join(parts) + "\n"


def _table(options: Iterable[Option]) -> str:
    rows = list(_rows(options, ""))
    if not rows:
        return "No options."
    return "\n".join(["| option | value | default | meaning |", "| --- | --- | --- | --- |", *rows])


def _rows(options: Iterable[Option], prefix: str) -> Iterator[str]:
    for option in options:
        example = f" Example: `{flow(option.info.example)}`." if option.info.example is not None else ""
        deprecated = f" **Deprecated:** use {option.info.deprecated}." if option.info.deprecated else ""
        default = default_text(option).removeprefix("default ")
        shown = default if default in ("required", "optional") else f"`{default}`"
        cells = (
            f"`{prefix}{option.name}`", words(option.shape) + _bounds(option), shown,
            option.info.doc + example + deprecated,
        )  # fmt: skip
        yield "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
        for inner in groups_in(option.shape):
            yield from _rows(options_of(inner), f"{prefix}{option.name}.")


def reference(registry: Registry | None = None) -> str:
    """
    The reference of everything that can be configured, as Markdown: the file's own keys, then each component.

    Args:
        registry: Whose components to describe; those installed if absent. What cannot be loaded is left out.
    """
    registry = Registry() if registry is None else registry
    file_keys = "\n".join(f"| `{key}` | {doc} |" for key, doc in TOP_KEYS.items())
    parts = [
        "# Configuration reference",
        "Generated from the declarations of the components; do not edit.",
        "## The file",
        f"| key | meaning |\n| --- | --- |\n{file_keys}",
        "## `pipelines.<id>`",
        f"`chain`: {CHAIN_DOC}",
        _table([*options_of(PipelineKeys), *options_of(Limits)]),
        "## `run`",
        _table(options_of(Run)),
        "## Every stage",
        "Keys that each stage takes beside its own options.",
        _table(options_of(StageKeys)),
    ]
    rows = [row for row in registry.rows() if row.cls is not None]
    for kind, heading in _HEADINGS.items():
        parts.append(f"## {heading}")
        if kind in COMPONENT_KEYS and options_of(COMPONENT_KEYS[kind][1]):
            section, keys = COMPONENT_KEYS[kind]
            parts += [f"Keys of `{section}.<id>` beside the one that says what it is:", _table(options_of(keys))]
        parts += [describe_markdown(row.cls).rstrip() for row in rows if row.kind is kind and row.cls is not None]
    return "\n\n".join(parts) + "\n"
