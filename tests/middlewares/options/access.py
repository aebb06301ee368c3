"""How each option of `access` shows; see `../test_no_inert_option.py`."""

from __future__ import annotations

from typing import Any

from sluiceway.middlewares.access.arguments import Condition
from sluiceway.middlewares.access.config import Rule
from sluiceway.pipeline.model.options import Rate

STAGE = "middlewares/access/test_stage.py::"
POLICY = "middlewares/access/test_policy.py::"


def rules(**given: Any) -> tuple[Rule, ...]:
    return (Rule(**{"allow": "*", **given}),)


def tested(**test: Any) -> tuple[Rule, ...]:
    return rules(arguments={"note": Condition(**test)})


ROWS: dict[str, dict[str, Any]] = {
    "access.rules": {"one": rules(), "other": ()},
    "access.rules.id": {"by": f"{POLICY}test_two_rules_of_one_name_are_an_error"},
    "access.rules.subject": {"one": rules(subject="a*"), "other": rules(subject="bob")},
    "access.rules.tenant": {"one": rules(), "other": rules(tenant="acme")},
    "access.rules.role": {"one": rules(), "other": rules(role="reader")},
    "access.rules.scopes": {"one": rules(scopes="a"), "other": rules(scopes="b")},
    "access.rules.allow": {"one": rules(allow="echo"), "other": rules(allow="work")},
    "access.rules.deny": {
        "one": (*rules(), Rule(deny="echo")),
        "other": (*rules(), Rule(deny=("echo", "work"))),
    },
    "access.rules.actions": {"one": rules(actions=("call",)), "other": rules(actions=("read",))},
    "access.rules.arguments": {"one": tested(prefix="n"), "other": tested(prefix="m")},
    "access.rules.arguments.one_of": {"one": tested(one_of=("n",)), "other": tested(one_of=("m",))},
    "access.rules.arguments.none_of": {"one": tested(none_of=("n",)), "other": tested(none_of=("m",))},
    "access.rules.arguments.glob": {"one": tested(glob="n*"), "other": tested(glob="m*")},
    "access.rules.arguments.prefix": {"one": tested(prefix="n"), "other": tested(prefix="m")},
    "access.rules.arguments.under": {"one": tested(under="n"), "other": tested(under="m")},
    "access.rules.arguments.ge": {
        "by": "middlewares/access/test_arguments.py::test_every_bound_is_a_bound", "word": "ge",
    },
    "access.rules.arguments.gt": {
        "by": "middlewares/access/test_arguments.py::test_every_bound_is_a_bound", "word": "gt",
    },
    "access.rules.arguments.le": {
        "by": "middlewares/access/test_arguments.py::test_every_bound_is_a_bound", "word": "le",
    },
    "access.rules.arguments.lt": {
        "by": "middlewares/access/test_arguments.py::test_every_bound_is_a_bound", "word": "lt",
    },
    "access.rules.arguments.max_length": {"one": tested(max_length=0), "other": tested(max_length=1)},
    "access.rules.arguments.present": {"one": tested(present=True), "other": tested(present=False)},
    "access.rules.arguments.optional": {
        "one": rules(arguments={"absent": Condition(le=1)}),
        "other": rules(arguments={"absent": Condition(le=1, optional=True)}),
    },
    "access.rules.valid_until": {"one": rules(valid_until=1), "other": rules(valid_until="2999-01-01T00:00:00Z")},
    "access.rules.rate": {"one": rules(rate=Rate(1, 600.0)), "other": rules(rate=Rate(2, 600.0))},
    "access.rules.burst": {
        "one": rules(rate=Rate(9, 600.0), burst=1), "other": rules(rate=Rate(9, 600.0), burst=2),
    },
    "access.roles": {"by": f"{POLICY}test_roles_and_scopes_include_others"},
    "access.scopes": {"by": f"{POLICY}test_roles_and_scopes_include_others"},
    "access.scope_prefix": {"by": f"{POLICY}test_a_token_may_bring_its_own_capabilities"},
    "access.max_callers": {"by": f"{POLICY}test_what_is_kept_is_bounded"},
    "access.max_keys": {"one": 1, "other": 2, "given": {"rules": rules(rate=Rate(1, 600.0))}},
    "access.max_tasks": {"by": f"{STAGE}test_tasks_are_bounded"},
    "access.store": {"by": "middlewares/access/test_tasks.py::test_another_process_knows_whose_a_task_is"},
    "access.task_age": {"by": f"{STAGE}test_a_task_is_for_whoever_made_it"},
}  # fmt: skip
