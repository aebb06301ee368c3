"""How each option of `auth_api_key` shows; see `../test_no_inert_option.py`."""

from pathlib import Path

_DATA = Path(__file__).resolve().parents[2] / "data" / "auth"

_FILE = "middlewares/auth/test_auth_api_key.py"

REQUIRED = {"pepper": {"from_file": str(_DATA / "pepper")}, "file": str(_DATA / "keys.json"), "optional": True}

ROWS = {
    "auth_api_key.file": {"by": f"{_FILE}::test_it_keeps_the_contract_of_stages"},
    "auth_api_key.header": {"by": f"{_FILE}::test_the_key_may_stand_behind_a_scheme"},
    "auth_api_key.namespace": {"by": f"{_FILE}::test_stages_with_one_namespace_share_keys"},
    "auth_api_key.optional": {"by": f"{_FILE}::test_an_optional_stage_leaves_to_the_next_what_is_no_key"},
    "auth_api_key.pepper": {"by": f"{_FILE}::test_a_stage_that_cannot_know_its_keys_does_not_open"},
    "auth_api_key.prefix": {"by": f"{_FILE}::test_subjects_can_have_a_prefix"},
    "auth_api_key.reload": {"by": f"{_FILE}::test_a_changed_file_is_taken_over"},
    "auth_api_key.scheme": {"by": f"{_FILE}::test_the_key_may_stand_behind_a_scheme"},
    "auth_api_key.store": {"by": f"{_FILE}::test_it_keeps_the_contract_of_stages"},
}
