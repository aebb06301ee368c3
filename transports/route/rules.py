"""
Rules that say which upstream gets what MCP's own tables do not decide: methods of vendors, certain names and uris.

The patterns are those of an embedded server's methods: the most specific wins, and two that are equally specific and
could match the same text are refused when the configuration is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Final, Literal, final

from attrs import frozen

from sluiceway.pipeline.model.options import option
from sluiceway.pipeline.protocol.mcp import METHODS

from ..patterns import Pattern, PatternKind

_KINDS: Final[tuple[PatternKind, ...]] = ("exact", "glob", "prefix", "regex")
Subject = Literal["method", "name"]


@final
@frozen(kw_only=True)
class Rule:
    """One rule: exactly one of `exact`, `glob`, `prefix` and `regex`."""

    to: str = option(doc="Id of the sink, one of the route's own `to`.", example="search", refers="sink")
    of: Subject = option(
        "method", doc="What is matched: a method that MCP does not define; or the name or uri a request is about."
    )
    exact: str | None = option(None, doc="Matches only itself.", example="acme/status")
    glob: str | None = option(None, doc="`*` is any text, `?` any character.", example="file:///srv/*")
    prefix: str | None = option(None, doc="Matches what begins with it.", example="acme/")
    regex: str | None = option(
        None, doc="A regular expression, matched from the start; keep it simple, clients choose the text.",
        example="^api/v\\d+/",
    )  # fmt: skip

    def __attrs_post_init__(self) -> None:
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"a rule has exactly one of {', '.join(_KINDS)}; found {', '.join(given) or 'none'}")
        if self.of == "method" and self.exact in METHODS:
            raise ValueError(f"{self.exact} is MCP's own method: it goes where its name, uri or cursor says")
        if self.exact is not None and "*" in self.exact:
            raise ValueError(f"exact: {self.exact!r} matches only a star itself; write glob if it means any text")
        self.pattern()

    def pattern(self) -> Pattern:
        """
        The compiled pattern.

        Raises:
            ValueError: The regular expression does not compile.
        """
        patterns = [Pattern(text, kind) for kind in _KINDS if (text := getattr(self, kind)) is not None]
        return patterns[0]


def check_rules(rules: Iterable[Rule]) -> None:
    """
    Refuse rules whose order would matter.

    Raises:
        ValueError: Two could match the same text and are equally specific.
    """
    for one, other in combinations(rules, 2):
        first, second = one.pattern(), other.pattern()
        if one.of == other.of and first.specificity == second.specificity and first.overlaps(second):
            raise ValueError(
                f"rules: {first.text!r} ({first.kind}) and {second.text!r} ({second.kind}) are equally specific and "
                "could match the same; make one of them longer"
            )


def compile_rules(rules: Iterable[Rule], of: Subject) -> Callable[[str], str | None]:
    """A function from a method or name to the id of the sink that its most specific rule names, or None."""
    ordered = [(rule.pattern(), rule.to) for rule in rules if rule.of == of]
    ordered.sort(key=lambda each: each[0].specificity, reverse=True)
    if not ordered:
        return lambda _text: None
    return lambda text: next((to for pattern, to in ordered if pattern.matches(text)), None)
