"""
The public test kit: a harness for whole gateways, fakes, contract checkers, and a leak oracle.

Names are imported when they are first used, because pytest imports this package before coverage starts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .cancelling import cancel_everywhere
    from .contract import check_middleware, check_sink, check_source, check_store
    from .exchanges import MODERN_CLIENT, legacy_client, memory_exchange
    from .fakes import FakeSink, FakeSource, HeldRequest
    from .fault_proxy import FaultProxy, open_fault_proxy
    from .harness import PipelineHarness
    from .in_flight import InFlight, StageRun
    from .leaks import Leak, LeakOracle, leak_check, run_clean
    from .musts import MUSTS, ContractViolation, Must

__all__ = [
    "MODERN_CLIENT",
    "MUSTS",
    "ContractViolation",
    "FakeSink",
    "FakeSource",
    "FaultProxy",
    "HeldRequest",
    "InFlight",
    "Leak",
    "LeakOracle",
    "Must",
    "PipelineHarness",
    "StageRun",
    "cancel_everywhere",
    "check_middleware",
    "check_sink",
    "check_source",
    "check_store",
    "leak_check",
    "legacy_client",
    "memory_exchange",
    "open_fault_proxy",
    "run_clean",
]

_HOMES: Final = {
    "cancelling": ("cancel_everywhere",),
    "contract": ("check_middleware", "check_sink", "check_source", "check_store"),
    "exchanges": ("MODERN_CLIENT", "legacy_client", "memory_exchange"),
    "fakes": ("FakeSink", "FakeSource", "HeldRequest"),
    "fault_proxy": ("FaultProxy", "open_fault_proxy"),
    "harness": ("PipelineHarness",),
    "in_flight": ("InFlight", "StageRun"),
    "leaks": ("Leak", "LeakOracle", "leak_check", "run_clean"),
    "musts": ("MUSTS", "ContractViolation", "Must"),
}
"""Module of each public name."""


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
