"""Where limits may stand: in front of authentication only if they count nothing that it finds out."""

from __future__ import annotations

import json

import pytest

from sluiceway.pipeline.config import check_text

CONFIG = """
version: 1
sources: {{public: {{http: {{bind: "127.0.0.1:0"}}}}}}
pipelines: {{main: {{chain: [{stages}]}}}}
sinks: {{demo: {{embedded: {{server: demo}}}}}}
"""


@pytest.mark.parametrize(
    ("stage", "found"),
    [
        ({"rate_limit": {"per": "caller"}}, ["error order/rate_limit-before-auth"]),
        ({"rate_limit": {"per": ["target", "tenant"]}}, ["error order/rate_limit-before-auth"]),
        ({"rate_limit": {"per": "address"}}, []),
        ({"rate_limit": {"per": "all"}}, []),
        ({"load_shed": {}}, ["warning order/load_shed-before-auth"]),
        ({"load_shed": {"per": "source"}}, []),
        ({"concurrency_limit": {"per": "caller"}}, ["warning order/concurrency_limit-before-auth"]),
        ({"concurrency_limit": {}}, []),
    ],
    ids=str,
)
def test_what_counts_callers_stands_behind_authentication(stage: dict[str, object], found: list[str]) -> None:
    """Behind it nothing is said, and in front of it only where it matters."""
    limit, auth = json.dumps(stage), "auth_anonymous"
    wrong, right = (
        check_text(CONFIG.format(stages=", ".join(order)), env={}).problems for order in ([limit, auth], [auth, limit])
    )

    assert [f"{p.level} {p.rule}" for p in wrong if p.rule.startswith("order/")] == found
    assert [str(p) for p in right if p.rule.startswith("order/")] == []


@pytest.mark.parametrize(
    ("per", "found"),
    [
        ("all", ["info order/rate_limit-before-cache"]),
        (["target", "method"], ["info order/rate_limit-before-cache"]),
        ("address", []),
        ("source", []),
        (["caller", "target"], []),
        ("tenant", []),
    ],
    ids=str,
)
def test_what_protects_an_upstream_stands_behind_the_cache(per: str | list[str], found: list[str]) -> None:
    """A limit on who sends counts all that is sent, and stands in front of it; one on what is asked had better not."""
    limit, cache = json.dumps({"rate_limit": {"per": per}}), "cache"
    wrong, right = (
        check_text(CONFIG.format(stages=", ".join(order)), env={}).problems
        for order in (["auth_anonymous", limit, cache], ["auth_anonymous", cache, limit])
    )

    assert [f"{p.level} {p.rule}" for p in wrong if p.rule.startswith("order/")] == found
    assert [str(p) for p in right if p.rule.startswith("order/")] == []
