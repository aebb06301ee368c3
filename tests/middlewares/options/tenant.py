"""How each option of `tenant` shows; see `../test_no_inert_option.py`."""

from __future__ import annotations

from sluiceway.middlewares.tenant import Tenant
from sluiceway.pipeline.model.session import Caller

SENT = {"caller": Caller("ana", "acme", how="bearer")}
TESTS = "middlewares/test_tenant.py::"

ROWS = {
    "tenant.tenants": {
        "one": {"a": Tenant()}, "other": {"a": Tenant(enabled=False)}, "given": {"default": "a"},
    },
    "tenant.tenants.name": {"by": f"{TESTS}test_only_listed_and_enabled_tenants_are_served"},
    "tenant.tenants.enabled": {
        "one": {"a": Tenant()}, "other": {"a": Tenant(enabled=False)}, "given": {"default": "a"},
    },
    "tenant.header": {"one": None, "other": "cookie", "given": {"required": False}},
    "tenant.meta": {"by": f"{TESTS}test_what_is_not_configured_names_nothing"},
    "tenant.default": {"one": None, "other": "a"},
    "tenant.required": {"one": True, "other": False},
}  # fmt: skip
