"""What is wrong with a route is said when its configuration is read."""

import pytest

from sluiceway.pipeline.config import ConfigError, from_data


def _check(**options):
    ids = list(options.get("to", ["a", "b"]))
    sinks = {name: {"embedded": {}} for name in ("a", "b", *ids)}
    data = {"version": 1, "pipelines": {"main": {"sink": "all"}}}
    return from_data({**data, "sinks": {**sinks, "all": {"route": {"to": ids, **options}}}})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"to": []}, "names no sink"),
        ({"to": ["a", "a"]}, "names a sink twice"),
        ({"separator": ""}, "separator"),
        ({"separator": "/"}, "separator"),
        ({"separator": "." * 9}, "separator"),
        ({"to": {"a": {"prefix": "ä"}}}, "prefix 'ä' of a"),
        ({"to": {"a": {"prefix": "x" * 64}}}, "at most 64"),
        ({"to": {"a": {"prefix": "B"}, "b": {}}}, "cannot be told apart"),
        ({"to": {"a": {}, "b": {"prefix": "a.x"}}}, "cannot be told apart"),
        ({"to": {"a": {"tools": {"rename": {"x": "z", "y": "Z"}}}}}, "both become"),
        ({"rules": [{"to": "a"}]}, "exactly one of"),
        ({"rules": [{"to": "a", "glob": "x*", "prefix": "x"}]}, "exactly one of"),
        ({"rules": [{"to": "a", "regex": "("}]}, "not a regular expression"),
        ({"rules": [{"to": "a", "exact": "db/*"}]}, "write glob"),
        ({"rules": [{"to": "a", "exact": "tools/call"}]}, "MCP's own method"),
        ({"rules": [{"to": "all", "exact": "x"}]}, "not one of"),
        ({"rules": [{"to": "a", "prefix": "x/"}, {"to": "b", "glob": "x/*"}, {"to": "a", "prefix": "x/"}]}, "equally"),
    ],
)
def test_a_mistake_is_found_at_load(options, said):
    """With a sentence that names it."""
    with pytest.raises(ConfigError, match="(?s)" + said.replace("(", r"\(")):
        _check(**options)


def test_a_route_in_a_circle_is_refused():
    """By the same rule as for every option that names sinks."""
    sinks = {"a": {"route": {"to": ["b"]}}, "b": {"route": {"to": ["a"]}}}
    with pytest.raises(ConfigError, match="circle"):
        from_data({"version": 1, "sinks": sinks, "pipelines": {"main": {"sink": "a"}}})


def test_the_sinks_a_route_sends_to_are_known_to_the_document():
    """They open before it; those of its rules are among them."""
    document = _check(to={"b": {}, "a": {}}, rules=[{"to": "a", "exact": "x"}])

    assert ("b", "a") == document.sinks["all"].sends_to
    assert () == document.sinks["a"].sends_to
