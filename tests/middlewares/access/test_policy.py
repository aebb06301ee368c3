"""The decision, as laws: default deny, deny wins, one rule that holds is enough, lists say what calls would."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluiceway.middlewares.access import policy as module
from sluiceway.middlewares.access.arguments import ANY, Condition
from sluiceway.middlewares.access.config import AccessConfig, Rule
from sluiceway.middlewares.access.permit import Reason
from sluiceway.middlewares.access.policy import Policy
from sluiceway.pipeline.model.options import Rate
from sluiceway.pipeline.model.session import ANONYMOUS, Caller

LAW = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Other sessions run on the same machine: how long an example takes says nothing."""

ANA = Caller("ana", "acme", frozenset({"read"}), "bearer", frozenset({"reader"}))

BELOW = {"n": Condition(le=1)}

SUBJECTS = st.sampled_from(["ana", "bob", "anonymous"])
TENANTS = st.sampled_from(["acme", "globex"])
ROLES = st.sampled_from(["reader", "editor", "admin"])
SCOPES = st.sampled_from(["read", "write"])
NAMES = st.sampled_from(["db_read", "db_write", "mail", "docs"])
PATTERNS = st.sampled_from(["*", "db_*", "tools:db_*", "tools:mail", "prompts:docs", "resources:db*", "*a*"])
CALLERS = st.builds(
    Caller,
    SUBJECTS,
    st.none() | TENANTS,
    st.frozensets(SCOPES),
    st.just("bearer"),
    st.frozensets(ROLES),
)
WHO = st.fixed_dictionaries(
    {},
    optional={
        "subject": st.sampled_from(["ana", "b*", "*", "anonymous"]),
        "tenant": TENANTS,
        "role": ROLES,
        "valid_until": st.sampled_from([1000, 3000]),
        "actions": st.sampled_from([("call",), ("read", "get"), ("*",)]),
        "arguments": st.just({"n": Condition(le=5)}),
    },
)
ALLOWING = st.fixed_dictionaries({"allow": PATTERNS}, optional={"scopes": SCOPES, "rate": st.just(Rate(5, 1.0))})
RULES = st.lists(
    st.builds(lambda who, what: Rule(**who, **what), WHO, ALLOWING | st.fixed_dictionaries({"deny": PATTERNS})),
    max_size=8,
)
ASKED = st.tuples(st.sampled_from([("tools", "call"), ("prompts", "get"), ("resources", "read")]), NAMES)
NOW = st.sampled_from([0.5, 2.0, 9.0])
ARGUMENTS = st.sampled_from([ANY, None, {}, {"n": 1}, {"n": 9}, {"n": "1"}, "n"])


def policy_of(*rules: Rule, **options: Any) -> Policy:
    return Policy(AccessConfig(rules=rules, **options))


@LAW
@given(CALLERS, ASKED, NOW, ARGUMENTS)
def test_nothing_is_allowed_without_a_rule(caller: Caller, asked: Any, now: float, arguments: Any) -> None:
    """Default deny."""
    (sort, action), name = asked

    assert not policy_of().why(caller, sort, name, action, now, arguments).allowed


@LAW
@given(RULES, CALLERS, ASKED, NOW)
def test_a_list_shows_what_could_be_called(rules: list[Rule], caller: Caller, asked: Any, now: float) -> None:
    """The same answer for an entry of a list and for a call whose arguments are left out."""
    (sort, action), name = asked
    policy = policy_of(*rules)

    assert policy.why(caller, sort, name, action, now).allowed == policy.standing(caller).shows(sort, name, action, now)


@LAW
@given(RULES, CALLERS, ASKED, NOW, ARGUMENTS)
def test_what_can_be_called_is_shown(rules: list[Rule], caller: Caller, asked: Any, now: float, arguments: Any) -> None:
    """No arguments make a call possible that the list hides."""
    (sort, action), name = asked
    policy = policy_of(*rules)

    if policy.why(caller, sort, name, action, now, arguments).allowed:
        assert policy.standing(caller).shows(sort, name, action, now)


@LAW
@given(RULES, CALLERS, ASKED, NOW, ARGUMENTS)
def test_a_rule_that_denies_wins(rules: list[Rule], caller: Caller, asked: Any, now: float, arguments: Any) -> None:
    """Wherever it stands."""
    (sort, action), name = asked
    policy = policy_of(*rules[:3], Rule(deny=name), *rules[3:])

    verdict = policy.why(caller, sort, name, action, now, arguments)

    assert (verdict.allowed, verdict.reason) == (False, Reason.DENIED)


@LAW
@given(RULES, CALLERS, ASKED, NOW, ARGUMENTS)
def test_more_rules_that_allow_never_take_anything_away(
    rules: list[Rule], caller: Caller, asked: Any, now: float, arguments: Any
) -> None:
    """D-44: one that holds is enough, and the order of rules changes nothing."""
    (sort, action), name = asked
    fewer, more = policy_of(*rules), policy_of(Rule(allow="tools:other", rate=Rate(1, 1.0)), *reversed(rules))
    question = (caller, sort, name, action, now, arguments)

    assert fewer.why(*question).allowed == more.why(*question).allowed


@LAW
@given(RULES, CALLERS, CALLERS, ASKED, NOW, ARGUMENTS)
def test_who_asked_before_changes_nothing(
    rules: list[Rule], caller: Caller, other: Caller, asked: Any, now: float, arguments: Any
) -> None:
    """What is kept for one caller is never another one's: no cross-principal, no cross-tenant leak."""
    (sort, action), name = asked
    used, fresh = policy_of(*rules, max_callers=1), policy_of(*rules)
    for before in (other, evolve(caller, tenant="globex"), evolve(caller, scopes=frozenset(), roles=frozenset())):
        used.why(before, sort, name, action, 0.5, None)
        used.standing(before)

    question = (caller, sort, name, action, now, arguments)
    assert fresh.why(*question).allowed == used.why(*question).allowed
    assert fresh.standing(caller).shows(sort, name, action, now) == used.standing(caller).shows(sort, name, action, now)


@LAW
@given(RULES, CALLERS, ASKED, NOW, ARGUMENTS)
def test_the_scopes_that_would_help_do_help(
    rules: list[Rule], caller: Caller, asked: Any, now: float, arguments: Any
) -> None:
    """Step-up: with what the refusal names, the same request is allowed."""
    (sort, action), name = asked
    policy = policy_of(*rules)
    verdict = policy.why(caller, sort, name, action, now, arguments)

    if verdict.scopes:
        assert not verdict.allowed
        richer = evolve(caller, scopes=caller.scopes | set(verdict.scopes))
        assert policy.why(richer, sort, name, action, now, arguments).allowed


@LAW
@given(RULES, CALLERS, ASKED, NOW, ARGUMENTS)
def test_what_each_rule_says_adds_up_to_the_answer(
    rules: list[Rule], caller: Caller, asked: Any, now: float, arguments: Any
) -> None:
    """`why` tells an operator what the stage does."""
    (sort, action), name = asked
    policy = policy_of(*rules)
    question = (caller, sort, name, action, now, arguments)
    said = [says for _, says in policy.consider(*question)]

    assert (Reason.ALLOWED in said and Reason.DENIED not in said) == policy.why(*question).allowed
    assert len(rules) == len(said)


def test_a_rule_ends_at_its_date() -> None:
    """S4-CA-04: allowed one millisecond before, denied one after."""
    policy = policy_of(Rule(allow="x", valid_until="2027-01-01T01:00:00+01:00"))
    end = 1798761600.0

    assert policy.why(ANA, "tools", "x", "call", end - 0.001).allowed
    assert policy.why(ANA, "tools", "x", "call", end + 0.001).reason is Reason.EXPIRED
    assert policy.timed


def test_a_date_may_be_in_milliseconds() -> None:
    """As the seed writes it."""
    assert Rule(allow="x", valid_until=1798761600000).ends_at() == 1798761600.0


def test_roles_and_scopes_include_others() -> None:
    """Transitively, and in a circle too."""
    policy = policy_of(
        Rule(role="reader", allow="x"),
        Rule(scopes=("files:read", "files:write"), allow="y"),
        roles={"admin": ("editor",), "editor": ("reader", "admin")},
        scopes={"files": ("files:read", "files:write")},
    )

    assert policy.why(Caller("ana", roles=frozenset({"admin"})), "tools", "x", "call", 0.0).allowed
    assert not policy.why(Caller("ana", roles=frozenset({"other"})), "tools", "x", "call", 0.0).allowed
    assert policy.why(Caller("ana", scopes=frozenset({"files"})), "tools", "y", "call", 0.0).allowed
    assert policy.why(Caller("ana", scopes=frozenset({"files:read"})), "tools", "y", "call", 0.0).scopes == (
        "files:read",
        "files:write",
    )


def test_a_token_may_bring_its_own_capabilities() -> None:
    """S4-CA-01: scopes behind `scope_prefix`; rules that deny still win, and what names nothing allows nothing."""
    scopes = frozenset({"may:tools:db_*", "may:", "may:tools:", "tools:mail", "may:files.*"})
    caller = Caller("ana", scopes=scopes, how="bearer")
    policy = policy_of(Rule(id="no", deny="tools:db_drop"), scope_prefix="may:")
    names = ["db_read", "db_drop", "mail", "files.x", "other"]

    assert ["db_read", "files.x"] == [n for n in names if policy.why(caller, "tools", n, "call", 0.0).allowed]
    assert ["db_read", "files.x"] == [n for n in names if policy.standing(caller).shows("tools", n, "call", 0.0)]
    assert "scope may:tools:db_*" == policy.why(caller, "tools", "db_read", "call", 0.0).rule
    assert [("no", Reason.NAME), ("scope may:files.*", Reason.NAME), ("scope may:tools:db_*", Reason.ALLOWED)] == [
        *policy.consider(caller, "tools", "db_read", "call", 0.0)
    ]
    assert not policy.why(Caller("bob"), "tools", "db_read", "call", 0.0).allowed
    assert not policy_of().why(caller, "tools", "db_read", "call", 0.0).allowed
    with pytest.raises(ValueError, match="scope_prefix: must not be empty"):
        AccessConfig(scope_prefix="")


@pytest.mark.parametrize(
    ("rule", "caller", "allowed"),
    [
        (Rule(allow="x"), ANONYMOUS, True),
        (Rule(subject="*", allow="x"), ANONYMOUS, False),
        (Rule(subject=("anonymous", "ci-*"), allow="x"), ANONYMOUS, True),
        (Rule(subject="*", allow="x"), ANA, True),
        (Rule(subject="an", allow="x"), ANA, False),
        (Rule(tenant="*", allow="x"), Caller("ana"), False),
        (Rule(tenant=("globex", "ac*"), allow="x"), ANA, True),
        (Rule(role=("admin", "reader"), allow="x"), ANA, True),
        (Rule(role="admin", allow="x"), ANA, False),
        (Rule(subject="ana", tenant="globex", allow="x"), ANA, False),
        (Rule(scopes="read", allow="x"), ANA, True),
    ],
)
def test_who_a_rule_is_about(rule: Rule, caller: Caller, allowed: bool) -> None:
    """All that is given must match; a star is for those who have proved who they are."""
    assert allowed == policy_of(rule).why(caller, "tools", "x", "call", 0.0).allowed


@pytest.mark.parametrize(
    ("rules", "arguments", "reason", "rule"),
    [
        ([Rule(allow="y")], None, Reason.NO_RULE, ""),
        ([Rule(allow="x", actions=("read",))], None, Reason.ACTION, "rules[0]"),
        ([Rule(allow="x", valid_until=1)], None, Reason.EXPIRED, "rules[0]"),
        ([Rule(allow="x", valid_until=1), Rule(allow="x", arguments=BELOW)], {}, Reason.ARGUMENTS, "rules[1]"),
        ([Rule(id="up", allow="x", scopes="w"), Rule(allow="x", actions=("get",))], None, Reason.SCOPES, "up"),
        ([Rule(allow="x", scopes="w", valid_until=1)], None, Reason.EXPIRED, "rules[0]"),
        ([Rule(id="no", deny="x"), Rule(allow="x", scopes="w")], None, Reason.DENIED, "no"),
    ],
)  # fmt: skip
def test_a_refusal_has_the_nearest_reason(rules: list[Rule], arguments: Any, reason: Reason, rule: str) -> None:
    """For operators; clients learn less."""
    verdict = policy_of(*rules).why(ANA, "tools", "x", "call", 5.0, arguments)

    assert (False, reason, rule) == (verdict.allowed, verdict.reason, verdict.rule)


def test_rules_without_a_rate_are_used_first() -> None:
    """Nothing is charged that need not be."""
    policy = policy_of(
        Rule(id="a", allow="x", rate=Rate(1, 1.0)), Rule(id="b", allow="x"), Rule(id="c", allow="*", rate=Rate(2, 1.0))
    )
    verdict = policy.why(ANA, "tools", "x", "call", 0.0)

    assert [permit.id for permit in verdict.permits] == ["b"]
    assert [p.id for p in policy.why(ANA, "tools", "z", "call", 0.0).permits] == ["c"]


def test_tests_of_arguments_are_about_tools_and_prompts_only() -> None:
    """A resource has no arguments: a rule with tests neither allows nor denies it."""
    tested = {"n": Condition(present=False)}

    assert not policy_of(Rule(allow="*", arguments=tested)).why(ANA, "resources", "x", "read", 0.0, None).allowed
    denying = policy_of(Rule(deny="*", arguments=tested), Rule(allow="*"))
    assert denying.why(ANA, "resources", "x", "read", 0.0, None).allowed
    assert not denying.why(ANA, "tools", "x", "call", 0.0, None).allowed
    assert not denying.why(ANA, "tools", "x", "call", 0.0, "rubbish").allowed
    assert denying.why(ANA, "tools", "x", "call", 0.0, {"n": 1}).allowed


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers and names, however many come; a name that is too long is not kept at all."""
    monkeypatch.setattr(module, "MAX_RULINGS", 5)
    policy = policy_of(Rule(allow="*"), max_callers=3)
    for number in range(20):
        caller = Caller(f"caller-{number}")
        assert policy.why(caller, "tools", "x", "call", 0.0).allowed
        assert policy.why(caller, "tools", "x" * 300, "call", 0.0).allowed

    assert (3, 5) == (policy.callers, policy.rulings)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "either allow or deny"),
        ({"allow": "a", "deny": "b"}, "either allow or deny"),
        ({"deny": "a", "rate": Rate(1, 1.0)}, "rate: goes with allow"),
        ({"deny": "a", "scopes": "s"}, "scopes: goes with allow"),
        ({"allow": "a", "burst": 2}, "burst: goes with rate"),
        ({"allow": "tools:"}, "names nothing"),
        ({"allow": "a", "valid_until": "soon"}, "no date"),
        ({"allow": "a", "valid_until": "2027-01-01T00:00:00"}, "no time zone"),
        ({"allow": "a", "role": "re*"}, "a role is no glob"),
        ({"allow": "a", "scopes": ["re*"]}, "a scope is no glob"),
    ],
)
def test_a_rule_that_makes_no_sense_is_an_error(options: dict[str, Any], said: str) -> None:
    """At the check, not at the first request."""
    with pytest.raises(ValueError, match=said):
        Rule(**options)


def test_two_rules_of_one_name_are_an_error() -> None:
    """Decisions name the rule."""
    with pytest.raises(ValueError, match="two have the id 'a'"):
        AccessConfig(rules=(Rule(id="a", allow="x"), Rule(id="a", allow="y"), Rule(allow="z")))
