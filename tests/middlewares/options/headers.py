"""How each option of `headers` shows; see `../test_no_inert_option.py`."""

ROWS = {
    "headers.add": {"one": {}, "other": {"x-added": "1"}},
    "headers.allowed_hosts": {"one": None, "other": ("b.example",)},
    "headers.allowed_origins": {"one": None, "other": ("https://b.example",)},
    "headers.expose": {"one": None, "other": ("x-request-id",)},
    "headers.hide": {"one": (), "other": ("cookie",)},
    "headers.security": {"one": False, "other": True},
}

VARIANTS = [
    {"config": {"allowed_origins": ["https://a.example"], "allowed_hosts": ["a.example"], "expose": ["x-a"]}},
]
