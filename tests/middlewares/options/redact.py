"""How each option of `redact` shows; see `../test_no_inert_option.py`."""

REQUIRED = {"keys": ["*password*"]}
VARIANTS = [{"config": {"paths": ["params.nothing.here", "result.nor.*.here", "notification.nor.here"]}}]
ROWS = {
    "redact.keys": {"by": "middlewares/test_redact.py::test_names_are_masked_wherever_they_stand_in_what_is_said"},
    "redact.paths": {"one": ("result.done",), "other": ("result.other",)},
    "redact.requests": {"one": True, "other": False, "given": {"paths": ("params.name",)}},
    "redact.replies": {"one": True, "other": False, "given": {"paths": ("result.done",)}},
    "redact.style": {"one": "mask", "other": "remove", "given": {"paths": ("result.done",)}},
}
