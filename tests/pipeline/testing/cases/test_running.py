"""What tests can say, and that each thing they say can fail."""

from __future__ import annotations

import os

import pytest

from sluiceway.pipeline.testing.cases.running import prepared, run_case

from .conftest import GATEWAY

SEND = "request: {method: tools/call, params: {name: a, arguments: {q: x}}}"


def case(text: str) -> str:
    """One test with a name."""
    lines = text.strip().splitlines()
    return "\n".join(["  - name: it", *(f"    {line}" for line in lines)]) + "\n"


LEFT = "sinks: {files: {delay: 5s}}\ncancel_after: 1s"
SERVES = "sinks: {files: {reply: {content: [1]}}}"
EXPECTATIONS = [
    ("result", SERVES, "{result: {content: [1]}}", "{result: {content: [2]}}"),
    ("result of an error", "sinks: {files: {error: {code: -1}}}", "{error: {}}", "{result: {}}"),
    ("error of a result", SERVES, "{result: {}}", "{error: {}}"),
    ("error code", "sinks: {files: {error: {code: -7, message: no}}}", "{error: -7}", "{error: -8}"),
    ("error", "sinks: {files: {error: {code: -7, message: no}}}", "{error: {message: n*}}", "{error: {message: m*}}"),
    ("reason", "sinks: {files: {fail: connect_failed}}", "{error: connect_failed}", "{error: upstream_closed}"),
    ("data path", "sinks: {files: {error: {code: 1, data: {a: 2}}}}", "{error: {data.a: 2}}", "{error: {data.b: 2}}"),
    ("relayed", "sinks: {files: {relay: [{params: {progress: 1}}]}}", "{relayed: 1}", "{relayed: 2}"),
    ("relayed list", "sinks: {files: {relay: [{params: {n: 1}}]}}", "{relayed: [{params.n: 1}]}", "{relayed: []}"),
    ("relayed latest", "sinks: {files: {relay: [{}, {params: {n: 1}}]}}", "{relayed: {params.n: 1}}",
     "{relayed: {params.n: 2}}"),
    ("relayed test", "sinks: {files: {relay: [{}, {}]}}", "{relayed: {$length: 2}}", "{relayed: {$length: 1}}"),
    ("asked", "sinks: {files: {ask: [{method: roots/list}]}}\nclient: {answers: [{method: '*'}]}", "{asked: 1}",
     "{asked: 0}"),
    ("decided", SERVES, "{decided: {request_id: null}}", "{decided: {request_id: anything}}"),
    ("stages", SERVES, "{stages: [request_id]}", "{stages: []}"),
    ("sent_to count", SERVES, "{sent_to: {files: 1}}", "{sent_to: {files: 0}}"),
    ("sent_to", SERVES, "{sent_to: {files: {params.arguments.q: x}}}", "{sent_to: {files: {params.arguments.q: y}}}"),
    ("sent_to list", SERVES, "{sent_to: {files: [{method: tools/*}]}}", "{sent_to: {files: []}}"),
    ("figures", SERVES, '{figures: {pipeline_admitted_total: 1}}', '{figures: {pipeline_admitted_total: 2}}'),
    ("labels", SERVES, """{figures: {'sluiceway_pipeline_exchanges_total{end="served"}': 1}}""",
     """{figures: {'pipeline_exchanges_total{end="gone"}': 1}}"""),
    ("takes", "sinks: {files: {delay: 5s}}", "{takes: 5s}", "{takes: 4s}"),
    ("takes between", "sinks: {files: {delay: 5s}}", "{takes: {at_least: 4s, at_most: 6s}}", "{takes: {at_most: 4s}}"),
    ("cancelled", LEFT, "{cancelled: true, takes: 1s}", "{cancelled: false}"),
    ("not cancelled", SERVES, "{cancelled: false}", "{cancelled: true}"),
    ("no result of what was cancelled", LEFT, "{cancelled: true}", "{result: {}}"),
    ("no error of what was cancelled", LEFT, "{cancelled: true}", "{error: {}}"),
    ("headers", SERVES, "{headers: {x-request-id: '*'}}", "{headers: {x-request-id: {$absent: true}}}"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "given", "right", "wrong"), EXPECTATIONS, ids=[row[0] for row in EXPECTATIONS])
def test_an_expectation_passes_when_right_and_fails_when_wrong(run, what, given, right, wrong):
    """And the failure points at the line of the expectation."""
    result = run(case(f"{given}\n{SEND}\nexpect: {right}"))
    assert [finding for outcome in result.outcomes for finding in outcome.findings] == []

    result = run(case(f"{given}\n{SEND}\nexpect: {wrong}"))
    (failed,) = result.failed
    assert {failed.span(finding).line for finding in failed.findings} == {len(given.splitlines()) + 4}


@pytest.mark.parametrize(
    ("mock", "request_", "expect"),
    [
        ("{echo: true}", "{method: x/y, params: {a: 1}}", "{result: {method: x/y, params.a: 1}}"),
        ("{tools: [a]}", "{method: tools/list}", "{result: {tools: [{name: a, inputSchema: {}}]}}"),
        ("{tools: [{name: a, title: A}]}", "{method: tools/list}", "{result: {tools: [{title: A}]}}"),
        ("{resources: ['a://b']}", "{method: resources/list}", "{result: {resources: [{uri: 'a://b'}]}}"),
        ("{}", "{method: prompts/list}", "{result: {prompts: []}, sent_to: {files: 0}}"),
        ("{}", "{method: resources/templates/list}", "{result: {resourceTemplates: []}}"),
        ("{reply: {tools: 5}}", "{method: tools/list}", "{result: {tools: 5}, sent_to: {files: 1}}"),
        ("{tools: [a]}", "{method: server/discover}", "{result: {capabilities: {$exact: {tools: {}}}}}"),
        ("{}", "{method: initialize, params: {protocolVersion: 2025-06-18}}", "{result: {protocolVersion: '2025*18'}}"),
        ("{}", "{method: ping}", "{result: {$exact: {}}}"),
        ("{}", "{method: notifications/roots/list_changed}", "{sent_to: {files: 1}}"),
        ("{}", "{method: notifications/initialized}", "{sent_to: {files: 0}}"),
        ("{rules: [{name: b, reply: {n: 1}}, {method: x/*, reply: {n: 2}}], reply: {n: 3}}",
         "{method: x/y}", "{result: {n: 2}}"),
        ("{rules: [{name: a, reply: {n: 1}}], reply: {n: 3}}",
         "{method: tools/call, params: {name: a}}", "{result: {n: 1}}"),
        ("{faults: [{effect: reset}]}", "{method: x/y}", "{error: upstream_closed}"),
        ("{fail: deadline_exceeded}", "{method: x/y}", "{error: deadline_exceeded}"),
    ],
)  # fmt: skip
def test_what_stands_in_the_place_of_a_sink(run, mock, request_, expect):
    """It answers as it is told, and by itself what every server answers."""
    result = run(case(f"sinks: {{files: {mock}}}\nrequest: {request_}\nexpect: {expect}"))

    assert [finding for outcome in result.outcomes for finding in outcome.findings] == []


@pytest.mark.parametrize(
    ("mock", "word"),
    [
        ("{files: {script: [{reply: {}}]}}", "its script has 1"),
        ("{files: {got: {params.name: b}}}", "files got another request"),
        ("{files: {ask: [{method: roots/list, answer: {result: {}}}]}}", "the client's answer"),
        ("{}", "which the test does not mock"),
    ],
)
def test_what_a_sink_does_not_expect_fails_the_test(run, mock, word):
    """Though nothing else is expected of the request."""
    result = run(case(f"sinks: {mock}\n{SEND}\nrepeat: 2\nexpect: {{cancelled: false}}"))

    (failed,) = result.failed
    assert any(word in finding.message for finding in failed.findings)


def test_steps_come_one_after_the_other_and_time_passes_between_them(run):
    """Virtual time: an hour takes none."""
    result = run("""\
  - name: it
    sinks: {files: {reply: {}}}
    steps:
      - {request: {method: a/b}, expect: {sent_to: {files: 1}, takes: 0s}}
      - {after: 1h}
      - {after: 1h, request: {method: a/c}, expect: {sent_to: {files: {method: a/c}}}}
    expect: {sent_to: {files: [{method: a/b}, {method: a/c}]}}
""")

    assert result.failed == []
    assert result.outcomes[0].virtual_s == pytest.approx(7200)


def test_things_together_begin_at_the_same_moment(run):
    """And the step is over when all of them are."""
    result = run("""\
  - name: it
    sinks: {files: {delay: 5s}}
    steps:
      - after: 1s
        together:
          - {request: {method: a/b}, at_once: 3, expect: {takes: 5s}}
          - {after: 2s, request: {method: a/c}, expect: {takes: 5s}}
        expect: {sent_to: {files: {$length: 4}}}
      - {request: {method: a/d}, expect: {takes: 5s}}
""")

    assert result.failed == []
    assert result.outcomes[0].virtual_s == pytest.approx(13)


def test_a_crowd_that_fails_in_one_way_is_told_once(run):
    """With how many there were."""
    result = run(case(f"sinks: {{files: {{}}}}\nat_once: 7\n{SEND}\nexpect: {{error: 1}}"))

    (finding,) = result.failed[0].findings
    assert finding.message == "a result came, no error (and so with 6 more)"


def test_a_test_that_goes_wrong_again_and_again_ends_early(run):
    """A thousand repetitions are not made for nothing."""
    result = run(case(f"sinks: {{files: {{}}}}\nrepeat: 1000\n{SEND}\nexpect: {{error: 1}}\nexpect_last: {{error: 2}}"))

    (finding,) = result.failed[0].findings
    assert "and so with 19 more" in finding.message


def test_the_date_goes_with_virtual_time_and_jumps(run):
    """Rules that end are tried without waiting for the year of their end."""
    gateway = GATEWAY.replace(
        "[request_id]", '[{access: {rules: [{allow: "*", valid_until: "2026-01-01T01:00:00Z"}]}}]'
    )
    result = run(
        """\
  - name: it
    sinks: {files: {}}
    steps:
      - {request: {method: tools/call, params: {name: a}}, expect: {result: {}}}
      - {after: 59m, request: {method: tools/call, params: {name: a}}, expect: {result: {}}}
      - {clock_jump: 2m, request: {method: tools/call, params: {name: a}}, expect: {error: forbidden}}
      - {clock_jump: -2m, request: {method: tools/call, params: {name: a}}, expect: {result: {}}}
""",
        gateway,
    )

    assert result.failed == []


def test_clients_of_one_session_name_are_one_client(run):
    """And those of another name another."""
    result = run("""\
  - name: it
    sinks: {files: {}}
    client: {era: legacy, version: 2025-06-18}
    steps:
      - {request: {method: a/b}, expect: {result: {}}}
      - {request: {method: a/b}, client: {era: legacy, session: other}, expect: {result: {}}}
""")

    assert result.failed == []


def test_questions_are_answered_as_the_test_says(run):
    """By the first answer that fits; after its delay; with an error, if so."""
    result = run("""\
  - name: it
    client:
      answers:
        - {method: roots/list, error: {code: -5}, delay: 3s}
        - {method: elicitation/*, reply: {action: accept}}
    sinks:
      files:
        ask:
          - {method: roots/list, answer: {error.code: -5}}
          - {method: elicitation/create, answer: {result.action: accept}}
          - {method: sampling/createMessage, answer: {error.code: -32601}}
    request: {method: a/b}
    expect: {takes: 3s, asked: [{method: roots/list}, {method: elicitation/create}, {method: "sampling/*"}]}
""")

    assert result.failed == []


def test_stores_are_in_memory_and_fail_on_purpose(run):
    """What is declared as a file is none, and a store that fails is met by whoever uses it."""
    gateway = GATEWAY.replace('http: {url: "http://127.0.0.1:1/mcp"}', "embedded: {store: kept}")
    listing = "request: {method: tools/call, params: {name: list_notes}}"
    result = run(
        f"""\
  - name: a store that works
    {listing}
    expect: {{result: {{isError: {{$not: true}}}}, takes: 0s}}
  - name: a store that is slow
    stores: {{kept: [{{latency: 3s, times: 1}}]}}
    {listing}
    expect: {{result: {{isError: {{$not: true}}}}, takes: 3s}}
  - name: a store that hangs
    stores: {{kept: [{{effect: hang}}]}}
    {listing}
    expect: {{error: deadline_exceeded, takes: 30s}}
  - name: a store that fails
    stores: {{kept: [{{effect: fail}}]}}
    {listing}
    expect: {{result: {{isError: true}}}}
""",
        gateway,
    )

    assert [finding for outcome in result.outcomes for finding in outcome.findings] == []


def test_a_gateway_that_nothing_feeds_gets_a_source(run):
    """It is tested all the same."""
    gateway = GATEWAY.replace('sources: {local: {http: {bind: "127.0.0.1:8080"}}}\n', "")

    assert run(case(f"{SERVES}\n{SEND}\nexpect: {{result: {{}}}}"), gateway).failed == []


def test_what_breaks_the_gateway_fails_its_test_and_the_next_one_runs(run):
    """A stage that cannot be opened, say."""
    gateway = GATEWAY.replace("[request_id]", "[{audit: {path: /nowhere/at/all.jsonl}}]")
    result = run(case(f"{SERVES}\n{SEND}\nexpect: {{result: {{}}}}"), gateway)

    assert "pipelines.main.audit: open" in result.failed[0].findings[0].message


def test_exceptions_are_shown_with_their_traceback(run, tmp_path):
    """A bug of a stage is a failure, and its traceback is in the report."""
    (tmp_path / "bug.py").write_text('''
from sluiceway.pipeline.model.component import Middleware, middleware

@middleware("bug")
class Bug(Middleware):
    """A stage with a bug."""
    async def __call__(self, exchange, call_next):
        raise KeyError("the bug")
''')
    gateway = GATEWAY.replace("version: 1", "version: 1\nplugins: [./bug.py]").replace("[request_id]", "[bug]")
    result = run(case(f"{SERVES}\n{SEND}\nexpect: {{result: {{}}}}"), gateway)

    assert "KeyError: 'the bug'" in result.failed[0].log[0]


def test_variables_are_those_of_before_afterwards(run):
    """And the directory of the tests is gone."""
    before = dict(os.environ)
    run(case(f"{SERVES}\n{SEND}\nexpect: {{result: {{}}}}"))

    assert dict(os.environ) == before


def test_every_run_is_the_same(run):
    """Chance is seeded: the same requests are hit, in every run."""
    text = case(
        "sinks: {files: {faults: [{effect: reset, share: 50%, jitter: 1s}]}}\nrepeat: 30\n"
        f"{SEND}\nexpect: {{result: {{}}}}"
    )
    results = [run(text) for _ in range(3)]

    assert len({str(result.failed[0].findings[0].message) for result in results}) == 1
    assert len({result.outcomes[0].virtual_s for result in results}) == 1


def test_a_request_that_nobody_ends_fails_its_test(run):
    """A subscription, for one; the test goes on."""
    result = run("""\
  - name: it
    sinks: {files: {faults: [{effect: hang}]}}
    steps:
      - request: {method: subscriptions/listen, params: {notifications: {toolsListChanged: true}}}
      - {request: {method: ping}, client: {era: legacy}, expect: {result: {}}}
    expect: {sent_to: {files: 1}}
""")

    (finding,) = result.failed[0].findings
    assert finding.path == ("steps", 0, "request")
    assert "does not end" in finding.message


def test_a_directory_of_somebody_else_is_not_emptied(tmp_path, monkeypatch):
    """Though a variable has the same name."""
    (tmp_path / "precious").touch()
    (tmp_path / "gateway.yaml").write_text(
        GATEWAY + f"tests: [{{name: it, {SERVES}, {SEND}, expect: {{result: {{}}}}}}]\n"
    )
    monkeypatch.setenv("TEST_DIR", str(tmp_path))
    with prepared(tmp_path / "gateway.yaml") as suite:
        pass
    assert suite.document is not None
    outcome = run_case(suite.tests[0], suite.document)

    assert outcome.passed
    assert (tmp_path / "precious").exists()


def test_each_test_finds_an_empty_directory(run):
    """What the one before has written is gone."""
    gateway = GATEWAY.replace("[request_id]", '[{audit: {path: "${TEST_DIR}/a/audit.jsonl"}}]')
    gateway = gateway.replace("/a/audit", "/audit")
    text = f"    {SERVES}\n    {SEND}\n    expect: {{figures: {{audit_records_total: 1}}}}\n"
    text = text.replace("audit_records_total: 1", "audit_records_total: {$at_least: 1, $at_most: 2}")

    assert run(f"  - name: one\n{text}  - name: two\n{text}", gateway).failed == []
