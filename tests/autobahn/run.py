"""
Runs the cases of the Autobahn test suite against both WebSocket faces of the gateway and judges what comes out.

    python tests/autobahn/run.py [--cases '1.*'] [--face server]

All cases of groups 1 to 7, 9 and 10: framing, pings, reserved bits, opcodes, fragments, UTF-8, closing, limits, 301
for each face; about a minute and a half in all. Groups 12 and 13 are about compression, which the gateway neither
offers nor accepts. Exits with 1 unless every case ran and is OK, or as `EXCEPTIONS` says.

The suite is Python 2 and was last released before 2026; it is installed in an environment of its own, `.autobahn/`,
converted (`convert.py`), and driven by `fuzz.py`. What it talks to is in `faces.py`.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
import venv
from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
ROOM: Final = HERE.parent.parent / ".autobahn"
PYTHON: Final = ROOM / "venv" / "bin" / "python"
PACKAGES: Final = ("autobahntestsuite==25.10.1", "autobahn==26.10.2", "twisted==26.10.0", "fissix==24.4.24")
GROUPS: Final = ("[1-7].*", "9.*", "10.*")
RUN_S: Final = 180.0

_TOGETHER: Final = "a frame that breaks the protocol came with the message before it, which is then not echoed any more"
_UNDEFINED: Final = "the specification leaves open what happens; the suite only tells"
EXCEPTIONS: Final[Mapping[str, tuple[str, str]]] = {
    **dict.fromkeys(("3.2", "3.3", "3.4", "4.[12].[345]", "5.15"), ("NON-STRICT", _TOGETHER)),
    **dict.fromkeys(("7.1.6", "7.13.[12]"), ("INFORMATIONAL", _UNDEFINED)),
}
"""Cases that may come out otherwise than OK: which verdict, and why. All others must be OK."""


def install() -> None:
    """Make `.autobahn/`, once for these packages and this converter."""
    made_of = " ".join((*PACKAGES, sha256((HERE / "convert.py").read_bytes()).hexdigest()))
    marker = ROOM / "made_of"
    if marker.exists() and marker.read_text(encoding="utf-8") == made_of:
        return
    for part in ("venv", "cases"):
        shutil.rmtree(ROOM / part, ignore_errors=True)
    venv.create(ROOM / "venv", with_pip=True)
    pip = (PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES)
    subprocess.run(pip, check=True)
    where = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    packages = subprocess.run((PYTHON, "-c", where), check=True, capture_output=True, text=True).stdout.strip()
    suite = Path(packages) / "autobahntestsuite" / "case"
    subprocess.run((PYTHON, HERE / "convert.py", suite, ROOM / "cases"), check=True)
    marker.write_text(made_of, encoding="utf-8")


def run_server(report: Path, patterns: list[str]) -> None:
    """The suite is the client, the http source the server."""
    face = subprocess.Popen(
        (sys.executable, HERE / "faces.py", "server"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with face:
        assert face.stdin is not None
        assert face.stdout is not None
        url = face.stdout.readline().strip()
        with _fuzz("client", url, report, patterns) as fuzzing:
            fuzzing.wait(RUN_S)
        face.stdin.close()


def run_client(report: Path, patterns: list[str]) -> None:
    """The suite is the server, the wire of the websocket sink the client."""
    with _fuzz("server", "-", report, patterns) as fuzzing:
        assert fuzzing.stdout is not None
        port, connections = fuzzing.stdout.readline().split()
        subprocess.run((sys.executable, HERE / "faces.py", "client", port, connections), timeout=RUN_S, check=True)
        fuzzing.wait(RUN_S)


def _fuzz(side: str, url: str, report: Path, patterns: list[str]) -> subprocess.Popen[str]:
    paths = os.pathsep.join((str(HERE), str(ROOM)))
    command = (PYTHON, "-W", "ignore", HERE / "fuzz.py", side, url, report, *patterns)
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True)


def wanted(patterns: list[str]) -> set[str]:
    """The cases that a run must have, asked of the suite itself."""
    script = "import cases, fuzz, sys; print(*map(fuzz.id_of, fuzz.chosen(sys.argv[1:])))"
    paths = os.pathsep.join((str(HERE), str(ROOM)))
    command = (PYTHON, "-W", "ignore", "-c", script, *patterns)
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def judge(verdicts: Mapping[str, Mapping[str, Any]], cases: set[str]) -> list[str]:
    """What is wrong with a run."""
    wrong = [f"{case}: it did not run to its end" for case in sorted(cases - verdicts.keys())]
    for case, verdict in verdicts.items():
        excused = next((each for pattern, each in EXCEPTIONS.items() if fnmatchcase(case, pattern)), None)
        allowed = {"OK"} if excused is None else {"OK", excused[0]}
        if verdict["behavior"] not in allowed:
            wrong.append(f"{case}: {verdict['behavior']}: {verdict['result']}")
        if verdict["close"] not in allowed & {"OK", "INFORMATIONAL"}:
            wrong.append(f"{case}: closing {verdict['close']} ({verdict['code']}): {verdict['close_result']}")
    return wrong


def main() -> int:
    """Run what was asked for; 0 if all of it is as it should be."""
    parser = argparse.ArgumentParser(description="Run the Autobahn cases against both WebSocket faces.")
    parser.add_argument("--cases", action="append", help="cases to run, as globs of their numbers; all unless given")
    parser.add_argument("--face", choices=("server", "client"), action="append", help="both unless given")
    asked = parser.parse_args()
    patterns = asked.cases or list(GROUPS)
    ROOM.mkdir(exist_ok=True)
    wrong: list[str] = []
    with (ROOM / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run writes to the same folder
        install()
        cases = wanted(patterns)
        for face, run in (("server", run_server), ("client", run_client)):
            if face not in (asked.face or ("server", "client")):
                continue
            report = ROOM / f"{face}.json"
            report.unlink(missing_ok=True)
            begin = time.monotonic()
            run(report, patterns)
            verdicts = json.loads(report.read_text(encoding="utf-8"))
            counts = ", ".join(f"{n} {word}" for word, n in Counter(v["behavior"] for v in verdicts.values()).items())
            print(
                f"{face}: {len(verdicts)} of {len(cases)} cases, {counts}; {time.monotonic() - begin:.0f} s", flush=True
            )
            wrong += [f"{face} {line}" for line in judge(verdicts, cases)]
    print("\n".join(wrong) if wrong else "all OK, or as expected")
    return 1 if wrong or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
