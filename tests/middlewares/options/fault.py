"""How each option of `fault` shows; see `../test_no_inert_option.py`."""

from sluiceway.pipeline.model.faults import Fault

SLOW = (Fault(latency=0.5),)
BROKEN = (Fault(effect="refuse"),)
SOME = (Fault(effect="refuse", share=0.5),)

ROWS = {
    "fault.faults": {"one": SLOW, "other": BROKEN},
    "fault.faults.effect": {"one": BROKEN, "other": (Fault(effect="truncate"),)},
    "fault.faults.latency": {"one": SLOW, "other": (Fault(latency=1.5),)},
    "fault.faults.jitter": {"one": SLOW, "other": (Fault(latency=0.5, jitter=1.0),)},
    "fault.faults.drip": {"one": (Fault(drip=1),), "other": (Fault(drip=100),)},
    "fault.faults.down": {
        "one": (Fault(effect="crash", times=1, down=1.0),),
        "other": (Fault(effect="crash", times=1, down=1000.0),),
    },
    "fault.faults.share": {"one": BROKEN, "other": SOME, "given": {"seed": 1}},
    "fault.faults.skip": {"one": BROKEN, "other": (Fault(effect="refuse", skip=2),)},
    "fault.faults.times": {"one": BROKEN, "other": (Fault(effect="refuse", times=2),)},
    "fault.seed": {"one": 1, "other": 2, "given": {"faults": SOME}},
}

REQUIRED = {"faults": [{"effect": "refuse", "skip": 100000}]}

VARIANTS = [
    {"config": {"faults": [{"latency": "1s", "jitter": "1s", "share": "50%"}], "seed": 3}},
]
