"""How failures look."""

from __future__ import annotations

import json

from sluiceway.pipeline.testing.cases.coverage import Coverage
from sluiceway.pipeline.testing.cases.report import as_json, render_failure, render_junit, summary

TESTS = """\
  - name: the third <is> refused
    sinks: {files: {reply: {content: [{type: text, text: "\\u001b[31m"}]}}}
    repeat: 3
    request: {method: tools/call, params: {name: a}}
    expect_last: {error: {data.retry_after_ms: 1}}
  - name: fine
    sinks: {files: {}}
    request: {method: tools/call, params: {name: a}}
    expect: {result: {}}
"""
GATEWAY = """\
version: 1
sources: {local: {stdio: {}}}
pipelines: {main: {chain: [{rate_limit: {rate: 2/s}}], sink: files}}
sinks: {files: {http: {url: "http://127.0.0.1:1/mcp"}}}
"""
TEXT = """\
gateway_test.yaml:6:48: the third <is> refused: the error is another one
     6 |     expect_last: {error: {data.retry_after_ms: 1}}
       |                                                ^
   expected error.data.retry_after_ms: 1
   actual   error.data.retry_after_ms: 500
   the way of tools/call a, error 42900 (rate_limited) after 0.000 s
        +0.000 s  pipelines.main.rate_limit  RateLimited after 0.000 s  [refuse: 2/s per caller]
"""


def test_a_failure_shows_place_comparison_and_way(run):
    """Everything that is needed to understand it."""
    result = run(TESTS, GATEWAY)

    assert [outcome.passed for outcome in result.outcomes] == [False, True]
    assert render_failure(result.failed[0]) == TEXT


def test_what_is_long_is_shown_as_a_diff(run):
    """Line by line."""
    long = ", ".join(f"k{number}: {number}" for number in range(30))
    result = run(
        f"  - name: it\n    sinks: {{files: {{reply: {{{long}}}}}}}\n    request: {{method: a/b}}\n"
        f"    expect: {{result: {{$exact: {{{long.replace('k7: 7', 'k7: 8')}}}}}}}\n",
        GATEWAY,
    )
    text = render_failure(result.failed[0])

    assert "--- expected" in text
    assert '+  "k7": 7,' in text


def test_programs_get_the_same(run):
    """As JSON, with absent values as null."""
    result = run(TESTS, GATEWAY)
    (suite,) = json.loads(json.dumps(as_json([result])))
    failed, fine = suite["tests"]

    assert (failed["passed"], fine["passed"]) == (False, True)
    assert failed["findings"][0]["line"] == 6
    assert (failed["findings"][0]["expected"], failed["findings"][0]["actual"]) == (1, 500)
    assert failed["findings"][0]["way"][0].startswith("tools/call a")


def test_ci_servers_get_junit(run):
    """Well-formed, whatever stands in names and values."""
    text = render_junit([run(TESTS, GATEWAY), run("  - nme: x\n")])

    assert 'tests="2" failures="1" errors="0"' in text
    assert 'name="the third &lt;is&gt; refused"' in text
    assert '<error message="unknown key' in text
    assert text.count("<testcase") == text.count("</testcase>") + text.count('"/>')


def test_the_summary_is_one_line(run):
    """With what was not run."""
    assert summary([run(TESTS, GATEWAY), run("  - nme: x\n")]).startswith(
        "1 passed, 1 failed, 1 not run because of errors"
    )
    assert summary([]).startswith("no tests")


def test_coverage_tells_stages_guards_rules_and_sinks(run):
    """What was touched, and what was not, with its place."""
    gateway = """\
version: 1
sources: {local: {stdio: {}}}
pipelines:
  main:
    chain:
      - request_id: {when: {method: tools/list}}
      - access: {rules: [{id: all, allow: "*"}, {id: none, deny: "tools:secret"}]}
      - rate_limit:
          rate: 10/s
          overrides: [{when: {caller: ana}, rate: 1/s}, {when: {caller: bob}, rate: 2/s}]
      - cache: {rules: [{method: [tools/list]}, {method: [tools/call], name: [x]}]}
    sink: files
sinks:
  files: {http: {url: "http://127.0.0.1:1/mcp"}, chain: [{retry: {when: {name: never}}}]}
  other: {http: {url: "http://127.0.0.1:1/mcp"}, chain: [timeout]}
"""
    seen: list[Coverage] = []
    run(
        "  - name: it\n    sinks: {files: {tools: [a], rules: [{method: tools/call}]}}\n    caller: {subject: ana}\n"
        "    steps:\n      - {request: {method: tools/list}, expect: {result: {}}}\n"
        "      - {after: 5s, request: {method: tools/call, params: {name: a}}, expect: {result: {}}}\n",
        gateway,
        seen,
    )
    missing = {(item.kind, item.id, item.missing) for item in seen[0].missing()}

    assert missing == {
        ("rule", "pipelines.main.rate_limit: overrides overrides[1]", "never applied"),
        ("rule", "pipelines.main.cache: rules rules[1]", "never applied"),
        ("rule", "pipelines.main.access: rules none", "never applied"),
        ("stage", "sinks.files.retry", "never passed"),
        ("stage", "sinks.other.timeout", "never passed"),
        ("sink", "sinks.other", "never reached"),
        ("guard", "sinks.files.retry", "its `when` never matched"),
        ("guard", "sinks.files.retry", "its `when` always matched"),
    }
    assert next(iter(seen[0].missing())).place.startswith("gateway.yaml:")
