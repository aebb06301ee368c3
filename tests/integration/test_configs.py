"""Every configuration that ships is sound, starts, and serves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import jsonschema_rs
import pytest
import yaml
from msgspec.structs import replace

from sluiceway.pipeline.config import check, load
from sluiceway.pipeline.config.schema import schema
from sluiceway.pipeline.model.registry import Registry
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import FakeSink, PipelineHarness

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
WHOLE = sorted(path for path in CONFIGS.glob("*.yaml") if re.search(r"(?m)^version:", path.read_text(encoding="utf-8")))
OVERLAYS = sorted(path for path in CONFIGS.glob("*.*.yaml"))
NAMED = [*((path, ()) for path in WHOLE), *((CONFIGS / "base.yaml", (path,)) for path in OVERLAYS)]
OWN_SERVER = {"tiny.yaml", "http_upstream.yaml", "legacy_sse.yaml", "real_servers.yaml", "team.yaml"}
"""Configurations whose server comes from a registry: the tests of that transport start them."""
KEYED = {"auditors.yaml"}
"""Those that let nobody in without a key."""
KEY = {"x-api-key": "slw_the-key-of-the-sample-change-it"}
OWN_CERTIFICATE = {"tls.yaml"}
"""Those that need a certificate: tests/transports/http_source/test_tls_gateway.py makes one, and starts them."""


def _id(value: Any) -> str:
    return value.name if isinstance(value, Path) else "+".join(path.name for path in value) or "alone"


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    """The variables that the production overlay asks for."""
    return {"STATE_DIR": str(tmp_path), "PUBLIC_HOST": "gateway.example.com", "SLUICEWAY_ADMIN_TOKEN": "token"}


@pytest.mark.parametrize(("path", "overlays"), NAMED, ids=_id)
def test_nothing_is_wrong_with_it(path, overlays, environment):
    """`check` has nothing to say: no error, no warning, no note."""
    assert [str(problem) for problem in check(path, overlays=overlays, env=environment).problems] == []


@pytest.mark.parametrize("path", [*WHOLE, *OVERLAYS], ids=_id)
def test_it_says_what_it_is_for(path):
    """A whole configuration names its schema for editors; every one says in a comment what it is for."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if path in WHOLE:
        assert lines.pop(0) == "# yaml-language-server: $schema=./sluiceway.schema.json"
    assert lines[0].startswith("# ")


@pytest.mark.parametrize(("path", "overlays"), [n for n in NAMED if n[0].name not in OWN_SERVER], ids=_id)
async def test_it_starts_and_lists_its_tools(path, overlays, environment):
    """With its real stores, sinks and stages, and a fake in place of its listeners, it answers. On the real clock."""
    async with PipelineHarness(load(path, overlays=overlays, env=environment)) as gateway:
        gateway.client = replace(gateway.client, headers=KEY if path.name in KEYED else {})
        reply = await gateway.call("tools/list")

    assert isinstance(reply, Result)
    assert reply.value["tools"] != []


def test_the_quickstart_is_the_one_in_the_package():
    """What `sluiceway run` serves without a file can be read and copied here."""
    packaged = CONFIGS.parent / "pipeline" / "cli" / "quickstart.yaml"

    assert (CONFIGS / "quickstart.yaml").read_text(encoding="utf-8") == packaged.read_text(encoding="utf-8")


def test_the_schema_for_editors_is_the_generated_one():
    """configs/sluiceway.schema.json says what the declarations say; `make docs` writes it."""
    assert json.loads((CONFIGS / "sluiceway.schema.json").read_text(encoding="utf-8")) == schema()


@pytest.mark.parametrize("path", WHOLE, ids=_id)
def test_editors_find_nothing_wrong_with_it(path):
    """Every sample is valid by the schema that it names; a plugin's stages are in the schema if it is given them."""
    registry = Registry()
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    for plugin in data.get("plugins", []):
        registry.load_plugin(plugin, CONFIGS)

    assert [str(error) for error in jsonschema_rs.validator_for(schema(registry)).iter_errors(data)] == []


async def test_the_plugin_masks_what_leaves_the_gateway(autojump_clock):
    """The stage of custom_middleware.yaml shows the server behind it no password."""
    sink = FakeSink.echo()
    async with PipelineHarness.from_yaml(CONFIGS / "custom_middleware.yaml", sinks={"demo": sink}) as gateway:
        await gateway.call("tools/call", name="login", arguments={"user": "ana", "password": "canary"})

    assert sink.requests[0].params["arguments"] == {"user": "ana", "password": "***"}


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Every value of a document that is set, by path."""
    if attrs.has(type(value)):
        value = {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {k: v for name, item in value.items() for k, v in _leaves(item, f"{path}.{name}").items()}
    return {} if value is None else {path.lstrip("."): repr(value)}


def _stated(overlay: Any, path: str = "") -> set[str]:
    """Every path that an overlay writes."""
    if isinstance(overlay, dict):
        return {inner for name, item in overlay.items() for inner in _stated(item, f"{path}.{name}")}
    return {path.lstrip(".")}


@pytest.mark.parametrize("overlay", OVERLAYS, ids=_id)
def test_an_overlay_changes_what_it_states_and_nothing_else(overlay, environment):
    """Development and production differ from their base only where their files say so."""
    base, changed = (_leaves(load(CONFIGS / "base.yaml", overlays=over, env=environment)) for over in ((), (overlay,)))
    stated = _stated(yaml.safe_load(overlay.read_text(encoding="utf-8")))
    differing = {
        _as_written(path)
        for path in base.keys() | changed.keys()
        if base.get(path) != changed.get(path) and not _is_bookkeeping(path)
    }

    assert {path for path in differing if not any(path.startswith(s) or s.startswith(path) for s in stated)} == set()
    assert {s for s in stated if not any(path.startswith(s) or s.startswith(path) for path in differing)} == set()


def _is_bookkeeping(path: str) -> bool:
    return path.startswith(("digest", "files")) or (path.endswith((".place", ".path")) and ".config." not in path)


def _as_written(path: str) -> str:
    """`sources.public.config.bind` in a document is `sources.public.http.bind` in a file."""
    path = path.replace("pipelines.main.limits.", "pipelines.main.").replace(
        "sources.public.config", "sources.public.http"
    )
    return re.sub(r"stores\.notes\..*", "stores.notes", path)


@pytest.mark.real
@pytest.mark.parametrize("path", [path for path in WHOLE if path.name not in OWN_SERVER | OWN_CERTIFICATE], ids=_id)
def test_the_command_line_starts_it(path, tmp_path, environment):
    """`run --dry-run` opens everything on a free port, says so, and stops."""
    document = load(path)
    free = {name: {source.cls.name: {"bind": "127.0.0.1:0"}} for name, source in document.sources.items()}
    overlay = tmp_path / "free.yaml"
    overlay.write_text(yaml.safe_dump({"sources": free}), encoding="utf-8")
    main = "import sys; from sluiceway.pipeline.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "run", str(path), "--dry-run", "--overlay", str(overlay)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False,
                          env={**os.environ, **environment})  # fmt: skip

    assert done.returncode == 0, done.stderr
