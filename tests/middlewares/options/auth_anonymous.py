"""How each option of `auth_anonymous` shows; see `../test_no_inert_option.py`."""

_FILE = "middlewares/auth/test_auth_anonymous.py"

ROWS = {
    "auth_anonymous.optional": {"by": f"{_FILE}::test_other_transports_are_refused_or_left_to_the_next_stage"},
    "auth_anonymous.roles": {"by": f"{_FILE}::test_a_fixed_principal"},
    "auth_anonymous.scopes": {"by": f"{_FILE}::test_a_fixed_principal"},
    "auth_anonymous.subject": {"by": f"{_FILE}::test_a_fixed_principal"},
    "auth_anonymous.tenant": {"by": f"{_FILE}::test_a_fixed_principal"},
    "auth_anonymous.transports": {"by": f"{_FILE}::test_other_transports_are_refused_or_left_to_the_next_stage"},
}
