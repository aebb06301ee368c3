"""Options of `access`, and what can be wrong with them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, Literal, final

from attrs import frozen

from sluiceway.pipeline.model.options import MINUTE, Duration, Rate, option

from .arguments import Condition, texts
from .capability import parse_capability

Action = Literal["call", "get", "read", "subscribe", "*"]
"""What is done with a tool or a method (`call`), a prompt (`get`), a resource (`read`, `subscribe`)."""

_OF_ALLOW: Final = ("scopes", "rate", "burst")


@final
@frozen(kw_only=True)
class Rule:
    """Who may do what, or may not."""

    id: str | None = option(
        None, doc="What decisions, logs and `why` call the rule; `rules[0]` and so on by default.", example="readers"
    )
    subject: str | tuple[str, ...] = option(
        (),
        doc="Subjects it is about, as globs. A glob with a star is about authenticated callers only, `anonymous` about "
        "the others. Of `subject`, `tenant` and `role` all that are given must match; a rule with none of them is "
        "about everybody.",
        example="ci-*",
    )
    tenant: str | tuple[str, ...] = option((), doc="Tenants it is about, as globs.", example="acme")
    role: str | tuple[str, ...] = option((), doc="Roles it is about, one of which the caller has.", example="editor")
    scopes: str | tuple[str, ...] = option(
        (),
        doc="Scopes that the caller's credential must all have. Where nothing else is missing, the refusal names them, "
        "and the client can ask for them (403 `insufficient_scope`).",
        example="files:write",
    )
    allow: str | tuple[str, ...] = option(
        (),
        doc="What may be done: globs over names, with `tools:`, `prompts:`, `resources:` or `methods:` before them to "
        "mean only these.",
        example=["tools:db_*", "resources:file:///srv/*"],
    )
    deny: str | tuple[str, ...] = option(
        (), doc="What may not be done, whatever other rules allow. Instead of `allow`.", example=["tools:*_admin"]
    )
    actions: tuple[Action, ...] = option(
        ("*",),
        doc="What it is about: `call` (tools, methods), `get` (prompts), `read` and `subscribe` (resources), or all.",
        example=["read"],
    )
    arguments: Mapping[str, Condition] = option(
        factory=dict,
        doc="Tests of the arguments of tools and prompts, by name; a name that begins with `/` is a JSON Pointer. All "
        "must hold. A rule with tests is about nothing but tools and prompts.",
        example={"path": {"under": "/srv"}, "amount": {"le": 100}},
    )
    valid_until: str | int | None = option(
        None,
        doc="When the rule ends: a date with a time zone, or milliseconds since 1970.",
        example="2027-01-01T00:00:00Z",
    )
    rate: Rate | None = option(
        None, doc="How often each caller may make use of the rule; lists are free.", example="100/min"
    )
    burst: int | None = option(
        None, ge=1, doc="Uses at once, before `rate` slows them; the count of `rate` by default.", example=10
    )

    def __attrs_post_init__(self) -> None:
        if bool(self.allow) is bool(self.deny):
            raise ValueError("a rule has either allow or deny; make two rules of it")
        given = [name for name in _OF_ALLOW if getattr(self, name)]
        if self.deny and given:
            raise ValueError(f"{given[0]}: goes with allow, not with deny")
        if self.burst is not None and self.rate is None:
            raise ValueError("burst: goes with rate")
        for capability in (*texts(self.allow), *texts(self.deny)):
            parse_capability(capability)
        for name, values in (("role", self.role), ("scopes", self.scopes)):
            starred = [value for value in texts(values) if "*" in value]
            if starred:
                raise ValueError(f"{name}: {starred[0]!r} is taken as it stands; a {name.rstrip('s')} is no glob")
        self.ends_at()

    def ends_at(self) -> float | None:
        """
        The end of the rule in seconds since 1970, or None.

        Raises:
            ValueError: `valid_until` is no date, or has no time zone.
        """
        if self.valid_until is None:
            return None
        if isinstance(self.valid_until, int):
            return self.valid_until / 1000
        try:
            ends = datetime.fromisoformat(self.valid_until)
        except ValueError as error:
            raise ValueError(f"valid_until: {self.valid_until!r} is no date such as 2027-01-01T00:00:00Z") from error
        if ends.tzinfo is None:
            raise ValueError(f"valid_until: {self.valid_until!r} has no time zone; write {self.valid_until}Z for UTC")
        return ends.timestamp()


@final
@frozen(kw_only=True)
class AccessConfig:
    """Options of `access`."""

    rules: tuple[Rule, ...] = option(
        (),
        doc="Who may do what. What no rule allows is refused; what one denies is refused even if another allows it.",
        example=[{"role": "reader", "allow": ["tools:search", "resources:docs://*"]}],
    )
    roles: Mapping[str, tuple[str, ...]] = option(
        factory=dict, doc="Roles that a role includes, and those that they include.", example={"editor": ["reader"]}
    )
    scopes: Mapping[str, tuple[str, ...]] = option(
        factory=dict,
        doc="Scopes that a scope includes, and those that they include.",
        example={"files": ["files:read", "files:write"]},
    )
    scope_prefix: str | None = option(
        None,
        doc="Scopes that begin like this allow what follows, as `allow` does: with `may:`, the scope "
        "`may:tools:db_*` of a token allows these tools. Rules that deny win.",
        example="may:",
    )
    max_callers: int = option(
        1000, ge=1, doc="Callers whose rules are kept ready; for others they are looked through again."
    )
    max_keys: int = option(
        10_000,
        ge=1,
        doc="Callers for whom the uses of one rule with a `rate` are counted. When all of them have used it lately, "
        "a new one is refused.",
    )
    max_tasks: int = option(10_000, ge=1, doc="Tasks whose owner is kept; the oldest are forgotten first.")
    task_age: Duration = option(
        Duration(1440 * MINUTE),
        gt=0,
        doc="Time after which the owner of a task is forgotten, and nobody can ask for it.",
    )
    store: str | None = option(
        None,
        doc="Where the owners of tasks are kept as well, so that they outlive a reload and all who share it know them.",
        example="state",
    )

    def __attrs_post_init__(self) -> None:
        if self.scope_prefix == "":
            raise ValueError("scope_prefix: must not be empty, or every scope would be a capability")
        named = [rule.id for rule in self.rules if rule.id is not None]
        twice = {name for name in named if named.count(name) > 1}
        if twice:
            raise ValueError(f"rules: two have the id {min(twice)!r}")


def closure(given: Iterable[str], includes: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    """What is given, with everything it includes."""
    found: set[str] = set()
    waiting = list(given)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += includes.get(name, ())
    return frozenset(found)
