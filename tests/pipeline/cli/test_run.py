"""`run`: what the command line makes of it; signals, drain and reload are `runtime.serve`'s."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from sluiceway.pipeline.cli.exits import Exit
from sluiceway.pipeline.cli.run import GUIDE, QUICKSTART, over_stdio
from sluiceway.pipeline.config import load, load_text
from sluiceway.pipeline.protocol.errors import SluicewayError, UpstreamUnavailable

CODE = "import sys; from sluiceway.pipeline.cli import main; sys.exit(main())"
TWO = """\
version: 1
pipelines: {a: {sink: up}, b: {sink: up}}
sinks: {up: {embedded: {}}}
"""


def wait_for(log, text):
    """Wait until a process has written something."""
    for _ in range(1000):
        if text in log.read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"{text!r} is not in the log after ten seconds")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_dry_run_opens_everything_and_stops(program, tmp_path, good):
    """The log is on stderr; stdout stays empty."""
    (tmp_path / "a.yaml").write_text(good)
    outcome = program("run", "a.yaml", "--dry-run", cwd=tmp_path)

    assert (Exit.OK, "") == (outcome.code, outcome.out)
    assert "gateway ready" in outcome.err
    assert "every component opened; this was a dry run" in outcome.err
    assert "gateway stopped" in outcome.err


def test_a_configuration_with_errors_does_not_start(program, tmp_path, good):
    """Exit code 3, with the problems as `check` shows them."""
    (tmp_path / "a.yaml").write_text(good.replace("request_id", "nonsense"))
    outcome = program("run", "a.yaml", cwd=tmp_path)

    assert (Exit.NOT_STARTED, "") == (outcome.code, outcome.out)
    assert "a.yaml:8:13: error[component/unknown]" in outcome.err


def test_a_component_that_does_not_open_is_exit_code_3(program, tmp_path):
    """The component is named."""
    (tmp_path / "a.yaml").write_text(
        "version: 1\npipelines: {main: {sink: up}}\nsinks: {up: {stdio: {command: [no-such-server]}}}\n"
    )
    outcome = program("run", "a.yaml", "--dry-run", cwd=tmp_path)

    assert outcome.code == Exit.NOT_STARTED
    assert "no-such-server" in outcome.err


def test_a_missing_file_does_not_start(program, tmp_path):
    """It is named."""
    outcome = program("run", "nowhere.yaml", cwd=tmp_path)

    assert outcome.code == Exit.NOT_STARTED
    assert "nowhere.yaml" in outcome.err


def test_an_environment_is_laid_over_the_file(program, tmp_path, good):
    """As with `check`."""
    (tmp_path / "a.yaml").write_text(good)
    (tmp_path / "a.broken.yaml").write_text("sinks: {demo: {embedded: null}}\n")

    assert program("run", "a.yaml", "--dry-run", "--env", "broken", cwd=tmp_path).code == Exit.NOT_STARTED


def test_ctrl_c_drains_and_is_exit_code_130(tmp_path, good):
    """Start and stop are logged (S2-RN-06)."""
    (tmp_path / "a.yaml").write_text(good)
    command = [sys.executable, "-c", CODE, "run", "a.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "gateway ready" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()

    assert process.returncode == Exit.INTERRUPTED
    assert "gateway stopped" in rest


@pytest.fixture
def _quiet(monkeypatch):
    """Leave the logging of the test process alone."""
    monkeypatch.setattr("sluiceway.pipeline.telemetry.log.configure_logging", lambda *_words: None)


@pytest.mark.usefixtures("_quiet")
def test_without_a_file_the_quickstart_is_served_with_a_guide(sluiceway, write, good, monkeypatch):
    """Where it is and what to do with it; a configuration of one's own needs no guide."""
    path = write("a.yaml", good)
    own = sluiceway("run", path, "--dry-run")
    monkeypatch.setattr("sluiceway.pipeline.cli.run.QUICKSTART", path)
    quickstart = sluiceway("run", "--dry-run")

    assert (Exit.OK, Exit.OK) == (own.code, quickstart.code)
    assert GUIDE in quickstart.err
    assert GUIDE not in own.err
    assert "this was a dry run" in own.err


def test_the_guide_names_the_address_of_the_quickstart():
    """And a tool that its server has."""
    source = load(QUICKSTART).sources["local"].config

    assert f"http://{source.bind}{source.path}" in GUIDE
    assert "tools call add a=2 b=3" in GUIDE


@pytest.mark.usefixtures("_quiet")
def test_components_are_shown_on_a_terminal_while_they_start(sluiceway, write, good, monkeypatch):
    """Drawn on stderr, and taken away."""
    path = write("a.yaml", good)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    outcome = sluiceway("run", path, "--dry-run")

    assert outcome.code == Exit.OK
    assert "sinks.demo" in outcome.err


@pytest.mark.usefixtures("_quiet")
def test_an_error_of_ours_at_the_start_is_exit_code_3(sluiceway, write, good, monkeypatch):
    """Whatever the engine raises on purpose becomes a message."""

    async def refuse(_load, **_options):
        raise UpstreamUnavailable("not today")

    monkeypatch.setattr("sluiceway.pipeline.runtime.serve.serve", refuse)
    outcome = sluiceway("run", write("a.yaml", good))

    assert (Exit.NOT_STARTED, "sluiceway: not today\n") == (outcome.code, outcome.err)


@pytest.mark.usefixtures("_quiet")
def test_a_pipeline_that_is_not_there_is_exit_code_3(sluiceway, write):
    """The ones that are there are named."""
    outcome = sluiceway("run", write("a.yaml", TWO), "--stdio", "--pipeline", "c")

    assert outcome.code == Exit.NOT_STARTED
    assert "name one of a, b with --pipeline" in outcome.err


@pytest.mark.usefixtures("_quiet")
def test_errors_are_shown_as_check_shows_them(sluiceway, write, good):
    """All of them, with their places."""
    outcome = sluiceway("run", write("a.yaml", good.replace("request_id", "nonsense")))

    assert (Exit.NOT_STARTED, "") == (outcome.code, outcome.out)
    assert outcome.err.startswith("a.yaml:8:13: error[component/unknown]")


def test_a_reload_with_errors_changes_nothing(program, tmp_path, good):
    """SIGHUP with a broken file is a log line; the gateway serves on and stops as it should."""
    config, log = tmp_path / "a.yaml", tmp_path / "log"
    port = free_port()
    config.write_text(good.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    with (
        log.open("w") as stream,
        subprocess.Popen([sys.executable, "-c", CODE, "run", config], stderr=stream) as process,
    ):
        wait_for(log, "gateway ready")
        config.write_text(good.replace("request_id", "nonsense"))
        process.send_signal(signal.SIGHUP)
        wait_for(log, "reload refused")
        tools = program("tools", "ls", "--url", f"http://127.0.0.1:{port}/mcp")
        process.send_signal(signal.SIGTERM)

    assert (Exit.OK, 0) == (tools.code, process.returncode)
    assert "component/unknown" in log.read_text()


@pytest.mark.usefixtures("_quiet")
def test_a_pipeline_without_stdio_is_a_wrong_command_line(sluiceway, write):
    """It would be ignored: the sources say which pipeline they feed."""
    outcome = sluiceway("run", write("a.yaml", TWO), "--pipeline", "a")

    assert (Exit.USAGE, "sluiceway: --pipeline goes with --stdio") == (outcome.code, outcome.err.partition(";")[0])


def test_stdio_and_pipeline_are_passed_on(sluiceway, write, monkeypatch):
    """What is served is the configuration with another source."""
    served = []

    async def serve(load, **options):
        served.append((list(load().sources), options["watch"], options["dry_run"]))
        return 0

    monkeypatch.setattr("sluiceway.pipeline.runtime.serve.serve", serve)
    path = write("a.yaml", TWO)

    assert sluiceway("run", path, "--stdio", "--pipeline", "b", "--watch").code == Exit.OK
    assert served == [(["stdio"], True, False)]


def test_stdio_serves_the_client_that_started_it(tmp_path, good):
    """Messages on stdout and nothing else; the end of stdin is the end."""
    (tmp_path / "a.yaml").write_text(good)
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    done = subprocess.run(
        [sys.executable, "-c", CODE, "run", "--stdio", "a.yaml"],
        cwd=tmp_path,
        input=json.dumps(request) + "\n",
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ},
        check=False,
    )

    (reply,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (0, 1) == (done.returncode, reply["id"])
    assert "tools" in reply["result"]


def test_stdio_takes_the_place_of_every_source():
    """No port is opened for a client that has a pipe."""
    document = over_stdio(load(QUICKSTART))

    assert ["stdio"] == [spec.cls.name for spec in document.sources.values()]
    assert document.sources["stdio"].pipeline == "main"


def test_stdio_feeds_the_pipeline_that_is_meant():
    """The only one, the one that the sources feed, or the one that is named."""
    sources = "sources: {x: {http: {}, pipeline: b}}\n"

    assert over_stdio(load_text(TWO + sources)).sources["stdio"].pipeline == "b"
    assert over_stdio(load_text(TWO), "a").sources["stdio"].pipeline == "a"
    for pipeline in (None, "c"):
        with pytest.raises(SluicewayError, match="name one of a, b with --pipeline"):
            over_stdio(load_text(TWO), pipeline)


@pytest.mark.parametrize(
    ("configured", "options", "processes"),
    [
        (1, [], None),
        (3, [], 3),
        (3, ["--workers", "1"], None),
        (1, ["--workers", "2"], 2),
        ("auto", [], 4),
        (1, ["--workers", "auto"], 4),
        (3, ["--dry-run"], None),
        (3, ["--record", "tape.jsonl"], None),
        (3, ["--stdio"], None),
    ],
)
def test_workers_are_supervised_where_there_is_more_than_one(
    sluiceway, tmp_path, good, monkeypatch, configured, options, processes
):
    """The command line says it for the configuration; what has one client, or one tape, is one process."""
    from sluiceway.pipeline.runtime import serve as alone
    from sluiceway.pipeline.runtime.workers import process as several

    started = []

    async def serve(load, **_):
        started.append(None)
        return 0

    async def supervise(load, files, *, workers, **_):
        document, snapshot = load()
        assert list(snapshot.contents) == [str(file.resolve()) for file in files] == list(map(str, document.files))
        started.append(workers)
        return 0

    monkeypatch.setattr(alone, "serve", serve)
    monkeypatch.setattr(several, "supervise", supervise)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    path = tmp_path / "a.yaml"
    path.write_text(f"{good}\nrun: {{workers: {configured}}}\n")

    assert sluiceway("run", path, *options).code == Exit.OK
    assert started == [processes]


@pytest.mark.parametrize("options", [["--workers", "0"], ["--workers", "many"], ["--workers", "2", "--stdio"]])
def test_a_number_of_workers_that_cannot_be_is_a_wrong_command_line(sluiceway, write, good, options):
    """Also where it contradicts something else."""
    assert sluiceway("run", write("a.yaml", good), *options).code == Exit.USAGE
