"""Files of tests of configurations under pytest, seen from the outside: a run of its own."""

from __future__ import annotations

import subprocess
import sys

FILES = {
    "gateway.yaml": """\
version: 1
sources: {local: {stdio: {}}}
pipelines: {main: {sink: files}}
sinks: {files: {http: {url: "http://127.0.0.1:1/mcp"}}}
""",
    "gateway_test.yaml": """\
tests:
  - {name: fine, sinks: {files: {}}, request: {method: a/b}, expect: {result: {}}}
  - {name: wrong, sinks: {files: {}}, request: {method: a/b}, expect: {error: {}}}
""",
    "broken_test.yaml": "config: ./gateway.yaml\ntests: [{name: it}]\n",
    "pod_test.yaml": "kind: Pod\n",
    "test_plan.py": """\
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import FakeSink

async def test_the_second_call_is_lost(gateway_harness, fault_plan):
    sink = FakeSink.faulty(fault_plan({"effect": "reset", "skip": 1, "times": 1}, seed=3))
    async with gateway_harness.from_stages([], sink=sink) as gateway:
        replies = await gateway.call_many("tools/list", times=3)
    assert [isinstance(reply, Result) for reply in replies] == [True, False, True]
""",
}


def test_pytest_runs_them(tmp_path):
    """Each is a test of its own; a failure is the report of the case, without a traceback of ours."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    options = ["-q", "-rfE", "-p", "no:randomly", "-p", "no:cacheprovider", "-o", "trio_mode=true"]
    command = [sys.executable, "-m", "pytest", *options, "."]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert "2 failed, 2 passed" in run.stdout
    assert "gateway_test.yaml:3:" in run.stdout
    assert "wrong: a result came, no error" in run.stdout
    assert "error[tests/steps]: the test sends nothing" in run.stdout
    assert "Traceback" not in run.stdout
    assert "FAILED broken_test.yaml::it can be run" in run.stdout


def test_what_is_no_suite_is_not_collected(tmp_path):
    """Not even read, if its name is another one."""
    from sluiceway.pipeline.testing.pytest_plugin import pytest_collect_file

    other = tmp_path / "a.yaml"
    pod = tmp_path / "pod_test.yaml"
    pod.write_text(FILES["pod_test.yaml"])

    assert pytest_collect_file(other, None) is None  # type: ignore[arg-type]  # it is not asked
    assert pytest_collect_file(pod, None) is None  # type: ignore[arg-type]
