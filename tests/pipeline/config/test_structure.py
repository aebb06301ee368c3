"""The converter's exceptions as problems with places."""

from __future__ import annotations

from collections.abc import Callable

from sluiceway.pipeline.config import Checked
from sluiceway.pipeline.config.explain import explain

ToyChain = Callable[..., Checked]


def found(checked: Checked) -> list[str]:
    """Problems as `column rule: message`."""
    return [f"{p.span.column} {p.rule}: {p.message}" for p in checked.problems]


def test_what_a_component_checks_by_itself_is_a_problem(toy_chain: ToyChain) -> None:
    """At its options as a whole, in its own words."""
    assert ["39 config/invalid: low is above high"] == found(toy_chain("[picky_toy: {low: 3}]"))


def test_a_component_is_not_asked_while_its_options_are_wrong(toy_chain: ToyChain) -> None:
    """Its check would speak about values that nobody gave."""
    assert ["45 config/type: expected a whole number, got text 'x'"] == found(toy_chain("[picky_toy: {low: x}]"))


def test_a_broken_key_of_a_mapping_is_shown_at_the_key(toy_chain: ToyChain) -> None:
    """And a broken value at the value."""
    checked = toy_chain("[every_toy: {codes: {a: b}}, picky_toy: {counts: {a: b}}]")

    assert [
        "48 config/type: expected a whole number, got text 'a'",
        "80 config/type: expected a whole number, got text 'b'",
    ] == [*found(checked)]


def test_a_wrong_key_that_was_meant_for_a_missing_one_is_one_problem(toy_chain: ToyChain) -> None:
    """Two unknown keys do not take the same missing one."""
    checked = toy_chain("[retry_toy: {budget: {windo: 1s, windows: 2s}}]")

    assert ["config/unknown-key", "config/unknown-key"] == [p.rule for p in checked.problems]
    assert ["unknown key 'windo'; rename it to 'window'"] == [
        p.message for p in checked.problems if "rename" in p.message
    ]


def test_keys_beside_the_options_are_named_as_allowed_at_the_top_only(toy_chain: ToyChain) -> None:
    """`when` stands beside the options of a stage, not inside them."""
    outer, inner = toy_chain("[retry_toy: {x: 1}, retry_toy: {budget: {window: 1s, x: 1}}]").problems

    assert outer.message.endswith("per, id, when, enabled)")
    assert inner.message.endswith("(allowed: share, window, old)")


def test_a_deprecated_option_is_a_warning_only_when_it_is_given(toy_chain: ToyChain) -> None:
    """Its default is nobody's choice."""
    assert () == toy_chain("[retry_toy: {budget: {window: 1s}}]").problems
    assert ["warning"] == [p.level for p in toy_chain("[retry_toy: {budget: {window: 1s, old: 1}}]").problems]


def test_optional_lists_and_mappings_are_shown_as_written(toy_chain: ToyChain) -> None:
    """Unions are read and rendered by the member that fits."""
    document = toy_chain("[picky_toy: {maybe: [a, b], counts: {a: 1}}]").require()
    text = explain(document, "pipelines.main.chain[0]")

    assert "  maybe: [a, b]\n  counts: {a: 1}\n" in text
