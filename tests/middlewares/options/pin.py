"""How each option of `pin` shows; see `../test_no_inert_option.py`."""

from pathlib import Path

_TEST = "middlewares/test_pin.py::test_"
REQUIRED = {"lock": str(Path(__file__).with_suffix(".lock.json")), "unknown": "allow"}
VARIANTS = [{"config": {**REQUIRED, "on_drift": "log"}}]
ROWS = {
    "pin.lock": {"by": _TEST + "a_lock_file_that_cannot_be_read_is_said_at_the_start"},
    "pin.unknown": {"by": _TEST + "a_tool_that_the_file_does_not_know_is_hidden_unless_it_is_allowed"},
    "pin.on_drift": {"by": _TEST + "a_change_can_be_complained_of_only"},
}
