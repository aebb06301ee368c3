"""The JSON Schema: valid, and of one mind with the loader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from sluiceway.pipeline.config import Checked
from sluiceway.pipeline.config.include import text_source
from sluiceway.pipeline.config.schema import schema
from sluiceway.pipeline.config.yaml_loader import load_yaml
from sluiceway.pipeline.model.registry import Registry


@pytest.fixture
def exported(registry: Registry) -> Any:
    """The schema of the installed components and the toys."""
    return schema(registry)


def data(text: str) -> Any:
    """A YAML text as plain data."""
    root, problems = load_yaml(text, text_source(text, "t", Path.cwd()))
    assert root is not None
    assert problems == []
    return json.loads(json.dumps(root.plain))


def around(chain: str) -> str:
    """A configuration around a chain."""
    return (
        "version: 1\nx-any: [1]\nsources: {a: {quiet_toy: }}\nstores: {m: {memory_toy: {}}}\n"
        f"pipelines: {{main: {{timeout: 5s, max_in_flight: '${{N}}', sink: out, chain: [{chain}]}}}}\n"
        "sinks: {out: {echo_toy: {}, max_in_flight: 3, chain: [retry_toy]}}\nrun: {log_level: debug}\n"
    )


def test_the_schema_is_a_schema(exported: Any) -> None:
    """By the meta-schema of 2020-12."""
    jsonschema_rs.meta.validate(exported)

    assert exported["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert exported["title"] == "Sluiceway configuration"


def keywords(schema: Any) -> set[str]:
    """Every keyword of a schema, at every depth; names of properties and definitions are none."""
    found = set(schema)
    for keyword, value in schema.items():
        if keyword in ("properties", "patternProperties", "$defs"):
            inside = list(value.values())
        elif keyword in ("items", "additionalProperties", "propertyNames", "not", "anyOf", "oneOf"):
            inside = value if isinstance(value, list) else [value]
        else:
            continue
        found = found.union(*(keywords(each) for each in inside if isinstance(each, dict)))
    return found


def test_every_keyword_means_something(exported: Any) -> None:
    """A validator takes a keyword it does not know for a comment, and would accept everything."""
    known = {
        "$defs", "$ref", "$schema", "additionalProperties", "anyOf", "const", "default", "deprecated", "description",
        "enum", "examples", "exclusiveMinimum", "items", "maxLength", "maxProperties", "maximum", "minLength",
        "minProperties", "minimum", "not", "oneOf", "pattern", "patternProperties", "properties", "propertyNames",
        "required", "title", "type",
    }  # fmt: skip

    assert keywords(exported) - known == set()


def test_a_deprecated_option_says_what_to_use(exported: Any) -> None:
    """Beside what it meant."""
    old = exported["$defs"]["middleware.retry_toy"]["properties"]["budget"]["anyOf"][0]["properties"]["old"]

    assert (True, "What was. Deprecated: use share.") == (old["deprecated"], old["description"])


@pytest.mark.parametrize(
    ("chain", "valid"),
    [
        ("retry_toy", True),
        ("retry_toy: ", True),
        ("retry_toy: {}", True),
        ("retry_toy: {max_attempts: 3, base_delay: 100ms, per: tenant, rates: {a: 60/min}}", True),
        ("retry_toy: {id: x, enabled: false}", True),
        ("retry_toy: {max_attempts: '${N}'}", True),
        ("retry_toy: {base_delay: '${N}', per: '${P}'}", True),
        ("retry_toy: {when: {method: tools/*, name: [a, b]}}", True),
        ("retry_toy: {budget: {window: 5s, share: 20%}}", True),
        ("every_toy: {size: 64KiB, ratio: 0.2, rate: 5/250ms, secret: {from_env: A}, colour: red, level: 2}", True),
        ("every_toy: {either: never, names: [a], numbers: [1], anything: {a: [1]}, headers: {a: b}, flag: true}", True),
        ("every_toy: {number: 5, count: null, path: x, secrets: [{from_file: x}], codes: {404: gone}}", True),
        ("'my.module:Stage'", True),
        ("{'my.module:Stage': {anything: 1}}", True),
        ("retri_toy", False),
        ("retri_toy: {}", False),
        ("{retry_toy: {}, cache_toy: {}}", False),
        ("retry_toy: {max_attempts: 0}", False),
        ("retry_toy: {max_attempts: 2.5}", False),
        ("retry_toy: {max_attempts: '3'}", False),
        ("retry_toy: {base_delay: 5}", False),
        ("retry_toy: {base_delay: 5 minutes}", False),
        ("retry_toy: {per: callr}", False),
        ("retry_toy: {budget: {share: 20%}}", False),
        ("retry_toy: {rates: {a: 60}}", False),
        ("retry_toy: {when: {nam: x}}", False),
        ("retry_toy: {unknown: 1}", False),
        ("every_toy: {size: 64}", False),
        ("every_toy: {number: 101}", False),
        ("every_toy: {secret: hunter2}", False),
        ("every_toy: {secret: {from_env: a, from_file: b}}", False),
        ("every_toy: {names: a}", False),
        ("every_toy: {ratio: 1.5}", False),
        ("every_toy: {flag: 'yes'}", False),
        ("every_toy: {level: 3}", False),
        ("5", False),
    ],
)  # fmt: skip
def test_schema_and_loader_agree(exported: Any, check_it: Callable[..., Checked], chain: str, valid: bool) -> None:
    """What one takes the other takes, except for what only the loader can know."""
    text = around(chain)
    checked = check_it(text, {"N": "5s" if "base_delay: '$" in chain else "5", "P": "caller"})
    by_loader = not any(p.level == "error" and "my.module" not in p.message for p in checked.problems)
    if "base_delay: '$" in chain:
        by_loader = True  # one variable cannot be a number and a duration

    assert valid == jsonschema_rs.is_valid(exported, data(text))
    assert valid == by_loader


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("version: 1\ninclude: [a.yaml]\n", True),
        ("version: 1\n", False),
        ("version: 2\npipelines: {}\n", False),
        ("pipelines: {}\n", False),
        ("version: 1\npipelines: {}\nsinks: {a: {}}\n", False),
        ("version: 1\npipelines: {}\nsinks: {a: {echo_toy: {}, stdio: {command: [x]}}}\n", False),
        ("version: 1\npipelines: {}\nsinks: {a: {'m:C': {}}}\n", True),
        ("version: 1\npipelines: {}\nsinks: {a: {'m:C': {}, required: false}}\n", True),
        ("version: 1\npipelines: {}\nsinks: {a: {required: false}}\n", False),
        ("version: 1\npipelines: {}\nsinks: {a: {route_toy: {}}}\n", False),
        ("version: 1\npipelines: {}\nsources: {a: {quiet_toy: {}, pipeline: main}}\n", True),
        ("version: 1\npipelines: {}\nsources: {a: {quiet_toy: {}, chain: []}}\n", False),
        ("version: 1\npipelines: {}\nother: {}\n", False),
        ("version: 1\npipelines: {}\nrun: {admin: {bind: 'unix:x', token: {from_env: T}}}\n", True),
        ("version: 1\npipelines: {}\nrun: {drain_timeout: 25}\n", False),
    ],
)
def test_the_frame_of_the_file_is_checked(exported: Any, text: str, valid: bool) -> None:
    """Top-level keys, exactly one transport, common keys."""
    assert valid == jsonschema_rs.is_valid(exported, data(text))


def test_options_carry_what_an_editor_shows(exported: Any) -> None:
    """Descriptions, defaults, examples, bounds and deprecations."""
    options = exported["$defs"]["middleware.retry_toy"]["properties"]
    budget = options["budget"]["anyOf"][0]["properties"]

    assert options["max_attempts"] == {
        "description": "Attempts, the first included.",
        "anyOf": [{"type": "integer", "minimum": 1, "maximum": 10}, {"type": "string", "pattern": r"\$\{"}],
        "default": 3,
    }
    assert ("100ms", [{"acme": "60/min"}]) == (options["base_delay"]["default"], options["rates"]["examples"])
    assert budget["old"]["deprecated"]
    assert "Tries again." == exported["$defs"]["middleware.retry_toy"]["description"]


def test_what_cannot_be_loaded_is_left_out(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    """A broken plugin does not take the editor's completion away."""
    from sluiceway.pipeline.model import registry as module

    broken = {kind: {"broken": "no.such:Class"} for kind in module.BUILT_IN}
    monkeypatch.setattr(module, "BUILT_IN", broken)

    assert not [name for name in schema(registry)["$defs"] if "broken" in name]
    assert "sink.stdio" not in schema(registry)["$defs"]
