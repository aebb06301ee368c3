"""Options of the `route` sink, and what can be wrong with them together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Final, Literal, final

from attrs import frozen

from sluiceway.pipeline.model.options import SECOND, Duration, Secret, option

from .naming import fold_name
from .rules import Rule, check_rules

_PART: Final = re.compile(r"[A-Za-z0-9_.-]*")
"""What prefixes and separators are made of: the characters of tool names (MCP 2025-11-25, server/tools)."""
MAX_PREFIX: Final = 64
"""Characters of a prefix and its separator; the other half of the 128 that a tool name may have is the tool's."""


@final
@frozen(kw_only=True)
class Names:
    """Which names of an upstream clients see, and under which other names."""

    allow: tuple[str, ...] = option(("*",), doc="Names that are shown and may be used, as globs.", example=["read_*"])
    deny: tuple[str, ...] = option((), doc="Names that are not, although allowed; as globs.", example=["*_admin"])
    rename: Mapping[str, str] = option(
        factory=dict, doc="Other names, by the upstream's own; a prefix comes before them.", example={"read": "open"}
    )

    def __attrs_post_init__(self) -> None:
        folded: dict[str, str] = {}
        for old, new in self.rename.items():
            twin = folded.setdefault(fold_name(new), old)
            if twin != old:
                raise ValueError(f"rename: {twin!r} and {old!r} both become {new!r}")


@final
@frozen(kw_only=True)
class Uris:
    """Which resources of an upstream clients see."""

    allow: tuple[str, ...] = option(
        ("*",), doc="Uris and uri templates that are listed and may be read, as globs.", example=["file:///srv/*"]
    )
    deny: tuple[str, ...] = option((), doc="Those that are not, although allowed; as globs.", example=["*.key"])


@final
@frozen(kw_only=True)
class Member:
    """How one upstream appears to clients."""

    prefix: str | None = option(
        None, doc="What its names begin with; its id when absent, nothing when empty.", example="docs"
    )
    tools: Names = option(factory=Names, doc="Its tools.", example={"deny": ["delete_*"]})
    prompts: Names = option(factory=Names, doc="Its prompts.", example={"allow": ["review"]})
    resources: Uris = option(factory=Uris, doc="Its resources.", example={"deny": ["*.key"]})


@final
@frozen(kw_only=True)
class RouteConfig:
    """Options of the sink."""

    to: tuple[str, ...] | Mapping[str, Member] = option(
        doc="Ids of the sinks to send to, in the order in which lists show them; or a mapping with settings for each.",
        example=["files", "search"],
        refers="sink",
    )
    separator: str = option(".", doc="Stands between a prefix and a name: `files.read`.", example="__")
    prefixes: Literal["always", "never"] = option(
        "always", doc="Whether names of tools and prompts get their upstream's prefix."
    )
    collisions: Literal["error", "first", "prefix"] = option(
        "error",
        doc="What a name or uri means that two upstreams share: nothing, and its use is an error that names both; that "
        "of the upstream which stands first in `to`; or each its own, with a prefix (uris: the first).",
    )
    list_timeout: Duration = option(
        Duration(5 * SECOND), gt=0,
        doc="Time that lists, handshakes and subscriptions wait for each upstream before they go on without it. Who is "
        "missing stands in the result's `_meta`; clients are told when it arrives.",
    )  # fmt: skip
    rules: tuple[Rule, ...] = option(
        (),
        doc="Which upstream gets methods that MCP does not define, or certain names and uris. The most specific "
        "matches: exact, then more literal characters, then glob, prefix, regex.",
        example=[{"prefix": "acme/", "to": "search"}],
    )
    cursor_key: Secret | None = option(
        None,
        doc="Key that authenticates cursors and ids of tasks; needed where several processes serve the same clients. "
        "Without it cursors have a random key at each start, and ids of tasks none.",
        example={"from_env": "SLUICEWAY_CURSOR_KEY"},
    )

    def __attrs_post_init__(self) -> None:
        if not self.to:
            raise ValueError("to: names no sink; name at least one")
        members = self.members()
        if len(members) != len(self.to):
            raise ValueError("to: names a sink twice")
        if not (self.separator and len(self.separator) <= 8 and _PART.fullmatch(self.separator)):
            raise ValueError("separator: must be 1 to 8 of the characters A-Z a-z 0-9 _ . -, as in names of tools")
        for sink_id, prefix in self.named_prefixes():
            if not _PART.fullmatch(prefix) or len(prefix) + len(self.separator) > MAX_PREFIX:
                raise ValueError(
                    f"prefix {prefix!r} of {sink_id}: with the separator at most {MAX_PREFIX} of the characters "
                    "A-Z a-z 0-9 _ . -, as in names of tools"
                )
        self._check_prefixes()
        for rule in self.rules:
            if rule.to not in members:
                raise ValueError(f"rules: {rule.to!r} is not one of `to`: {', '.join(members)}")
        check_rules(self.rules)

    def members(self) -> dict[str, Member]:
        """The upstreams by id, in order."""
        return dict(self.to) if isinstance(self.to, Mapping) else {sink_id: Member() for sink_id in self.to}

    def named_prefixes(self) -> Iterator[tuple[str, str]]:
        """Every upstream's prefix, those that `prefixes: never` hides included, without separator."""
        for sink_id, member in self.members().items():
            yield sink_id, sink_id if member.prefix is None else member.prefix

    def _check_prefixes(self) -> None:
        """No name may have two readings."""
        given = [(sink_id, fold_name(prefix + self.separator)) for sink_id, prefix in self.named_prefixes() if prefix]
        for (one, first), (other, second) in combinations(given, 2):
            if first.startswith(second) or second.startswith(first):
                raise ValueError(f"the prefixes of {one} and {other} cannot be told apart; give one another prefix")
