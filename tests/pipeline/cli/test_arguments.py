"""Arguments as people type them."""

import pytest

from sluiceway.pipeline.cli.arguments import is_object, parse_arguments
from sluiceway.pipeline.cli.exits import Exit, Failure

SCHEMA = {
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "many": {"type": "array"},
        "either": {"type": ["string", "null"]},
        "any": {},
        "odd": True,
    }
}


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ([], {}),
        (['{"a": {"b": [1]}}'], {"a": {"b": [1]}}),
        ([" {}"], {}),
        (["text=5"], {"text": "5"}),
        (["text=a=b"], {"text": "a=b"}),
        (["text="], {"text": ""}),
        (["count=5"], {"count": 5}),
        (["many=[1,2]"], {"many": [1, 2]}),
        (["either=null"], {"either": None}),
        (["either=no"], {"either": "no"}),
        (["any=5", "odd=true", "new=word"], {"any": 5, "odd": True, "new": "word"}),
        (['text:={"a": 1}'], {"text": {"a": 1}}),
    ],
)
def test_words_take_the_type_that_the_tool_declares(words, arguments):
    """Without a declaration, what reads as JSON is JSON."""
    assert arguments == parse_arguments(words, SCHEMA)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["word"], "'word' is neither a JSON object nor key=value"),
        (["=5"], "neither"),
        (["a=1", "a=2"], "'a' is given twice"),
        (["count=five"], "'count' must be integer, not 'five'"),
        (["x:=nope"], "'x' is not JSON"),
        (["{"], "'the arguments' is not JSON"),
    ],
)
def test_what_cannot_be_understood_is_named(words, text):
    """A usage error, before anything is called."""
    with pytest.raises(Failure, match=text) as caught:
        parse_arguments(words, SCHEMA)

    assert caught.value.code is Exit.USAGE


def test_a_schema_without_properties_declares_nothing():
    """Servers send all kinds of schemas."""
    assert {"a": 1} == parse_arguments(["a=1"], {"properties": True})


def test_only_one_brace_is_an_object():
    """Two words are never one."""
    assert is_object(["{}"])
    assert not is_object(["{}", "a=1"])
    assert not is_object(["a={}"])
