"""How each option of `timeout` shows; see `../test_no_inert_option.py`."""

from sluiceway.middlewares.timeout import Override
from sluiceway.pipeline.model.when import When

ROWS = {
    "timeout.after": {"one": 5.0, "other": 15.0},
    "timeout.at_most": {"one": 20.0, "other": 30.0, "given": {"after": 9.0}},
    "timeout.idle_after": {"one": None, "other": 3.0},
    "timeout.on_progress": {"one": "reset", "other": "keep", "given": {"after": 9.0}},
    "timeout.overrides": {"one": (), "other": (Override(when=When(name=("echo",)), after=0.5),)},
    "timeout.overrides.after": {
        "one": (Override(when=When(), after=9.0),),
        "other": (Override(when=When(), after=0.5),),
    },
    "timeout.overrides.when": {
        "one": (Override(when=When(name=("echo",)), after=0.5),),
        "other": (Override(when=When(name=("work",)), after=0.5),),
    },
}

VARIANTS = [
    {"config": {"after": "1s", "at_most": "2s", "idle_after": "1s"}},
    {"config": {"on_progress": "keep", "overrides": [{"when": {"method": ["tools/*"]}, "after": "5s"}]}},
]
