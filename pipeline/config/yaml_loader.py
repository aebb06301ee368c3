"""
YAML text to a tree with places: YAML 1.2 core scalars, anchors, aliases and merge keys; nothing else.

PyYAML's C parser yields events; the tree is built here rather than by PyYAML's composer, which recurses in C without
a limit (a file of opening brackets takes seconds, then the process), resolves scalars by YAML 1.1 (`no` is false,
`1:30` is 90), keeps the last of duplicate keys silently, and cannot tell an explicit tag from an implicit one.

Bounds: `MAX_DEPTH` levels, and `MAX_NODES` nodes after every alias is expanded. Aliases share the
node they name, so an alias bomb costs what was written, and is refused when its expanded size passes the limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import yaml
from attrs import define, field

from .nodes import BROKEN, MAX_DEPTH, Entry, Mapping, Node, Scalar, Sequence
from .problems import Problem, SourceText, Span
from .scalars import resolve_scalar

MAX_NODES: Final = 100_000
"""Most keys and values in one file, aliases expanded."""

_CONTROL: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What YAML 1.2 does not allow unescaped (section 5.1); terminal controls among them."""
_CORE: Final = "tag:yaml.org,2002:"


class _Refused(Exception):
    """Reading cannot go on; `problem` says why."""

    def __init__(
        self, rule: str, message: str, span: Span, *, fix: str = "", others: tuple[tuple[str, Span], ...] = ()
    ) -> None:
        super().__init__(message)
        self.problem = Problem(rule=rule, message=message, span=span, fix=fix, others=others)


@define(eq=False)
class _Builder:
    """Builds one document from events. Goes on after what does not confuse it, to report everything at once."""

    source: SourceText
    events: Iterator[yaml.Event]
    problems: list[Problem] = field(factory=list)
    anchors: dict[str, tuple[Node, int]] = field(factory=dict)
    open_anchors: dict[str, Span] = field(factory=dict)
    nodes: int = 0

    def span(self, event: yaml.Event) -> Span:
        mark = event.start_mark
        assert mark is not None  # the parser marks every event
        return Span(self.source, mark.line + 1, mark.column + 1)

    def report(
        self, rule: str, message: str, span: Span, *, fix: str = "", others: tuple[tuple[str, Span], ...] = ()
    ) -> None:
        self.problems.append(Problem(rule=rule, message=message, span=span, fix=fix, others=others))

    def count(self, nodes: int, span: Span) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise _Refused("yaml/size", f"more than {MAX_NODES:,} keys and values once aliases are expanded", span,
                           fix="split the configuration with include, or use fewer aliases")  # fmt: skip

    def node(self, event: yaml.Event, depth: int) -> Node:
        span = self.span(event)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(str(event.anchor), span)
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)  # a node starts with nothing else
        before = self.nodes
        self.count(1, span)
        if depth > MAX_DEPTH:
            raise _Refused("yaml/size", f"nested deeper than {MAX_DEPTH} levels", span)
        anchor = event.anchor
        if anchor is not None:
            self.open_anchors[anchor] = span
            self.anchors.pop(anchor, None)
        node = self.content(event, span, depth)
        if anchor is not None:
            self.open_anchors.pop(anchor, None)
            self.anchors[anchor] = node, self.nodes - before
        return node

    def content(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, span: Span, depth: int) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, span)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(following := next(self.events), yaml.SequenceEndEvent):
                items.append(self.node(following, depth + 1))
            return self.checked(Sequence(tuple(items), span), event.tag, "seq")
        assert isinstance(event, yaml.MappingStartEvent)
        return self.checked(self.mapping(span, depth), event.tag, "map")

    def alias(self, anchor: str, span: Span) -> Node:
        if anchor in self.open_anchors:
            raise _Refused("yaml/alias", f"alias *{anchor} is inside its own anchor", span,
                           others=(("anchor", self.open_anchors[anchor]),))  # fmt: skip
        if anchor not in self.anchors:
            known = ", ".join(self.anchors) or "none"
            raise _Refused(
                "yaml/alias", f"alias *{anchor} has no anchor &{anchor} before it (anchors so far: {known})", span
            )
        node, size = self.anchors[anchor]
        self.count(size, span)
        return node

    def checked(self, node: Node, tag: str | None, kind: str) -> Node:
        """The node, unless it has another tag than the one that says what it is anyway."""
        if tag is None or tag in ("!", _CORE + kind):
            return node
        shown = "!!" + tag.removeprefix(_CORE) if tag.startswith(_CORE) else tag
        self.report(
            "yaml/tag", f"tag {shown} is not allowed", node.span, fix="remove the tag; a configuration is plain data"
        )
        return Scalar(BROKEN, node.span)

    def scalar(self, event: yaml.ScalarEvent, span: Span) -> Node:
        tag = event.tag
        if tag is None:
            if not event.implicit[0]:
                return Scalar(event.value, span)
        elif tag in ("!", f"{_CORE}str"):
            return Scalar(event.value, span)
        try:
            value = resolve_scalar(event.value)
        except ValueError as error:
            self.report("yaml/number", str(error), span, fix="quote it if it is text")
            return Scalar(BROKEN, span)
        kind = {bool: "bool", int: "int", float: "float", type(None): "null"}.get(type(value), "str")
        return self.checked(Scalar(value, span), tag, kind)

    def mapping(self, span: Span, depth: int) -> Mapping:
        own: dict[str, Entry] = {}
        merged: list[Mapping] = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            place = self.span(event)
            merge = isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]
            key = self.key(event, depth)
            value = self.node(next(self.events), depth + 1)
            if merge:
                merged += self.merge_sources(value, place)
            elif key is not None and key in own:
                first = ("first", own[key].key)
                self.report("yaml/duplicate-key", f"key {key!r} is given twice", place, others=(first,),
                            fix="remove one of them")  # fmt: skip
            elif key is not None:
                own[key] = Entry(place, value)
        entries = dict(own)
        for source in merged:
            for name, entry in source.entries.items():
                entries.setdefault(name, entry)
        return Mapping(entries, span)

    def key(self, event: yaml.Event, depth: int) -> str | None:
        node = self.node(event, depth + 1)
        if isinstance(event, yaml.ScalarEvent):
            return event.value
        if isinstance(node, Scalar) and isinstance(node.value, str):
            return node.value
        self.report("yaml/key", "a key must be text, not a list or a mapping", self.span(event))
        return None

    def merge_sources(self, value: Node, place: Span) -> list[Mapping]:
        sources = value.items if isinstance(value, Sequence) else (value,)
        mappings = [source for source in sources if isinstance(source, Mapping)]
        if len(mappings) < len(sources):
            self.report("yaml/merge", "<< merges a mapping, or a list of mappings, into this one", place)
        return mappings


def load_yaml(text: str, source: SourceText) -> tuple[Node | None, list[Problem]]:
    """
    Read one YAML document.

    Returns:
        The tree (None if the text is not YAML at all), and what is wrong with it.
    """
    if (control := _CONTROL.search(text)) is not None:
        line = text.count("\n", 0, control.start()) + 1
        span = Span(source, line, control.start() - text.rfind("\n", 0, control.start()))
        message = f"character U+{ord(control[0]):04X} is not allowed"
        return None, [
            Problem(
                rule="yaml/syntax",
                message=message,
                span=span,
                fix=f'write it as "\\u{ord(control[0]):04X}" in double quotes',
            )
        ]
    builder = _Builder(source, yaml.parse(text, Loader=yaml.CSafeLoader))
    root: Node | None = None
    try:
        for event in builder.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise _Refused("yaml/documents", "more than one document in the file", builder.span(event),
                                   fix="split it into files and name them under include")  # fmt: skip
                root = builder.node(next(builder.events), 0)
    except _Refused as refused:
        return None, [*builder.problems, refused.problem]
    except yaml.MarkedYAMLError as error:
        return None, [*builder.problems, _syntax_problem(error, source)]
    return (Mapping({}, Span(source)) if root is None else root), builder.problems


def _syntax_problem(error: yaml.MarkedYAMLError, source: SourceText) -> Problem:
    mark = error.problem_mark or error.context_mark
    span = Span(source, mark.line + 1, mark.column + 1) if mark is not None else Span(source)
    context = f" ({error.context})" if error.context else ""
    line = source.lines[span.line - 1] if 0 < span.line <= len(source.lines) else ""
    fix = 'quote it: "${NAME}"; inside [] and {} a brace ends the value' if "${" in line else ""
    return Problem(rule="yaml/syntax", message=f"not YAML: {error.problem}{context}", span=span, fix=fix)
