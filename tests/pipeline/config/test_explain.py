"""One place of a configuration in words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sluiceway.pipeline.config import Checked
from sluiceway.pipeline.config.explain import explain, paths
from sluiceway.pipeline.model.document import Document

TEXT = """
version: 1
sources: {public: {listen_toy: {}}}
stores: {kept: {memory_toy: {}}}
pipelines:
  main:
    timeout: 5s
    chain:
      - auth_toy: {token: {from_env: TOKEN}}
      - cache_toy: {id: c, store: kept, when: {method: "tools/*"}}
      - retry_toy: {enabled: false}
sinks:
  out: {echo_toy: {}, max_in_flight: 16, chain: [late_toy]}
run: {admin: {token: {from_file: /run/token}}}
"""


@pytest.fixture
def document(check_it: Callable[..., Checked]) -> Document:
    """The document of `TEXT`."""
    return check_it(TEXT).require()


def test_a_pipeline_is_its_way_and_its_limits(document: Document) -> None:
    """Defaults are marked."""
    assert explain(document, "pipelines.main") == (
        "pipelines.main: pipeline, at t.yaml:6:3\n"
        "\n"
        "  an exchange passes:\n"
        "    auth_toy\n"
        "    c (guarded by when)\n"
        "    retry_toy (off)\n"
        "    sink out\n"
        "\n"
        "  timeout: 5s\n"
        "  timeout_max: 10m  (default)\n"
        "  timeout_on_progress: reset  (default)\n"
        "  max_in_flight: 1000  (default)\n"
        "  max_waiting: 0  (default)\n"
        "  wait_at_most: 1s  (default)\n"
        "  max_listeners: 1000  (default)\n"
    )


def test_a_stage_is_its_options_guard_and_rules(document: Document) -> None:
    """By its index or by its id."""
    by_index = explain(document, "pipelines.main.chain[1]")

    assert by_index == explain(document, "pipelines.main.chain.c")
    assert by_index == (
        "pipelines.main.chain[1]: middleware 'cache_toy', id 'c', at t.yaml:10:9\n"
        "  Remembers replies.\n"
        "\n"
        "  max_ttl: 30s  (default)\n"
        "  store: kept\n"
        '  when: {method: ["tools/*"]}\n'
    )
    assert "enabled: false" in explain(document, "pipelines.main.chain.retry_toy")


def test_a_secret_is_shown_by_its_origin(document: Document) -> None:
    """In a stage and in `run`; the rules come with reasons."""
    auth = explain(document, "pipelines.main.chain[0]")

    assert "  token: {from_env: TOKEN}\n" in auth
    assert "  order:\n    before cache (error): a cache in front of authentication can" in auth
    assert "  admin: {token: {from_file: /run/token}}\n" in explain(document, "run")


def test_sources_sinks_and_stores_are_explained(document: Document) -> None:
    """What a source feeds, what a sink's chain is."""
    assert "  feeds: pipelines.main\n" in explain(document, "sources.public")
    assert "sinks.out: sink 'echo_toy', id 'out', at t.yaml:13:3\n" in explain(document, "sinks.out")
    assert explain(document, "sinks.out").endswith(
        "  no options\n  max_in_flight: 16\n  required: true\n  an exchange passes:\n    late_toy\n    sink out\n"
    )
    assert "  max_entries: 10  (default)\n" in explain(document, "stores.kept")


def test_every_path_can_be_explained(document: Document) -> None:
    """And a wrong one is met with a suggestion."""
    known = list(paths(document))

    assert all(explain(document, path) for path in known)
    assert ["run", "pipelines.main", "stores.kept", "sinks.out", "sinks.out.chain[0]"] == known[:5]
    with pytest.raises(LookupError, match=r"did you mean 'pipelines\.main'"):
        explain(document, "pipelines.mian")
    with pytest.raises(LookupError, match=r"nothing at 'q'; try run, pipelines\.main"):
        explain(document, "q")
