"""How each option of `validate` shows; see `../test_no_inert_option.py`."""

_TEST = "middlewares/validate/test_stage.py::test_"
ROWS = {
    "validate.arguments": {"by": _TEST + "arguments_can_be_complained_of_or_left_alone"},
    "validate.refuse_as": {"by": _TEST + "a_call_that_does_not_fit_never_arrives"},
    "validate.results": {"by": _TEST + "a_result_that_does_not_fit_can_be_refused"},
    "validate.unusable": {"by": _TEST + "a_schema_that_cannot_be_used_is_refused_or_passed"},
    "validate.rules": {"by": _TEST + "rules_of_ones_own_add_to_the_list"},
    "validate.max_schemas": {"by": _TEST + "only_so_many_schemas_are_kept_ready"},
}
VARIANTS = [{"config": {"results": "refuse", "refuse_as": "error", "max_schemas": 4}}]
