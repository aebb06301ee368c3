"""A snapshot as Prometheus reads it: checked with its own parsers."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from sluiceway.pipeline.model.figures import Distribution, Exemplar, Figure
from sluiceway.pipeline.telemetry.exposition import exposition

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
SNAPSHOT = (
    Figure("mcp_requests_total", 3, "counter", "Exchanges.", {"method": "tools/call", "odd": 'a"\\\n'}),
    Figure("mcp_requests_total", 4, "counter", "Exchanges.", {"method": "other"}),
    Figure("cache_entries", 7, "gauge", "Entries."),
    Distribution("mcp_d_seconds", (0.1, 1.0), (1, 2, 3), 9.5, "Time.", {"a": "b"}, {1: Exemplar("t" * 32, 0.5, 17.5)}),
)


def _samples(families):
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def test_it_is_prometheus_text_by_default():
    """Names that are not MCP's or the process's get our prefix; buckets are cumulative."""
    content_type, body = exposition(SNAPSHOT, "*/*")

    families = list(parse_text(body.decode()))
    assert content_type.startswith("text/plain; version=0.0.4")
    assert {family.name: family.type for family in families} == {
        "mcp_requests": "counter",
        "sluiceway_cache_entries": "gauge",
        "mcp_d_seconds": "histogram",
    }
    samples = _samples(families)
    assert samples["mcp_requests_total", ("method", "tools/call"), ("odd", 'a"\\\n')] == 3
    assert samples["sluiceway_cache_entries",] == 7
    assert [samples["mcp_d_seconds_bucket", ("a", "b"), ("le", le)] for le in ("0.1", "1.0", "+Inf")] == [1, 3, 6]
    assert (samples["mcp_d_seconds_count", ("a", "b")], samples["mcp_d_seconds_sum", ("a", "b")]) == (6, 9.5)


def test_who_accepts_openmetrics_gets_it_with_exemplars():
    """The parser is strict about the form."""
    content_type, body = exposition(SNAPSHOT, OPENMETRICS)

    families = {family.name: family for family in parse_openmetrics(body.decode())}
    assert content_type.startswith("application/openmetrics-text")
    exemplars = [sample.exemplar for sample in families["mcp_d_seconds"].samples if sample.exemplar]
    assert [(each.labels, each.value, float(each.timestamp)) for each in exemplars] == [
        ({"trace_id": "t" * 32}, 0.5, 17.5)
    ]


def test_what_prometheus_cannot_have_is_left_out():
    """A component of somebody else's spoils nothing for the others."""
    bad = (
        Figure("dash-ed", 1, "gauge", "x"),
        Figure("fine", 1, "gauge", "x", {"not fine": "1"}),
        Figure("fine", 1, "gauge", "x", {"__reserved": "1"}),
        Figure("twice", 1, "gauge", "x"),
        Figure("twice", 1, "counter", "x"),
        Figure("line", 1, "gauge", "a\nb"),
    )

    for accept in ("", OPENMETRICS):
        _, body = exposition((*bad, *SNAPSHOT), accept)
        parse = parse_openmetrics if accept else parse_text
        names = {family.name for family in parse(body.decode())}
        assert names == {
            "sluiceway_twice", "sluiceway_line", "mcp_requests", "sluiceway_cache_entries", "mcp_d_seconds",
        }  # fmt: skip


def test_nothing_counted_is_an_empty_exposition():
    """Still a valid one."""
    assert exposition((), "")[1] == b""
    assert exposition((), OPENMETRICS)[1] == b"# EOF\n"
