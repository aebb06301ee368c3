"""Order rules along every way of an exchange, open doors, contradictions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sluiceway.pipeline.config import Checked
from sluiceway.pipeline.config.lint import is_open

CheckIt = Callable[..., Checked]


def rules(checked: Checked) -> list[str]:
    """What was found about order and doors."""
    return [f"{p.level} {p.rule}" for p in checked.problems if not p.rule.startswith("config/")]


@pytest.mark.parametrize(
    ("bind", "result"),
    [
        ("127.0.0.1:8080", False),
        ("127.9.9.9:1", False),
        ("[::1]:8080", False),
        ("localhost:8080", False),
        ("unix:/run/s.sock", False),
        ("fd:3", False),
        ("0.0.0.0:8080", True),
        ("[::]:8080", True),
        (":8080", True),
        ("192.168.1.5:80", True),
        ("gateway.example.com:443", True),
        ("0.0.0.0", True),
        ("localhost", False),
    ],
)
def test_an_address_is_open_unless_it_is_known_to_be_local(bind: str, result: bool) -> None:
    """A name that is not `localhost` may be anything."""
    assert result == is_open(bind)


@pytest.mark.parametrize(
    ("chain", "found"),
    [
        ("[auth_toy, cache_toy]", []),
        ("[cache_toy, auth_toy]", ["error order/cache-before-auth"]),
        ("[cache_toy: {enabled: false}, auth_toy]", []),
        ("[cache_toy, auth_toy: {enabled: false}]", []),
        ("[auth_toy, cache_toy, auth_toy]", ["error order/cache-before-auth"]),
        ("[trace_toy, auth_toy]", []),
        ("[auth_toy, trace_toy]", ["info order/trace_toy-not-first"]),
        ("[trace_toy, late_toy]", ["warning order/trace_toy-before-late"]),
        ("[late_toy, trace_toy]", ["info order/trace_toy-not-first"]),
    ],
)
def test_order_is_checked_within_a_chain(toy_chain: CheckIt, chain: str, found: list[str]) -> None:
    """Stages that are switched off do not count."""
    assert found == rules(toy_chain(chain))


SINKS = """
    version: 1
    sources: {{s: {{quiet_toy: {{}}, pipeline: main}}}}
    pipelines:
      main: {{chain: {main}, sink: one}}
      other: {{chain: [cache_toy], sink: alone}}
    sinks:
      one: {{route_toy: {{to: [two]}}, chain: {one}}}
      two: {{route_toy: {{to: [three]}}, chain: {two}}}
      three: {{echo_toy: {{}}, chain: {three}}}
      alone: {{echo_toy: {{}}}}
"""


@pytest.mark.parametrize(
    ("main", "one", "two", "three", "found"),
    [
        ("[auth_toy]", "[]", "[]", "[cache_toy]", 0),
        ("[cache_toy]", "[]", "[]", "[auth_toy]", 1),
        ("[cache_toy]", "[auth_toy]", "[]", "[auth_toy]", 2),
        ("[]", "[cache_toy]", "[auth_toy]", "[]", 1),
        ("[]", "[]", "[cache_toy]", "[auth_toy]", 1),
        ("[]", "[auth_toy]", "[cache_toy]", "[]", 0),
        ("[]", "[]", "[]", "[cache_toy, auth_toy]", 1),
    ],
)
def test_order_is_checked_along_the_way_through_the_sinks(
    check_it: CheckIt, main: str, one: str, two: str, three: str, found: int
) -> None:
    """From the pipeline's chain to those of all sinks behind it, at any distance, and not to others."""
    checked = check_it(SINKS.format(main=main, one=one, two=two, three=three))

    assert ["error order/cache-before-auth"] * found == rules(checked)


def test_first_is_about_the_own_chain(check_it: CheckIt) -> None:
    """The first stage of a sink's chain is first there."""
    assert [] == rules(check_it(SINKS.format(main="[auth_toy]", one="[trace_toy]", two="[]", three="[]")))


def gateway(sources: str, pipeline: str = "", run: str = "{}") -> str:
    """A configuration around its sources."""
    return (
        f"version: 1\nsources: {sources}\npipelines:\n  main: {{chain: [{pipeline}]}}\n"
        f"sinks: {{out: {{echo_toy: {{}}}}}}\nrun: {run}\n"
    )


@pytest.mark.parametrize(
    ("bind", "chain", "found"),
    [
        ("127.0.0.1:80", "", []),
        ("0.0.0.0:80", "", ["warning security/open-bind"]),
        ("0.0.0.0:80", "auth_toy", []),
        ("0.0.0.0:80", "auth_toy: {enabled: false}", ["warning security/open-bind"]),
        ("0.0.0.0:80", "late_toy", ["warning security/open-bind"]),
    ],
)
def test_an_open_door_without_authentication_is_a_warning(
    check_it: CheckIt, bind: str, chain: str, found: list[str]
) -> None:
    """Only an `auth` stage that is switched on closes it."""
    assert found == rules(
        check_it(gateway(f"{{a: {{listen_toy: {{bind: '{bind}'}}}}, q: {{quiet_toy: {{}}}}}}", chain))
    )


OPTIONAL_KEYS = "auth_api_key: {pepper: {from_env: P}, file: k, optional: true}"


@pytest.mark.parametrize(
    ("chain", "found"),
    [
        (f"{OPTIONAL_KEYS}", ["error security/auth-optional"]),
        (f"{OPTIONAL_KEYS}, auth_anonymous: {{optional: true}}", ["error security/auth-optional"]),
        (f"{OPTIONAL_KEYS}, auth_anonymous: {{enabled: false}}", ["error security/auth-optional"]),
        (f"{OPTIONAL_KEYS}, auth_anonymous", []),
        ("auth_anonymous", []),
    ],
)
def test_some_auth_stage_must_decide(check_it: CheckIt, chain: str, found: list[str]) -> None:
    """If each leaves it to the next, whoever shows nothing comes in."""
    assert found == rules(check_it(gateway("{q: {quiet_toy: {}}}", chain)))


@pytest.mark.parametrize(
    ("http", "chain", "found"),
    [
        ("bind: ['127.0.0.1:80', '0.0.0.0:81']", "", ["warning security/open-bind"]),
        ("bind: ['127.0.0.1:80', '[::1]:81']", "", []),
        ("bind: ['127.0.0.1:80', '127.0.0.1:80']", "", ["error config/same-bind"]),
        ("bind: '127.0.0.1:9464'", "", ["error config/same-bind"]),
        ("bind: '0.0.0.0:80'", "auth_toy", ["info security/plain-bind"]),
        ("bind: '0.0.0.0:80', tls: {cert: a.pem}", "auth_toy", []),
        ("bind: '0.0.0.0:80', tls: {cert: a.pem}", "", ["warning security/open-bind"]),
        ("bind: '127.0.0.1:80'", "auth_toy", []),
    ],
)
def test_every_address_of_a_source_is_looked_at(check_it: CheckIt, http: str, chain: str, found: list[str]) -> None:
    """One of a list is as open as one alone; credentials should not be said where others can listen."""
    run = "{admin: {bind: '127.0.0.1:9464', token: {from_env: T}}}"
    checked = check_it(gateway(f"{{a: {{http: {{{http}}}}}}}", chain, run))

    assert found == [f"{problem.level} {problem.rule}" for problem in checked.problems]


def test_a_default_bind_is_looked_at_too(check_it: CheckIt) -> None:
    """Two sources that say nothing bind the same default; the place is their own."""
    checked = check_it(gateway("{a: {listen_toy: {}}, b: {listen_toy: {}}}"))

    assert [("config/same-bind", 2, 32)] == [(p.rule, p.span.line, p.span.column) for p in checked.problems]


def test_any_free_port_may_be_asked_for_twice(check_it: CheckIt) -> None:
    """Port 0 is a different one each time."""
    source = "{listen_toy: {bind: '127.0.0.1:0'}}"

    assert () == check_it(gateway(f"{{a: {source}, b: {source}}}")).problems


@pytest.mark.parametrize(
    ("admin", "found"),
    [
        ("{token: {from_env: T}}", []),
        ("{}", ["security/admin-token"]),
        ("{bind: 'unix:./a.sock'}", []),
        ("{bind: '0.0.0.0:1', token: {from_env: T}}", ["security/admin-bind"]),
    ],
)
def test_the_admin_listener_is_for_this_machine_and_asks_for_its_token(
    check_it: CheckIt, admin: str, found: list[str]
) -> None:
    """A Unix socket has its file's permissions."""
    assert found == [p.rule for p in check_it(gateway("{q: {quiet_toy: {}}}", run=f"{{admin: {admin}}}")).problems]


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        ("timeout: 10m", []),
        ("timeout: 11m", ["error config/timeout-over-max"]),
        ("timeout: 11m, timeout_max: 20m", []),
        ("timeout_max: 29s", ["error config/timeout-over-max"]),
        ("wait_at_most: 2s", ["warning config/no-effect"]),
        ("wait_at_most: 2s, max_waiting: 1", []),
        ("timeout: 11m, max_waiting: x", ["error config/type"]),
    ],
)
def test_limits_that_contradict_each_other_are_told(check_it: CheckIt, limits: str, found: list[str]) -> None:
    """Unless they could not be read at all."""
    head = "version: 1\nsources: {q: {quiet_toy: {}}}\nsinks: {o: {echo_toy: {}}}\n"
    checked = check_it(f"{head}pipelines: {{main: {{{limits}}}}}\n")

    assert found == [f"{p.level} {p.rule}" for p in checked.problems]


SEVERAL = """
    version: 1
    sources: {{s: {{quiet_toy: {{}}, pipeline: main}}}}
    pipelines:
      main: {{chain: [{stage}], sink: all}}
    sinks:
      all: {{route_toy: {{to: [one, two]}}}}
      one: {{echo_toy: {{}}}}
      two: {{echo_toy: {{}}, chain: [{inner}]}}
"""


@pytest.mark.parametrize(
    ("stage", "inner", "found"),
    [
        ("circuit_breaker", "", ["warning order/circuit_breaker-over-several-sinks"]),
        ("circuit_breaker: {per: target}", "", []),
        ("retry", "", ["warning order/retry-over-several-sinks"]),
        ("log", "{retry: {}}, {circuit_breaker: {}}", []),
        ("circuit_breaker: {enabled: false}", "", []),
        ("log", "{retry: {when: {method: [tools/call]}}}", ["error retry/not-repeatable"]),
        ("log", "{retry: {when: {method: ['tools/*']}}}", []),
        ("log", "{retry: {when: {name: 'a*'}}}", []),
        ("log", "{retry: {when: {method: [tools/call]}, repeat: ['a*']}}", []),
        ("log", "{retry: {when: {method: [tools/call]}, trust_hints: true}}", []),
        ("log", "{retry: {when: {method: [tools/call]}, on: [unreachable]}}", []),
        ("log", "{hedge: {when: {method: [tools/call]}}}", ["error hedge/not-repeatable"]),
        ("log", "{hedge: {when: {method: [tools/call]}, repeat: ['a*']}}", []),
        ("log", "{circuit_breaker: {}}, {retry: {}}", ["warning order/circuit_breaker-before-retry"]),
        ("log", "{retry: {}}, {retry: {}}", ["warning order/retry-before-retry"]),
    ],
)
def test_stages_say_what_is_wrong_about_their_options_here(
    check_it: CheckIt, stage: str, inner: str, found: list[str]
) -> None:
    """One breaker for several upstreams; a retry of what must not be repeated; each with a reason and a fix."""
    checked = check_it(SEVERAL.format(stage=stage, inner=inner))

    assert found == rules(checked)
    assert all(problem.reason and problem.fix for problem in checked.problems)


MTLS = "auth_mtls: {{holders: [{{name: ['*']}}]{more}}}"
WITH_TLS = "http: {bind: '127.0.0.1:80', tls: {cert: c.pem, client_certs: required, client_ca: a.pem}}"


@pytest.mark.parametrize(
    ("source", "more", "found"),
    [
        ("http: {bind: '127.0.0.1:80'}", "", ["warning security/no-certificates"]),
        ("http: {bind: '127.0.0.1:80', tls: {cert: c.pem}}", "", ["warning security/no-certificates"]),
        (WITH_TLS, "", []),
        (WITH_TLS.replace("required", "optional"), "", []),
        (f"{WITH_TLS}}}, b: {{stdio: {{}}", "", []),
        ("stdio: {}", "", ["warning security/no-certificates"]),
        ("http: {bind: '127.0.0.1:80'}", ", header: x-cert, trusted_proxies: [unix]", []),
        ("http: {bind: '127.0.0.1:80'}", ", enabled: false", []),
    ],
)
def test_certificates_that_nobody_asks_for_are_missed(
    check_it: CheckIt, source: str, more: str, found: list[str]
) -> None:
    """`auth_mtls` without a proxy's header needs a source whose TLS layer asks clients for theirs."""
    checked = check_it(gateway(f"{{a: {{{source}}}}}", MTLS.format(more=more)))

    assert found == [rule for rule in rules(checked) if "certificates" in rule]
