"""Components in words: for a terminal, and for the reference."""

from __future__ import annotations

from sluiceway.pipeline.config.describe import describe, describe_markdown, reference
from sluiceway.pipeline.model.component import ComponentKind
from sluiceway.pipeline.model.registry import Registry


def test_a_component_is_described_for_a_terminal(registry: Registry) -> None:
    """What it does, every option with its value, default, bounds and example, and its order rules."""
    assert describe(registry.find(ComponentKind.MIDDLEWARE, "retry_toy")) == (
        "retry_toy (middleware)\n"
        "\n"
        "Tries again.\n"
        "\n"
        "options:\n"
        "  max_attempts: a whole number, at least 1, at most 10 (default 3)\n"
        "      Attempts, the first included.\n"
        "  base_delay: a duration such as 5s, at least 0s (default 100ms)\n"
        "      Pause before the second attempt.\n"
        "  budget: a mapping (optional)\n"
        "      Bound on repetitions.\n"
        "      example: budget: {window: 10s}\n"
        "      share: a share such as 20%, at most 50% (default 20%)\n"
        "          Share of requests that may be repeated.\n"
        "      window: a duration such as 5s (required)\n"
        "          Time over which they are counted.\n"
        "          example: window: 10s\n"
        "      old: a whole number (optional)\n"
        "          What was.\n"
        "          deprecated: use share\n"
        "  rates: a mapping (name: a rate such as 60/min) (default {})\n"
        "      Rates by tenant.\n"
        "      example: rates: {acme: 60/min}\n"
        "  per: one of caller, tenant, source (default caller)\n"
        "      What is counted.\n"
    )


def test_order_rules_are_told_with_their_reasons(registry: Registry) -> None:
    """And a component without options says so."""
    assert describe(registry.find(ComponentKind.MIDDLEWARE, "trace_toy")) == (
        "trace_toy (middleware)\n\nWants to be first, and outside of retry.\n\noptions:\n  none\n\norder:\n"
        "  first (info): refusals before it have no span\n"
        "  after late (warning): it needs what late finds out\n"
    )


def test_a_component_is_described_in_markdown(registry: Registry) -> None:
    """A table with one row an option, those inside options by their path; errors in Python are left out."""
    cache = describe_markdown(registry.find(ComponentKind.MIDDLEWARE, "cache_toy"))
    retry = describe_markdown(registry.find(ComponentKind.MIDDLEWARE, "retry_toy"), "##")

    assert cache == (
        "### `cache_toy`\n\nRemembers replies.\n\n"
        "| option | value | default | meaning |\n| --- | --- | --- | --- |\n"
        "| `max_ttl` | a duration such as 5s, more than 0s | `30s` | Longest time a reply is kept. |\n"
        "| `store` | text | optional | Where replies are kept. Example: `shared`. |\n"
    )
    assert retry.startswith("## `retry_toy`\n")
    assert (
        "| `budget.window` | a duration such as 5s | required | Time over which they are counted. Example: `10s`. |"
        in retry
    )
    assert "| `budget.old` | a whole number | optional | What was. **Deprecated:** use share. |" in retry


def test_markdown_tells_order_rules_and_empty_declarations(registry: Registry) -> None:
    """A stage without options, with rules."""
    trace = describe_markdown(registry.find(ComponentKind.MIDDLEWARE, "trace_toy"))

    assert trace.endswith(
        "No options.\n\nOrder:\n\n* first (info): refusals before it have no span\n"
        "* after late (warning): it needs what late finds out\n"
    )


def test_the_reference_has_everything(registry: Registry) -> None:
    """The file's own keys and every component that can be loaded, each under its kind."""
    text = reference(registry)
    headings = [line for line in text.splitlines() if line.startswith("#")]

    assert headings[:5] == [
        "# Configuration reference",
        "## The file",
        "## `pipelines.<id>`",
        "## `run`",
        "## Every stage",
    ]
    assert headings.index("## Sources") < headings.index("### `listen_toy`") < headings.index("## Stages")
    assert headings.index("## Stages") < headings.index("### `timeout`") < headings.index("## Sinks")
    assert headings.index("## Sinks") < headings.index("### `echo_toy`") < headings.index("## Stores")
    assert "\nKeys that each stage takes beside its own options.\n" in text
    assert "| `drain_timeout` |" in text
    assert "| `pipeline` |" in text
    assert reference().count("### ") == text.count("### ") - len(list(registry.rows())) + len(list(Registry().rows()))


def test_what_only_callers_in_python_need_is_left_out() -> None:
    """The lists of arguments and errors of a class are nothing to who writes YAML."""
    source = Registry().find(ComponentKind.SOURCE, "stdio")

    assert "Args:" in (source.__doc__ or "") + (source.__init__.__doc__ or "")
    assert "Args:" not in describe(source)
    assert "Args:" not in reference()
