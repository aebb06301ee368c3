"""How each option of `log` shows; see `../test_no_inert_option.py`."""

ROWS = {
    "log.level": {"one": "info", "other": "warning"},
    "log.params": {"one": "redacted", "other": "digest"},
    "log.redact": {"one": (), "other": ("note",)},
    "log.sample": {"one": 1.0, "other": 0.5},
    "log.start": {"one": True, "other": False},
}

VARIANTS = [
    {"config": {"params": "digest", "sample": "50%", "redact": ["x"]}},
    {"config": {"params": "none", "start": False, "level": "debug"}},
]
