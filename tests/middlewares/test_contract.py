"""Every built-in stage keeps the contract of stages, with its defaults and with all it can do switched on."""

from __future__ import annotations

from typing import Any

import pytest

from sluiceway.middlewares.concurrency_limit import ConcurrencyLimit
from sluiceway.middlewares.headers import Headers
from sluiceway.middlewares.log import Log
from sluiceway.middlewares.request_id import RequestId
from sluiceway.middlewares.timeout import Timeout
from sluiceway.pipeline.model.component import ComponentKind, Middleware
from sluiceway.pipeline.model.registry import BUILT_IN, Registry
from sluiceway.pipeline.testing import check_middleware

VARIANTS: list[tuple[type[Middleware], dict[str, Any]]] = [
    (ConcurrencyLimit, {"max_in_flight": 1, "max_waiting": 8, "max_listeners": 4, "per": "caller"}),
    (ConcurrencyLimit, {"max_in_flight": 2, "max_waiting": 0, "per": "target", "max_keys": 3}),
    (Headers, {"allowed_origins": ["https://a.example"], "allowed_hosts": ["a.example"], "expose": ["x-a"]}),
    (Log, {"params": "digest", "sample": "50%", "redact": ["x"]}),
    (Log, {"params": "none", "start": False, "level": "debug"}),
    (RequestId, {"accept": False, "header": "x-correlation-id"}),
    (Timeout, {"after": "1s", "at_most": "2s", "idle_after": "1s"}),
    (Timeout, {"on_progress": "keep", "overrides": [{"when": {"method": ["tools/*"]}, "after": "5s"}]}),
]


@pytest.mark.parametrize("name", sorted(BUILT_IN[ComponentKind.MIDDLEWARE]))
def test_with_its_defaults(name):
    """A stage without options does nothing that a stage must not do."""
    cls = Registry().find(ComponentKind.MIDDLEWARE, name)
    assert issubclass(cls, Middleware)

    check_middleware(cls)


@pytest.mark.parametrize(("cls", "options"), VARIANTS, ids=lambda value: getattr(value, "name", None))
def test_with_options(cls, options):
    """A stage with options does not, either."""
    check_middleware(cls, options)
