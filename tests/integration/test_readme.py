"""The README's quick start, as it stands there: only the port is another one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SLUICEWAY = [sys.executable, "-c", "import sys; from sluiceway.pipeline.cli import main; sys.exit(main())"]

pytestmark = pytest.mark.real


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The quickstart on a free port."""
    overlay = tmp_path / "port.yaml"
    source = next(
        iter(re.findall(r"^  (\w+):\n    http:", (ROOT / "configs/quickstart.yaml").read_text(), re.MULTILINE))
    )
    overlay.write_text(f"version: 1\nsources: {{{source}: {{http: {{bind: '127.0.0.1:0'}}}}}}\n")
    command = [*SLUICEWAY, "run", str(ROOT / "configs/quickstart.yaml"), "--overlay", str(overlay)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "gateway ready":
            break
    else:
        pytest.fail("the quickstart did not become ready")
    yield f"http://{event[source][0]}/mcp"
    process.terminate()
    process.stderr.close()
    assert process.wait(30) == 0


def test_the_sdk_client_talks_to_the_quickstart_in_both_eras(url: str) -> None:
    """The Python block, run as it is."""
    (code,) = [block for block in blocks("python") if "from mcp import Client" in block]
    program = code.replace("http://127.0.0.1:8080/mcp", url)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)

    assert (0, "") == (done.returncode, done.stderr)
    legacy, auto = done.stdout.splitlines()
    assert legacy.startswith("legacy [")
    assert auto.startswith("auto [")
    assert legacy.endswith(" 42.0")
    assert auto.endswith(" 42.0")


def test_the_gateways_own_client_talks_to_the_quickstart(url: str) -> None:
    """The `tools` lines of the shell block."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if "sluiceway tools" in line]
    outputs = []
    for line in lines:
        words = line.split()[1:]
        done = subprocess.run([*SLUICEWAY, *words, "--url", url], capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)

    assert len(lines) == 2
    assert "countdown" in outputs[0]
    assert "42.0\n" == outputs[1]


def test_the_servers_of_the_readme_are_those_of_the_configurations() -> None:
    """Every command that the README shows is run by one of the files it names."""
    shown = re.findall(r"command: \[([^\]]*)\]", README)
    run = "".join((ROOT / "configs" / name).read_text() for name in ("tiny.yaml", "real_servers.yaml")).replace('"', "")
    run = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", run)  # variables are at their defaults

    assert 4 == len(shown)
    assert [] == [command for command in shown if command.replace('"', "") not in run]
