"""Foreign configurations become ours: every form, every loss, and whatever else JSON may hold."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway.pipeline.config import check_text
from sluiceway.pipeline.imports import Form, Imported, NotImportable, read_foreign, render
from sluiceway.pipeline.imports.model import FromEnv, Listen, Upstream
from sluiceway.pipeline.imports.rendering import scalar
from sluiceway.pipeline.model.component import ComponentKind
from sluiceway.pipeline.model.registry import BUILT_IN
from sluiceway.pipeline.protocol.messages import EMPTY


def _no_file(name: str) -> str:
    raise FileNotFoundError(name)


def read(value: Any, form: Form = "auto", files: Mapping[str, str] = EMPTY) -> Imported:
    """What comes of a text, or of JSON."""
    text = value if isinstance(value, str) else json.dumps(value)
    return read_foreign(text, form=form, read=lambda name: files[name] if name in files else _no_file(name))


def server(**entry: Any) -> Imported:
    """What comes of one server."""
    return read({"mcpServers": {"s": entry}})


def losses(imported: Imported) -> str:
    return "\n".join(map(str, imported.lost))


def findings(imported: Imported) -> list[str]:
    """The errors that `sluiceway check` has with the result, its variables being set."""
    yaml = render(imported, "a test")
    names = set(re.findall(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", yaml))
    checked = check_text(yaml, env=dict.fromkeys(names, "1"))
    errors = [each for each in checked.problems if each.level == "error"]
    unborn = {f"unknown key {name!r}" for name in ("http", "route") if name not in BUILT_IN[ComponentKind.SINK]}
    return [str(each) for each in errors if each.message.partition(" (")[0] not in unborn]


@pytest.mark.parametrize(
    "value",
    [
        {"mcpServers": {"s": {"command": "npx", "args": ["-y", "srv", 1]}}},
        {"servers": {"s": {"type": "stdio", "command": "npx", "args": ["-y", "srv", 1]}}, "inputs": []},
        {"mcp": {"servers": {"s": {"command": "npx -y srv 1"}}}},
        {"s": {"command": ["npx", "-y", "srv", 1]}},
        {"context_servers": {"s": {"command": {"path": "npx", "args": ["-y", "srv", "1"]}}}},
        '// mine\n{"mcpServers": {"s": {"command": "npx", /* why */ "args": ["-y", "srv", "1",],},},}',
    ],
)
def test_every_client_says_the_same_in_its_way(value: Any) -> None:
    """Claude, VS Code's two files, a bare map, Zed, and JSON with comments."""
    imported = read(value)

    assert (Upstream("s", ("npx", "-y", "srv", "1")),) == imported.upstreams
    assert Listen() == imported.listen
    assert findings(imported) == []


def test_strings_that_look_like_comments_are_not() -> None:
    """`https://` is in every second file."""
    imported = read('{"mcpServers": {"s": {"url": "https://a.example/mcp, ]", }}}')

    assert imported.upstreams[0].url == "https://a.example/mcp,%20%5D"


@pytest.mark.parametrize("key", ["url", "serverUrl", "httpUrl"])
def test_an_address_becomes_an_http_sink(key: str) -> None:
    """With its headers; a secret among them is a variable."""
    imported = server(**{key: "https://a.example/mcp"}, headers={"Authorization": "Bearer abc", "X-Team": "blue"})

    assert imported.upstreams == (
        Upstream(
            "s", url="https://a.example/mcp", headers={"Authorization": FromEnv("S_AUTHORIZATION"), "X-Team": "blue"}
        ),
    )
    assert {"S_AUTHORIZATION": "Authorization of s, with 'Bearer ' before it; the value is not copied"} == (
        imported.variables
    )
    assert findings(imported) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_KEY", "abc"), ("githubToken", "abc"), ("DB_PASSWORD", "hunter2"),
        ("PGPASSWORD", "hunter2"), ("OTHER", "ghp_abcdef"),
        ("DATABASE_URL", "postgres://me:pw@db/x"), ("X", "eyJhbGciOiJIUzI1NiJ9.e30.x"),
    ],
)  # fmt: skip
def test_a_secret_is_not_copied(name: str, value: str) -> None:
    """By its name or by its looks."""
    imported = server(command="x", env={name: value})

    assert isinstance(imported.upstreams[0].env[name], FromEnv)
    assert value not in render(imported, "a test")
    assert findings(imported) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("LEVEL", "3"), ("MAX_TOKENS", "100"), ("AUTH", "false"), ("TOKEN", ""), ("KEYBOARD", "us"), ("MONKEY", "x")],
)
def test_what_is_no_secret_is_copied(name: str, value: str) -> None:
    """A number, a switch, nothing, and words that only contain such a word."""
    assert {name: value} == server(command="x", env={name: value}).upstreams[0].env


def test_equal_names_with_different_secrets_stay_apart() -> None:
    """One shared if the values are equal; the server's id goes before it if not; a number if that is taken."""
    servers = {
        "a": {"command": "x", "env": {"TOKEN": "one"}},
        "b": {"command": "x", "env": {"TOKEN": "one", "B_TOKEN": "three"}},
        "c": {"command": "x", "env": {"TOKEN": "two"}},
        "d": {"command": "x", "env": {"D_TOKEN": "four", "TOKEN": "five"}},
    }
    imported = read({"mcpServers": servers})

    assert [
        {"TOKEN": FromEnv("TOKEN")},
        {"TOKEN": FromEnv("TOKEN"), "B_TOKEN": FromEnv("B_TOKEN")},
        {"TOKEN": FromEnv("C_TOKEN")},
        {"D_TOKEN": FromEnv("D_TOKEN"), "TOKEN": FromEnv("D_TOKEN_2")},
    ] == [each.env for each in imported.upstreams]


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("a${FOO}b", "a${FOO}b"),
        ("a${env:FOO}b", "a${FOO}b"),
        ("${FOO:-x}!", "${FOO:-x}!"),
        ("${userHome}/x", "${HOME}/x"),
        ("${workspaceFolder}/x", "${WORKSPACEFOLDER}/x"),
        ("x${input:my-key}", "x${INPUT_MY_KEY}"),
        ("$HOME costs $$5 ${", "$HOME costs $$$$5 $${"),
        ("x${1}", "x${_1}"),
    ],
)
def test_variables_are_translated_and_dollars_kept(text: str, ours: str) -> None:
    """In arguments; ours mean the same."""
    imported = server(command="x", args=[text])

    assert ours == imported.upstreams[0].command[1]
    assert findings(imported) == []


def test_a_value_that_is_a_variable_is_a_secret_from_it() -> None:
    """So that check needs no secret."""
    imported = server(command="x", env={"A": "${B}", "C": "${env:D}"})

    assert {"A": FromEnv("B"), "C": FromEnv("D")} == imported.upstreams[0].env
    assert {"B", "D"} == set(imported.variables)


def test_secrets_in_arguments_and_addresses_become_variables() -> None:
    """After their option, behind an equals sign, by their looks, in a query."""
    imported = server(command="x", args=["--api-key", "abc", "--token=def", "sk-123", "--token", "${T}", "--key", "-v"])
    docker = server(command="docker", args=["-e", "API_KEY=abc", "--header", "Authorization: Bearer ghi", "a:b", "L=1"])
    remote = server(url="https://a.example/mcp?x=1&api_key=abc&key=${K}")

    assert imported.upstreams[0].command == (
        "x", "--api-key", "${S_API_KEY}", "--token=${S_TOKEN}", "${S_SECRET}", "--token", "${T}", "--key", "-v",
    )  # fmt: skip
    assert remote.upstreams[0].url == "https://a.example/mcp?x=1&api_key=${S_API_KEY}&key=${K}"
    assert docker.upstreams[0].command == (
        "docker", "-e", "API_KEY=${S_API_KEY}", "--header", "Authorization: ${S_AUTHORIZATION}", "a:b", "L=1",
    )  # fmt: skip
    assert findings(imported) == findings(docker) == findings(remote) == []


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"command": "x", "args": "y"}, "s.args: is not a list"),
        ({"command": "x", "args": [[1]]}, "s.args: has something that is not a text"),
        ({"command": "x 'y"}, "open quotation mark"),
        ({"command": "x", "env": [1]}, "s.env: is not a mapping"),
        ({"command": "x", "env": {"A": []}}, "A has no text as its value"),
        ({"command": "x", "envFile": ".env"}, "s.envFile: a file of variables is not read"),
        ({"command": "x", "autoApprove": ["y"]}, "s.autoApprove: approval is the client's matter"),
        ({"command": "x", "gallery": True}, "s.gallery: the sink has nothing that does this"),
        ({"command": "x", "args": ["\ud800"]}, "half a surrogate pair"),
        ({"url": "https://u:p@a.example/mcp"}, "user and password of its address"),
        ({"url": "https://a.example/mcp#x"}, "fragment"),
        ({"url": "https://a.example/sse"}, "looks like HTTP+SSE"),
        ({"url": "https://a.example/mcp", "headers": {"Accept": "x"}}, "accept is written by the sink"),
        ({"url": "https://a.example/mcp", "headers": {"a b": "x"}}, "HTTP cannot carry"),
        ({"url": "https://a.example/mcp", "headers": {"a": "x\ny"}}, "HTTP cannot carry"),
        ({"url": "https://a.example/mcp", "headers": {"a": "x", "A": "y"}}, "a is there twice"),
        ({"url": "https://a.example/mcp", "auth": "oauth"}, "sign-in by a browser"),
    ],
)
def test_what_is_lost_has_a_reason(entry: dict[str, Any], reason: str) -> None:
    """And the rest is still good."""
    imported = server(**entry)

    assert reason in losses(imported)
    assert findings(imported) == []


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"command": "x", "disabled": True}, "switched off"),
        ({"command": "x", "enabled": False}, "switched off"),
        ({"url": "ftp://a.example"}, "its address is not http://"),
        ({"url": "http://[::1"}, "its address is not http://"),
        ({"type": "http"}, "neither a command nor a url"),
        ({"command": []}, "neither a command nor a url"),
        (1, "is not a mapping"),
    ],
)
def test_a_server_that_cannot_be_used_is_left_out(entry: Any, reason: str) -> None:
    """The others stay; without others, that is the error."""
    imported = read({"mcpServers": {"bad": entry, "good": {"command": "x"}}})

    assert ["good"] == [each.id for each in imported.upstreams]
    assert reason in losses(imported)
    with pytest.raises(NotImportable, match=reason):
        read({"mcpServers": {"bad": entry}})


def test_names_become_ids() -> None:
    """Each its own, and said."""
    imported = read({"mcpServers": {"a b": {"command": "x"}, "a-b": {"command": "x"}, "…": {"command": "x"}}})

    assert ["a-b", "a-b-2", "server"] == [each.id for each in imported.upstreams]
    assert "a-b: was called 'a b'" in losses(imported)
    assert findings(imported) == []


def test_a_key_that_stands_twice_is_said() -> None:
    """The client drops the first in silence."""
    imported = read('{"mcpServers": {"s": {"command": "x"}, "s": {"command": "y"}}}')

    assert ("y",) == imported.upstreams[0].command
    assert "a key stands twice" in losses(imported)


def test_several_servers_stand_behind_a_route() -> None:
    """Under a name that no server has."""
    yaml = render(read({"mcpServers": {"everything": {"command": "x"}, "b": {"url": "http://b.example/mcp"}}}), "x")

    assert "    sink: everything-all\n" in yaml
    assert "  everything-all:\n    route:\n      to: [everything, b]\n" in yaml


def test_a_project_of_fastmcp_is_started_by_fastmcp() -> None:
    """With what its deployment says, as far as it is ours."""
    project = {
        "source": {"path": "server.py"},
        "environment": {"dependencies": ["x"]},
        "deployment": {
            "transport": "http", "host": "::1", "port": 9000, "path": "/api/", "log_level": "DEBUG", "cwd": "./here",
            "env": {"API_KEY": "abc"},
        },
    }  # fmt: skip
    imported = read(project)

    assert imported.upstreams == (
        Upstream("server", ("fastmcp", "run", "fastmcp.json", "--transport", "stdio"), "./here",
                 {"API_KEY": FromEnv("API_KEY")}),
    )  # fmt: skip
    assert Listen(bind="[::1]:9000", path="/api") == imported.listen
    assert "deployment.log_level" in losses(imported)
    assert findings(imported) == []
    assert read({"source": {}}, "fastmcp").listen is None
    old = read({"source": {}, "deployment": {"transport": "sse", "path": "/old/"}})
    assert Listen(sse="/old") == old.listen
    assert findings(old) == []
    with pytest.raises(NotImportable, match="no source"):
        read({"source": "x"})


@pytest.mark.parametrize(
    ("entry", "sse"),
    [
        ({"url": "https://a.example/sse", "type": "sse"}, True),
        ({"url": "https://a.example/old", "transport": "sse"}, True),
        ({"url": "https://a.example/sse?x=1"}, True),
        ({"url": "https://a.example/sse", "type": "http"}, False),
        ({"url": "https://a.example/mcp"}, False),
    ],
)
def test_an_address_of_http_sse_gets_the_sse_sink(entry: dict[str, Any], sse: bool) -> None:
    """As the client says; where it says nothing, as the path does."""
    imported = server(**entry)

    assert sse is imported.upstreams[0].sse
    assert findings(imported) == []


def test_event_streams_that_supergateway_served_are_served_at_the_same_path() -> None:
    """Beside Streamable HTTP; a path that cannot be served is replaced."""
    imported = read("supergateway --stdio a --port 9000 --ssePath /events")
    odd = read("supergateway --stdio a --port 9000 --ssePath /mcp")

    assert Listen("127.0.0.1:9000", sse="/events") == imported.listen
    assert "      sse: {path: /events}\n" in render(imported, "a test")
    assert findings(imported) == []
    assert Listen("127.0.0.1:9000", sse="/sse") == odd.listen
    assert "/sse is used" in losses(odd)


def test_supergateway_before_a_program() -> None:
    """The whole line, over two lines of a script."""
    imported = read(
        "#!/bin/sh\nexec npx -y supergateway@4 --stdio 'npx -y srv \"a b\"' --outputTransport streamableHttp \\\n"
        "  --port 9000 --streamableHttpPath /x --stateful --sessionTimeout 60000 --cors https://a.example "
        "--healthEndpoint /h --weird\n"
    )

    assert (Upstream("server", ("npx", "-y", "srv", "a b")),) == imported.upstreams
    assert Listen("127.0.0.1:9000", "/x", ("https://a.example",), 60000) == imported.listen
    assert "--healthEndpoint: health is at /healthz" in losses(imported)
    assert "--weird: is not known" in losses(imported)
    assert "loopback only" in losses(imported)
    assert findings(imported) == []


@pytest.mark.parametrize("option", ["--sse", "--streamableHttp"])
def test_supergateway_before_an_address(option: str) -> None:
    """For a client over stdio."""
    imported = read(f"supergateway {option} https://a.example/mcp --header 'X-A: b' --oauth2Bearer abc")

    assert imported.listen is None
    assert imported.upstreams == (
        Upstream("server", url="https://a.example/mcp",
                 headers={"X-A": "b", "Authorization": FromEnv("SERVER_AUTHORIZATION")}, sse=option == "--sse"),
    )  # fmt: skip
    assert ("    sse:\n      url: " in render(imported, "a test")) == (option == "--sse")
    assert findings(imported) == []


def test_values_of_supergateway_that_are_none() -> None:
    """Defaults, and a word about each."""
    imported = read("supergateway --stdio 'a | b' --port x --sessionTimeout y --cors /re/ --streamableHttpPath ?")

    assert Listen(bind="127.0.0.1:8080", sse="/sse") == imported.listen
    for word in ("is not a port", "milliseconds", "patterns", "not a path", "needs a shell"):
        assert word in losses(imported)
    assert (
        "*" in (read("docker run -p 1:1 supercorp/supergateway:3 --stdio a --cors").listen or Listen()).allowed_origins
    )


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ({"url": "wss://a.example/mcp"}, "wss://a.example/mcp"),
        ({"url": "ws://127.0.0.1:9000/sse", "type": "ws"}, "ws://127.0.0.1:9000/sse"),
        ({"url": "https://a.example/mcp", "transport": "websocket"}, "wss://a.example/mcp"),
    ],
)
def test_a_server_on_websockets_gets_a_sink_for_them(entry: dict[str, Any], url: str) -> None:
    """By its address, or by what the client says about it."""
    imported = server(**entry)

    assert [(each.kind, each.url) for each in imported.upstreams] == [("websocket", url)]
    assert losses(imported) == ""
    assert findings(imported) == []


def test_clients_of_a_bridge_that_came_on_websockets_find_them_where_they_were() -> None:
    """At supergateway's own path, or the one it was given; one that cannot be served is a loss."""
    usual = read("supergateway --stdio x --outputTransport ws")
    named = read("supergateway --stdio x --outputTransport ws --messagePath /ws/")
    odd = read("supergateway --stdio x --outputTransport ws --messagePath /healthz")

    assert [each.listen and each.listen.websocket for each in (usual, named, odd)] == ["/message", "/ws", "/message"]
    assert "websocket: {path: /ws}" in render(named, "a test")
    assert "--messagePath" not in losses(named)
    assert "can be served" in losses(odd)
    assert findings(named) == []


def test_mcp_proxy_before_a_program() -> None:
    """With its variables and its folder."""
    imported = read(
        "mcp-proxy --port=9000 --host 0.0.0.0 -e TOKEN abc -e A b --cwd /srv --pass-environment --stateless "
        "--allow-origin https://a.example https://b.example -- uvx srv --x",
        "mcp-proxy",
    )

    assert imported.upstreams == (
        Upstream("server", ("uvx", "srv", "--x"), "/srv", {"TOKEN": FromEnv("TOKEN"), "A": "b"}),
    )
    assert Listen("0.0.0.0:9000", "/mcp", ("https://a.example", "https://b.example"), sse="/sse") == imported.listen
    assert "--pass-environment: the server inherits only" in losses(imported)


def test_mcp_proxy_before_an_address() -> None:
    """Options may follow the address."""
    imported = read("mcp-proxy https://a.example/mcp --transport streamablehttp -H X-A b --no-verify-ssl")
    old = read("mcp-proxy https://a.example/mcp")

    assert (Upstream("server", url="https://a.example/mcp", headers={"X-A": "b"}),) == imported.upstreams
    assert imported.listen is None
    assert "certificates are always verified" in losses(imported)
    assert (Upstream("server", url="https://a.example/mcp", sse=True),) == old.upstreams
    assert findings(old) == []


def test_mcp_proxy_with_named_servers() -> None:
    """On the line, and in a file."""
    line = "mcp-proxy --named-server a 'uvx a' --named-server b '\"' --named-server-config {} uvx main --port 1"
    imported = read(line.format("n.json"), files={"n.json": '{"mcpServers": {"c": {"command": "c"}}}'})

    assert [("server", ("uvx", "main", "--port", "1")), ("a", ("uvx", "a")), ("c", ("c",))] == [
        (each.id, each.command) for each in imported.upstreams
    ]
    assert "they share one endpoint" in losses(imported)
    assert "b: its command line cannot be split" in losses(imported)
    assert "cannot be read" in losses(read(line.format("gone")))
    assert "has no mcpServers" in losses(read(line.format("n"), files={"n": "[]"}))
    assert "neither a command" in losses(read(line.format("n"), files={"n": '{"mcpServers": {"x": {}}}'}))


def test_several_lines_are_one_gateway() -> None:
    """Where the first one listens."""
    imported = read("supergateway --stdio a --port 1\necho 'open\nmcp-proxy --port 2 b\n")

    assert ["server", "server-2"] == [each.id for each in imported.upstreams]
    assert "127.0.0.1:1" == (imported.listen or Listen()).bind
    assert "the command lines listen at several places" in losses(imported)


@pytest.mark.parametrize(
    ("text", "form", "reason"),
    [
        ("", "auto", "no command line of supergateway or mcp-proxy"),
        ("mcp-proxy x", "supergateway", "no command line of supergateway"),
        ("mcp-proxy --host ?", "auto", "is not a host"),
        ("supergateway --sse ftp://a", "auto", "its address is not http://"),
        ("supergateway", "auto", "no server in it"),
        ("{", "auto", "not JSON"),
        ("x", "mcpServers", "not JSON"),
        ("[" * 100_000, "auto", "nested too deeply"),
        ("{}", "auto", "no mcpServers"),
        ("[]", "fastmcp", "no mcpServers"),
        ('{"mcpServers": {}}', "auto", "no server in it"),
    ],
)
def test_what_holds_nothing_is_refused(text: str, form: Form, reason: str) -> None:
    """With the reason."""
    with pytest.raises(NotImportable, match=reason):
        read(text, form)


_TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["${A}", "${", "$$", "https://a/b?key=c", "http://[", "Bearer x", "no", "1e3", "0x1", "#", "a: b"]),
)
_KEYS = st.sampled_from(
    ["mcpServers", "servers", "mcp", "source", "deployment", "command", "args", "env", "url", "headers", "cwd", "type",
     "path", "TOKEN", "x"]
)  # fmt: skip
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(_KEYS, _TEXTS), inner, max_size=4)),
    max_leaves=12,
)
_SERVERS = st.dictionaries(
    _TEXTS,
    st.fixed_dictionaries(
        {}, optional={"command": st.one_of(_TEXTS, _JSON), "args": st.one_of(st.lists(_TEXTS), _JSON), "url": _TEXTS,
                      "env": st.dictionaries(_TEXTS, _TEXTS), "headers": st.dictionaries(_TEXTS, _TEXTS),
                      "cwd": _JSON, "type": _JSON}
    ),
    max_size=3,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.one_of(_JSON, st.fixed_dictionaries({"mcpServers": _SERVERS})))
def test_any_json_is_imported_or_refused(value: Any) -> None:
    """Never a traceback, and what comes out is a sound configuration."""
    try:
        imported = read(value)
    except NotImportable:
        return

    assert findings(imported) == []


@settings(max_examples=60, deadline=None)
@given(st.text(), st.sampled_from(["auto", "supergateway", "mcp-proxy", "mcpServers", "fastmcp"]))
def test_any_text_is_imported_or_refused(text: str, form: Form) -> None:
    """A command line, too."""
    for line in (text, f"supergateway --stdio {text}", f"mcp-proxy {text}"):
        try:
            imported = read(line, form)
        except NotImportable:
            continue

        assert findings(imported) == []


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_scalar_reads_back_as_the_text_it_was(text: str) -> None:
    """Whatever YAML would like to make of it."""
    checked = check_text(f"version: 1\nx-text: {scalar(text)}\n", env={})

    assert [] == [each for each in checked.problems if each.rule.startswith(("yaml", "file"))]


def test_a_long_command_takes_several_lines() -> None:
    """And a file name with a line end stays within its comment."""
    imported = server(command="x", args=["word"] * 40, cwd="./here")
    yaml = render(imported, "a\nb")

    assert yaml.startswith("# Imported from a?b.")
    assert "      command:\n        - x\n        - word\n" in yaml
    assert "      cwd: ./here\n" in yaml
    assert findings(imported) == []
