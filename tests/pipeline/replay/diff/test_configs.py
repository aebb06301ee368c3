"""What `diff` says about pairs of configurations, and of which it says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from sluiceway.pipeline.config import from_data, load, load_text
from sluiceway.pipeline.replay.config_text import config_text
from sluiceway.pipeline.replay.diff.configs import differences

KEY = {"pepper": {"from_env": "PEPPER"}, "file": "keys.json"}
BEARER = {"issuer": "https://id.example.com", "resource": "https://gw.example.com/mcp", "jwks": {"from_file": "k.json"}}


def config(
    chain: list[Any] | None = None,
    *,
    sink: dict[str, Any] | None = None,
    source: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A configuration with one of each, and what a case is about."""
    limits = more.pop("limits", {})
    data = {
        "version": 1,
        "sources": {"public": {"http": {"bind": "127.0.0.1:8080"}, "pipeline": "main"} if source is None else source},
        "pipelines": {"main": {"chain": chain or [], "sink": "files", **limits}},
        "sinks": {"files": {"http": {"url": "https://files.example.com/mcp"}} if sink is None else sink},
    }
    for section, added in more.items():
        known = data.get(section)
        data[section] = {**known, **added} if isinstance(known, dict) else added
    return data


def access(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A chain with rules only."""
    return config([{"access": {"rules": list(rules), **more}}])


def http(**options: Any) -> dict[str, Any]:
    """A source."""
    return {"http": {"bind": "127.0.0.1:8080", **options}, "pipeline": "main"}


def guarded(*chain: Any) -> dict[str, Any]:
    """A sink with a chain."""
    return {"http": {"url": "https://files.example.com/mcp"}, "chain": list(chain)}


M, S = "pipelines.main: ", "sinks.files: "

PAIRS: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    (
        "a rule allows more",
        access({"tenant": "acme", "allow": ["tools:read"]}),
        access({"tenant": "acme", "allow": ["tools:read", "tools:write"]}),
        ["pipelines.main.access: tenant acme may use tools write now"],
    ),
    (
        "a rule allows less",
        access({"role": "reader", "allow": ["tools:read", "prompts:*"]}),
        access({"role": "reader", "allow": ["tools:read"]}),
        ["pipelines.main.access: role reader may no longer use prompts *"],
    ),
    (
        "a rule is for others, too",
        access({"subject": "ana", "allow": "db_*"}),
        access({"subject": ["ana", "ben"], "allow": "db_*"}),
        ["pipelines.main.access: callers ben may use db_* now"],
    ),
    (
        "something is denied",
        access({"allow": "*"}),
        access({"allow": "*"}, {"subject": "ci-*", "tenant": "acme", "deny": "tools:drop"}),
        ["pipelines.main.access: tools drop is denied to callers ci-* of tenant acme now"],
    ),
    (
        "something is no longer denied",
        access({"allow": "*"}, {"deny": "tools:drop"}),
        access({"allow": "*"}),
        ["pipelines.main.access: tools drop is no longer denied to everybody"],
    ),
    (
        "a scope is needed",
        access({"allow": "tools:write"}),
        access({"allow": "tools:write", "scopes": "files:write"}),
        [
            "pipelines.main.access: everybody may use tools write with the scopes files:write now, "
            "and not without conditions as before"
        ],
    ),
    (
        "a rule is faster, and ends",
        access({"allow": "tools:write", "rate": "5/min"}),
        access({"allow": "tools:write", "rate": "9/min", "valid_until": "2027-01-01T00:00:00Z"}),
        [
            "pipelines.main.access: everybody may use tools write until 2027-01-01T00:00:00Z at 9/min now, "
            "and not at 5/min as before"
        ],
    ),
    (
        "a role includes another one",
        access({"role": "reader", "allow": "*"}),
        access({"role": "reader", "allow": "*"}, roles={"editor": ["reader"]}),
        ["pipelines.main.access: the role editor includes [reader] now"],
    ),
    (
        "access is gone",
        access({"allow": "*"}),
        config(),
        [M + "access was removed: nothing of what its rules forbade is forbidden"],
    ),
    (
        "access comes",
        config(),
        access({"tenant": "acme", "allow": "tools:read", "actions": ["call"]}),
        [
            M + "access was added at the beginning: only what its rules allow may be done",
            "pipelines.main.access: tenant acme may use tools read (call) now",
        ],
    ),
    (
        "authentication is gone",
        config([{"auth_api_key": KEY}]),
        config(),
        [M + "auth_api_key was removed: callers are not authenticated by it any more"],
    ),
    (
        "authentication is optional",
        config([{"auth_api_key": KEY}, {"auth_anonymous": {}}]),
        config([{"auth_api_key": {**KEY, "optional": True}}, {"auth_anonymous": {}}]),
        ["pipelines.main.auth_api_key: callers without a key pass as anonymous now"],
    ),
    (
        "tokens of another issuer",
        config([{"auth_bearer": BEARER}]),
        config([{"auth_bearer": {**BEARER, "issuer": "https://other.example.com", "require": ["mcp"]}}]),
        [
            "pipelines.main.auth_bearer: tokens of https://other.example.com are accepted instead of those of "
            "https://id.example.com",
            "pipelines.main.auth_bearer: tokens need the scope mcp now",
        ],
    ),
    (
        "a source is opened to the network",
        config(),
        config(source=http(bind="0.0.0.0:8080")),
        [
            "sources.public: it listens on 0.0.0.0:8080 instead of 127.0.0.1:8080",
            "sources.public: other machines can reach it now",
            "sources.public: who comes from other machines is not authenticated",
        ],
    ),
    (
        "a source is closed to the network",
        config([{"auth_api_key": KEY}], source=http(bind=["0.0.0.0:8080", "[::1]:8080"])),
        config([{"auth_api_key": KEY}], source=http(bind="[::1]:8080")),
        [
            "sources.public: it listens on [::1]:8080 instead of 0.0.0.0:8080, [::1]:8080",
            "sources.public: other machines can no longer reach it",
        ],
    ),
    (
        "what stands open loses its authentication",
        config([{"auth_api_key": KEY}], source=http(bind="10.1.2.3:80")),
        config(source=http(bind="10.1.2.3:80")),
        [
            "sources.public: who comes from other machines is not authenticated",
            M + "auth_api_key was removed: callers are not authenticated by it any more",
        ],
    ),
    (
        "TLS comes, and pages may use it",
        config(),
        config(source=http(tls={"cert": "c.pem", "key": "k.pem"}, allowed_origins=["https://a.example.com"])),
        [
            "sources.public: it speaks TLS instead of plain text",
            "sources.public: pages of https://a.example.com may use it now",
        ],
    ),
    (
        "TLS goes",
        config(source=http(tls={"cert": "c.pem", "key": "k.pem"})),
        config(),
        ["sources.public: it speaks plain text instead of TLS"],
    ),
    (
        "another path and body",
        config(),
        config(source=http(path="/v2/mcp", max_body="1MiB")),
        [
            "sources.public: it is found at /v2/mcp instead of /mcp",
            "sources.public: a request may have 1MiB instead of 4MiB",
        ],
    ),
    (
        "another transport",
        config(),
        config(source={"stdio": {}, "pipeline": "main"}),
        ["sources.public: it is stdio instead of http"],
    ),
    (
        "a second source and pipeline",
        config(),
        config(
            sources={"agents": {"websocket": {"bind": "127.0.0.1:9000"}, "pipeline": "internal"}},
            pipelines={"internal": {"sink": "files"}},
        ),
        [
            "sources.agents: is new: websocket on 127.0.0.1:9000, feeds pipelines.internal",
            "pipelines.internal: is new, in front of sinks.files",
        ],
    ),
    (
        "limits of a pipeline",
        config(),
        config(limits={"timeout": "60s", "max_in_flight": 400, "timeout_on_progress": "keep"}),
        [
            M + "an exchange may take 1m instead of 30s",
            M + "progress no longer starts the timeout anew",
            M + "up to 400 exchanges may be inside at the same time instead of 1000",
        ],
    ),
    (
        "another rate",
        config([{"rate_limit": {"rate": "60/min", "burst": 20}}]),
        config([{"rate_limit": {"rate": "120/min", "burst": 20, "per": "tenant"}}]),
        [
            "pipelines.main.rate_limit: it admits 120/min instead of 60/min",
            "pipelines.main.rate_limit: counted per tenant instead of per caller",
        ],
    ),
    (
        "a burst that follows from the rate",
        config([{"rate_limit": {"rate": "60/min"}}]),
        config([{"rate_limit": {"rate": "30/min"}}]),
        [
            "pipelines.main.rate_limit: it admits 30/min instead of 60/min",
            "pipelines.main.rate_limit: 30 requests may come at once instead of 60",
        ],
    ),
    (
        "an override is altered, another one comes",
        config([{"rate_limit": {"overrides": [{"when": {"tenant": "acme"}, "rate": "5/s"}]}}]),
        config([{"rate_limit": {"overrides": [{"when": {"tenant": "acme"}, "rate": "9/s", "burst": 5}]}}]),
        ["pipelines.main.rate_limit: option overrides[0].rate: 5/s -> 9/s"],
    ),
    (
        "a limit is switched off",
        config([{"rate_limit": {"rate": "60/min"}}]),
        config([{"rate_limit": {"rate": "60/min", "enabled": False}}]),
        [M + "rate_limit was switched off: the limit is gone"],
    ),
    (
        "a second limit is put in front",
        config([{"rate_limit": {"rate": "60/min"}}]),
        config([{"rate_limit": {"rate": "5/s", "per": "all"}}, {"rate_limit": {"rate": "60/min"}}]),
        [M + "rate_limit was added at the beginning: requests are limited (rate: 5/s, per: all)"],
    ),
    (
        "a guard",
        config([{"rate_limit": {"when": {"method": "tools/call"}}}]),
        config([{"rate_limit": {"when": {"method": "tools/call", "tenant": ["acme", "globex"]}}}]),
        [
            "pipelines.main.rate_limit: it is for method: [tools/call], tenant: [acme, globex] now, "
            "and not for method: [tools/call]"
        ],
    ),
    (
        "another order",
        config(["trace", "request_id", "log"]),
        config(["request_id", "log", "trace"]),
        [M + "trace runs after request_id and log now"],
    ),
    (
        "a stage is moved inward",
        config(["log", {"auth_api_key": KEY}, "cache", "rate_limit"]),
        config([{"auth_api_key": KEY}, "rate_limit", "log", "cache"]),
        [M + "auth_api_key runs before log now", M + "rate_limit runs before log and cache now"],
    ),
    (
        "retries",
        config(sink=guarded({"retry": {"max_attempts": 3}})),
        config(sink=guarded({"retry": {"max_attempts": 5, "repeat": ["search_*"], "budget": "10%"}})),
        [
            "sinks.files.retry: a call is tried up to 5 times instead of 3",
            "sinks.files.retry: search_* may run twice now",
            "sinks.files.retry: repetitions may be 10% of the successes instead of 20%",
        ],
    ),
    (
        "a preset",
        config(sink=guarded("retry")),
        config(sink=guarded({"retry": {"preset": "gentle"}})),
        [
            "sinks.files.retry: a call is tried up to 4 times instead of 3",
            "sinks.files.retry: the jitter of waits between tries is slight instead of full",
        ],
    ),
    (
        "retry and breaker change places",
        config(sink=guarded("retry", "circuit_breaker")),
        config(sink=guarded("circuit_breaker", "retry")),
        [S + "circuit_breaker runs before retry now"],
    ),
    (
        "a breaker is more patient",
        config(sink=guarded({"circuit_breaker": {"failure_rate": "50%", "open_for": "30s"}})),
        config(sink=guarded({"circuit_breaker": {"failure_rate": "60%", "open_for": "10s"}})),
        [
            "sinks.files.circuit_breaker: it opens when 60% of the calls fail instead of 50%",
            "sinks.files.circuit_breaker: it stays open for 10s instead of 30s",
        ],
    ),
    (
        "a deadline at a sink",
        config(sink=guarded({"timeout": {"after": "20s"}})),
        config(sink=guarded({"timeout": {"after": "5s", "idle_after": "2s"}})),
        [
            "sinks.files.timeout: an exchange may take 5s instead of 20s",
            "sinks.files.timeout: a silent exchange ends after 2s",
        ],
    ),
    (
        "an upstream moves",
        config(),
        config(sink={"http": {"url": "https://b.example.com/mcp"}, "required": False, "max_in_flight": 8}),
        [
            S + "the gateway is ready without it now",
            S + "up to 8 exchanges may be inside at the same time instead of any number of exchanges",
            S + "it talks to https://b.example.com/mcp instead of https://files.example.com/mcp",
        ],
    ),
    (
        "an upstream is a process now",
        config(),
        config(sink={"stdio": {"command": ["npx", "server"]}}),
        [S + "it is stdio instead of http (command: [npx, server])"],
    ),
    (
        "a header that is a secret, in plain text",
        config(sink={"http": {"url": "https://a.example.com/", "headers": {"authorization": "Bearer one"}}}),
        config(
            sink={"http": {"url": "https://a.example.com/", "headers": {"authorization": "Bearer two", "x-a": "1"}}}
        ),
        [S + "option headers.authorization: it has another value", S + "option headers.x-a: 1 was added"],
    ),
    (
        "a router sends elsewhere, too",
        config(sinks={"a": {"embedded": {"server": "demo"}}}, sink={"route": {"to": ["a"]}}),
        config(
            sinks={"a": {"embedded": {"server": "demo"}}, "b": {"http": {"url": "https://b.example.com/"}}},
            sink={"route": {"to": {"a": {}, "b": {"tools": {"deny": ["drop"]}}}, "separator": "__"}},
        ),
        [
            S + "requests go to b, too",
            S + "names have __ after the prefix instead of .",
            "sinks.b: is new: http (url: https://b.example.com/)",
        ],
    ),
    (
        "a router hides a tool",
        config(sinks={"a": {"embedded": {"server": "demo"}}}, sink={"route": {"to": ["a"]}}),
        config(
            sinks={"a": {"embedded": {"server": "demo"}}}, sink={"route": {"to": {"a": {"tools": {"deny": ["x"]}}}}}
        ),
        [S + "option to.a.tools.deny: x was added"],
    ),
    (
        "a sink is renamed behind a router",
        config(sinks={"a": {"embedded": {"server": "demo"}}}, sink={"route": {"to": ["a"]}}),
        config(sinks={"z": {"embedded": {"server": "demo"}}}, sink={"route": {"to": ["z"]}}),
        ["sinks.z: it was called a, and so did its tools begin where no prefix is given"],
    ),
    (
        "a store survives restarts",
        config([{"rate_limit": {"store": "s"}}], stores={"s": {"memory": {}}}),
        config([{"rate_limit": {"store": "s"}}], stores={"s": {"sqlite": {"path": "s.db"}}}),
        ["stores.s: what it holds is kept in sqlite instead of memory (path: /srv/gateway/s.db)"],
    ),
    (
        "a cache keeps longer",
        config([{"cache": {"max_ttl": "5m"}}]),
        config([{"cache": {"max_ttl": "1h", "stale_if_error": "10m", "negative_ttl": "5s"}}]),
        [
            "pipelines.main.cache: answers are fresh for 1h at most instead of 5m",
            "pipelines.main.cache: stale answers are given out for 10m when the upstream fails instead of 0s",
            "pipelines.main.cache: that something does not exist is remembered for 5s now",
        ],
    ),
    (
        "a tenant is served no longer",
        config([{"auth_api_key": KEY}, {"tenant": {"tenants": {"acme": {}, "globex": {}}}}]),
        config([{"auth_api_key": KEY}, {"tenant": {"tenants": {"acme": {}}, "required": False}}]),
        [
            "pipelines.main.tenant: the tenant globex is no longer served",
            "pipelines.main.tenant: callers without a tenant pass now",
        ],
    ),
    (
        "how it runs",
        config(),
        config(run={"drain_timeout": "40s", "error_codes": "legacy", "admin": {"bind": "unix:./a.sock"}}),
        [
            "run: exchanges get 40s to finish when the gateway stops instead of 25s",
            "run: the gateway's own errors have the numbers of `legacy` instead of `spec`",
            "run: the admin listener is on now ({bind: unix:./a.sock})",
        ],
    ),
    (
        "a stage is renamed",
        config([{"rate_limit": {"id": "all"}}]),
        config([{"rate_limit": {"id": "everybody"}}]),
        ["pipelines.main.everybody: it was called all"],
    ),
    (
        "a source is removed, a sink unused",
        config(sources={"second": {"stdio": {}, "pipeline": "main"}}),
        config(pipelines={"main": {"sink": "other"}}, sinks={"other": {"embedded": {"server": "demo"}}}),
        [
            "sources.second: was removed",
            M + "requests go to sinks.other instead of sinks.files",
            "sinks.other: is new: embedded",
        ],
    ),
]

SAME: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("defaults written out", config([{"retry": {}}]), config([{"retry": {"max_attempts": 3, "base_delay": "100ms"}}])),
    ("limits written out", config(), config(limits={"timeout": "30s", "max_in_flight": 1000})),
    ("other units", config(limits={"timeout": "60s"}), config(limits={"timeout": "1m"})),
    ("a burst written out", config([{"rate_limit": {"rate": "60/min"}}]), config([{"rate_limit": {"burst": 60}}])),
    ("one for a list of one", access({"allow": "x"}), access({"allow": ["x"], "subject": []})),
    ("rules in another order", access({"allow": "a"}, {"deny": "b"}), access({"deny": "b"}, {"allow": "a"})),
    ("a rule taken apart", access({"allow": ["a", "b"]}), access({"allow": "b"}, {"allow": "a"})),
    ("a rule with a name", access({"allow": "a"}), access({"allow": "a", "id": "everybody"})),
    (
        "a rule that says nothing more",
        access({"allow": "*"}),
        access({"allow": "*"}, {"subject": "a", "allow": "tools:x"}),
    ),
    ("a stage that is off", config(["log"]), config(["log", {"trace": {"enabled": False}}])),
    ("a guard for everything", config(["log"]), config([{"log": {"when": {"method": "*"}}}])),
    (
        "a set in another order",
        config([{"retry": {"repeat": ["a", "b"]}}]),
        config([{"retry": {"repeat": ["b", "a"]}}]),
    ),
    (
        "a list for a mapping without settings",
        config(sinks={"a": {"embedded": {"server": "demo"}}}, sink={"route": {"to": ["a"]}}),
        config(sinks={"a": {"embedded": {"server": "demo"}}}, sink={"route": {"to": {"a": {}}}}),
    ),
    ("a named stage where the name is its own", config(["log"]), config([{"log": {"id": "log"}}])),
]  # fmt: skip


def said(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The sentences of a pair."""
    base = Path("/srv/gateway")
    return [str(change) for change in differences(from_data(old, base=base), from_data(new, base=base))]


@pytest.mark.parametrize(("old", "new", "sentences"), [pair[1:] for pair in PAIRS], ids=[pair[0] for pair in PAIRS])
def test_a_difference_is_told_in_these_sentences(
    old: dict[str, Any], new: dict[str, Any], sentences: list[str]
) -> None:
    """Exactly these, in this order."""
    assert sentences == said(old, new)


@pytest.mark.parametrize(("old", "new"), [pair[1:] for pair in SAME], ids=[pair[0] for pair in SAME])
def test_what_is_only_written_otherwise_is_not_told(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Neither way round."""
    assert ([], []) == (said(old, new), said(new, old))


@pytest.mark.parametrize("pair", PAIRS, ids=[pair[0] for pair in PAIRS])
def test_the_way_back_is_told_as_well(pair: tuple[str, dict[str, Any], dict[str, Any], list[str]]) -> None:
    """What makes a difference makes one in both directions, and none to itself."""
    _, old, new, _ = pair

    assert said(new, old)
    assert [] == said(old, old) == said(new, new)


def test_anchors_comments_and_the_order_of_mappings_make_no_difference() -> None:
    """The text is not looked at."""
    old = """
version: 1
x-slow: &slow {max_attempts: 2, base_delay: 1s}
sources: {a: {http: {bind: "127.0.0.1:8080", path: /mcp}, pipeline: main}}
pipelines: {main: {timeout: 5s, chain: [request_id, log], sink: files}}
sinks:
  files: {http: {url: "https://a.example.com/", headers: {x-a: "1", x-b: "2"}}, chain: [{retry: *slow}]}
"""
    new = """
# another one
sinks:
  files:
    chain:
      - retry:
          <<: &patient {base_delay: 1000ms}
          max_attempts: 2
    http:
      headers: {x-b: "2", x-a: "1"}
      url: https://a.example.com/
pipelines:
  main: {sink: files, chain: [request_id, log], timeout: 5000ms}
sources:
  a: {pipeline: main, http: {path: /mcp, bind: "127.0.0.1:8080"}}
version: 1
"""

    assert () == differences(load_text(old), load_text(new))


def test_a_configuration_in_another_directory_is_the_same(tmp_path: Path) -> None:
    """Paths are those that its files name, so a checkout elsewhere compares as it should."""
    chain = "[{audit: {path: ./a.jsonl}}, {auth_api_key: {pepper: {from_file: ./pepper}, file: ./keys.json}}]"
    text = (
        f"version: 1\npipelines: {{main: {{chain: {chain}, sink: s}}}}\nsinks: {{s: {{embedded: {{server: demo}}}}}}\n"
    )
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "gateway.yaml").write_text(text)
    documents = [load(tmp_path / name / "gateway.yaml") for name in ("old", "new")]

    assert () == differences(*documents)


PLUGIN = """
from attrs import frozen
from sluiceway.pipeline.model.component import Middleware, middleware
from sluiceway.pipeline.model.options import option

@frozen
class Field:
    name: str = option("x", doc="Its name.")
    deep: bool = option(False, doc="Also below.")

@middleware("mask_iban")
class MaskIban(Middleware):
    @frozen
    class Config:
        fields: tuple[str, ...] = option((), doc="Fields.", example=["a"])
        shape: Field = option(factory=Field, doc="Shape.", example={"name": "y"})
        strict: bool = option(False, doc="Strict.")
"""


def test_options_of_a_stage_of_ones_own_are_told_by_name(tmp_path: Path) -> None:
    """Its class is another one in each configuration, for it was imported twice."""
    said = []
    for name, options in (("old", "{fields: [a, b], strict: true}"), ("new", "{fields: [b, a], shape: {deep: true}}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stage.py").write_text(PLUGIN)
        path = tmp_path / name / "gateway.yaml"
        path.write_text(
            "version: 1\nplugins: [./stage.py]\nsinks: {s: {embedded: {server: demo}}}\n"
            f"pipelines: {{main: {{chain: [{{mask_iban: {options}}}], sink: s}}}}\n"
        )
        said.append(load(path))

    assert [
        "pipelines.main.mask_iban: option fields: the order is [b, a], and was [a, b]",
        "pipelines.main.mask_iban: option shape.deep: false -> true",
        "pipelines.main.mask_iban: option strict: true -> false",
    ] == [str(change) for change in differences(*said)]


def test_a_change_as_json_has_what_was_and_what_is() -> None:
    """For programs."""
    (change,) = differences(from_data(config()), from_data(config(limits={"timeout": "5s"})))

    assert {
        "path": "pipelines.main", "area": "deadlines", "text": "an exchange may take 5s instead of 30s",
        "option": "timeout", "old": "30s", "new": "5s",
    } == change.as_json()  # fmt: skip


CONFIGS = Path(__file__).parents[4] / "configs"
SAMPLES = [p for p in sorted(CONFIGS.glob("*.yaml")) if not p.stem.endswith("_test") and not p.stem.startswith("base.")]


@pytest.mark.parametrize("path", SAMPLES, ids=[path.stem for path in SAMPLES])
def test_a_sample_that_is_written_anew_with_nothing_but_what_it_means_is_the_same(path: Path) -> None:
    """Comments, anchors, includes and units are gone then; a sample differs from every other one."""
    document = load(path)
    again = load_text(config_text(document), base=path.parent)
    other = load(SAMPLES[SAMPLES.index(path) - 1])

    assert () == differences(document, document)
    assert () == differences(evolve(document, files=()), again)
    assert () != differences(other, document)
