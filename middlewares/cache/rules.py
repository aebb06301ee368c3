"""
What may be kept, for how long, and for whom. Pure.

Two sources of truth. Since 2026-07-28 the upstream says it itself (`ttlMs`, `cacheScope`; server/utilities/caching):
what the configuration says can only make it less. For everything that says nothing, and for tools, only what the
operator wrote down counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, final

from attrs import frozen

from sluiceway.pipeline.model.options import DAY, MINUTE, Duration, option
from sluiceway.pipeline.model.when import matcher
from sluiceway.pipeline.protocol.mcp import METHODS, ErrorCode
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Reply

Keepable = Literal[
    "tools/call",
    "tools/list",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "completion/complete",
    "server/discover",
]
"""Methods whose answers a rule can have kept."""

HINTED: Final = frozenset(name for name, row in METHODS.items() if row.cacheable)
"""Methods whose results say themselves how long they are good."""
STABLE_ERRORS: Final = frozenset({ErrorCode.METHOD_NOT_FOUND, ErrorCode.INVALID_PARAMS, ErrorCode.RESOURCE_NOT_FOUND})
"""Errors that the same request meets again; everything else may be over in a moment."""
LONGEST_TTL_S: Final = DAY
"""However long an upstream says that something is good; the bound that clients use, too."""


@final
@frozen(kw_only=True)
class Rule:
    """One rule: which answers it is about, and how long they are kept."""

    method: tuple[Keepable, ...] = option(doc="Methods it is about.", example=["tools/list", "prompts/list"])
    name: tuple[str, ...] = option(
        (),
        doc="Tools, prompts or uris it is about, as globs; all when absent. Of `tools/call` without names, the tools "
        "that say they only read, if `trust_hints` believes them.",
        example=["docs_*"],
    )
    ttl: Duration = option(Duration(5 * MINUTE), gt=0, le=DAY, doc="How long an answer is fresh; at most what it says.")
    scope: Literal["private", "public"] | None = option(
        None,
        doc="Who may share an answer: its caller only, or everybody of the tenant. An answer with a `ttlMs` that says "
        "`private` stays so. When absent: what the answer says, if `trust_public`, else `private`.",
        example="public",
    )
    stale_while_revalidate: Duration | None = option(
        None, ge=0, le=DAY, doc="As the option of the stage, for these.", example="1m"
    )
    stale_if_error: Duration | None = option(
        None, ge=0, le=DAY, doc="As the option of the stage, for these.", example="1h"
    )


@final
@frozen
class Terms:
    """How one answer is kept."""

    ttl_s: float
    is_public: bool
    has_hints: bool
    stale_s: float = 0.0
    """Seconds it may be given out after that while it is refreshed."""
    error_s: float = 0.0
    """Seconds it may be given out after that when the upstream fails."""


@final
class Policy:
    """
    The rules of one stage.

    Args:
        rules: In the order of the configuration; the first that matches counts.
        max_ttl_s: Longest time anything is fresh.
        trust_public: Believe upstreams that say `public`.
        stale_s: Seconds for `stale_while_revalidate`.
        error_s: Seconds for `stale_if_error`.
        negative_s: Seconds that stable errors are kept; 0 for not at all.
        tool_errors: Keep results with `isError` like stable errors.
    """

    def __init__(
        self,
        rules: tuple[Rule, ...],
        *,
        max_ttl_s: float,
        trust_public: bool,
        stale_s: float,
        error_s: float,
        negative_s: float,
        tool_errors: bool,
    ) -> None:
        self._rules: dict[str, list[tuple[Callable[[str], bool] | None, Rule]]] = {}
        for rule in rules:
            for method in rule.method:
                self._rules.setdefault(method, []).append((matcher(rule.name) if rule.name else None, rule))
        self._max_ttl_s = min(max_ttl_s, LONGEST_TTL_S)
        self._trust_public = trust_public
        self._stale_s = stale_s
        self._error_s = error_s
        self._negative_s = negative_s
        self._tool_errors = tool_errors
        self.methods = HINTED | self._rules.keys()
        """Methods any of whose answers may be kept."""
        self.shares = trust_public or any(rule.scope == "public" for rule in rules)
        """Whether there can be public answers."""

    def rule_for(self, method: str, target: str | None, only_reads: Callable[[], bool]) -> Rule | None:
        """
        The rule for a request; None without one.

        Args:
            method: Its method.
            target: Its target.
            only_reads: Whether it calls a tool of a trusted upstream that says it only reads.
        """
        for matches, rule in self._rules.get(method, ()):
            if matches is not None:
                if matches(target or ""):
                    return rule
            elif method != "tools/call" or only_reads():
                return rule
        return None

    def terms_for_error(self, error: ErrorReply) -> Terms | None:
        """How an error is kept; None for not at all."""
        if not self._negative_s or error.code not in STABLE_ERRORS:
            return None
        return Terms(self._negative_s, is_public=False, has_hints=False)

    def terms_for(self, method: str, value: Mapping[str, Json], rule: Rule | None) -> Terms | None:
        """
        How a result is kept; None for not at all.

        Without a positive `ttlMs` only a rule counts, and `cacheScope` says nothing: zero and `private` are also what
        is put in for upstreams that know of neither.
        """
        if value.get("resultType", "complete") != "complete":
            return None
        if value.get("isError") is True:
            may = self._tool_errors and self._negative_s > 0 and rule is not None
            return Terms(self._negative_s, is_public=False, has_hints=False) if may else None
        hint = value.get("ttlMs") if method in HINTED else None
        hint_ms = hint if isinstance(hint, int | float) and not isinstance(hint, bool) else None
        said = None
        if hint_ms is not None and hint_ms > 0:
            ttl_s = hint_ms / 1000 if rule is None else min(hint_ms / 1000, rule.ttl)
            said = value.get("cacheScope")
        elif rule is not None:
            ttl_s = rule.ttl
        else:
            return None
        stale_s, error_s = self._stale_s, self._error_s
        if rule is not None and rule.stale_while_revalidate is not None:
            stale_s = rule.stale_while_revalidate
        if rule is not None and rule.stale_if_error is not None:
            error_s = rule.stale_if_error
        return Terms(min(ttl_s, self._max_ttl_s), self._is_public(said, rule), hint_ms is not None, stale_s, error_s)

    def _is_public(self, said: Json, rule: Rule | None) -> bool:
        if rule is not None and rule.scope is not None:
            return rule.scope == "public" and said != "private"
        return self._trust_public and said == "public"


def is_bad_cursor(method: str, params: Mapping[str, Json], reply: Reply) -> bool:
    """Whether an upstream no longer knows a cursor: then all pages of the list are void (2026-07-28, caching)."""
    return (
        isinstance(reply, ErrorReply)
        and reply.code == ErrorCode.INVALID_PARAMS
        and params.get("cursor") is not None
        and method in HINTED
    )
