"""How each option of `request_id` shows; see `../test_no_inert_option.py`."""

ROWS = {
    "request_id.accept": {"one": True, "other": False},
    "request_id.header": {"one": "x-request-id", "other": "x-correlation-id"},
    "request_id.max_length": {"one": 128, "other": 4},
}

VARIANTS = [{"config": {"accept": False, "header": "x-correlation-id"}}]
