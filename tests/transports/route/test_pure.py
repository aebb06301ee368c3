"""The small parts: templates, spliced params, what is remembered, what is merged."""

import pytest

from sluiceway.pipeline.protocol.codec import decode_message
from sluiceway.pipeline.protocol.errors import UpstreamProtocolError
from sluiceway.pipeline.protocol.messages import Request
from sluiceway.pipeline.testing import FakeSink
from sluiceway.transports.route.known import MAX_TEMPLATES, Owners, Templates
from sluiceway.transports.route.merging import (
    common_versions,
    lowest_version,
    merge_capabilities,
    merge_hints,
    merge_instructions,
)
from sluiceway.transports.route.naming import Upstream
from sluiceway.transports.route.splice import with_param
from sluiceway.transports.route.templates import Template

ONE, TWO = (Upstream(name, index, FakeSink(), f"{name}.", False) for index, name in enumerate(("one", "two")))
BARE = Upstream("bare", 2, FakeSink(), "", True)


@pytest.mark.parametrize(
    ("template", "uri", "matches"),
    [
        ("a://{id}", "a://7", True),
        ("a://{id}", "b://7", False),
        ("a://{id}/end", "a://7/end", True),
        ("a://{id}/end", "a://7/other", False),
        ("a://{x}/mid/{y}", "a://1/mid/2", True),
        ("a://{x}/mid/{y}", "a://1/2", False),
        ("file:///{+path}", "file:///a/b/c", True),
        ("a://x{?q,r}", "a://x?q=1", True),
        ("plain", "plain", True),
        ("plain", "plainer", False),
        ("ab{x}ba", "aba", False),
    ],
)
def test_a_template_matches_by_its_literal_text(template, uri, matches):
    """In order, and without overlap."""
    assert matches is Template(template).matches(uri)


def test_the_most_literal_template_is_meant():
    """Of several that match; the template's own text is its owner's, too."""
    templates = Templates()
    templates.learn("a://{id}", ONE)
    templates.learn("a://x/{id}", TWO)

    assert (ONE, TWO, TWO, None) == tuple(map(templates.owner, ("a://1", "a://x/1", "a://x/{id}", "b://1")))


def test_what_is_remembered_is_bounded():
    """The longest unused goes first."""
    owners, templates = Owners(maximum=2), Templates()
    for uri in ("a", "b"):
        owners.learn(uri, ONE)
    owners.of("a")
    owners.learn("c", ONE)
    for number in range(MAX_TEMPLATES + 5):
        templates.learn(f"t://{number}/{{x}}", ONE)

    assert ((ONE,), (), (ONE,)) == tuple(map(owners.of, "abc"))
    assert (2, MAX_TEMPLATES) == (len(owners), len(templates))


def test_two_owners_stand_in_the_order_of_the_configuration():
    """Whoever was learned first."""
    owners = Owners()
    owners.learn("a", TWO)

    assert (ONE, TWO) == owners.learn("a", ONE)
    assert 1 == len(owners)


def test_only_the_bytes_of_the_name_change():
    """Numbers, spaces and unknown members of the arguments stay as the client wrote them."""
    raw = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a.b","arguments":{"x":1.50e1,  "y":[ ]}}}'
    request = decode_message(raw)
    assert isinstance(request, Request)

    changed = with_param(request, ("name",), "b")

    assert raw.replace(b'"a.b"', b'"b"') == changed.raw
    assert {"name": "b", "arguments": {"x": 15.0, "y": []}} == changed.params
    assert "a.b" == request.params["name"]


def test_a_request_without_bytes_changes_its_params():
    """Deep inside, too."""
    request = Request(1, "completion/complete", {"ref": {"name": "a.b", "type": "ref/prompt"}})

    assert {"ref": {"name": "b", "type": "ref/prompt"}} == with_param(request, ("ref", "name"), "b").params


def test_capabilities_are_united():
    """True wins, members add up, lists may change."""
    parts = [{"tools": {}, "resources": {"subscribe": False}}, {"resources": {"subscribe": True}, "x": 1}, {"x": 2}]
    wanted = {"tools": {"listChanged": True}, "resources": {"subscribe": True, "listChanged": True}, "x": 1}

    assert wanted == merge_capabilities(parts)


def test_instructions_say_whose_they_are():
    """Unless names have no prefix."""
    parts = [(ONE, {"instructions": "Ask."}), (TWO, {}), (BARE, {"instructions": "Do."})]

    assert "About names that begin with `one.`:\nAsk.\n\nDo." == merge_instructions(parts)
    assert merge_instructions([(TWO, {})]) is None


def test_versions_are_what_all_can_speak():
    """The lowest handshake; the common revisions of discovery."""
    assert "2025-03-26" == lowest_version(["2025-11-25", "2025-03-26"])
    assert ["b"] == common_versions([["a", "b"], ["b"], ["c", "b"]])
    assert [] == common_versions([["a"], None])
    with pytest.raises(UpstreamProtocolError, match="1999"):
        lowest_version(["1999-01-01"])


@pytest.mark.parametrize(
    ("values", "complete", "hints"),
    [
        ([{"ttlMs": 5, "cacheScope": "public"}, {"ttlMs": 3, "cacheScope": "public"}], True, (3, "public")),
        ([{"ttlMs": 5, "cacheScope": "public"}, {"ttlMs": 3, "cacheScope": "private"}], True, (3, "private")),
        ([{"ttlMs": 5, "cacheScope": "public"}, {}], True, (0, "private")),
        ([{"ttlMs": 5, "cacheScope": "public"}], False, (0, "public")),
        ([{}], True, (None, None)),
    ],
)
def test_hints_are_the_most_careful(values, complete, hints):
    """What is not complete is not kept."""
    merged = merge_hints(values, complete=complete)

    assert hints == (merged.get("ttlMs"), merged.get("cacheScope"))
