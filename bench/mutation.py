"""
Does the suite notice when the gate, the codec, the chain or the configuration are broken?

Breaks them in small ways, one at a time (mutmut), and runs the tests that reach the broken function. A mutant that no
test notices survived; `mutation-survivors.md` says of each known one why that is no gap. Run it with `make mutation`,
or with `--sample 0` for every mutant there is. Exits with 1 when a mutant survived that the list does not explain.

mutmut wants a module's path to be its import name, which `package-dir` makes different here, so it works on a copy
with the packages at `src/sluiceway/`. It breaks the bodies of functions; constants of modules, declarations of fields
and decorated functions other than class methods are as they are.
"""

from __future__ import annotations

import argparse
import ast
import collections
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXPLAINED = ROOT / "bench" / "mutation-survivors.md"
SOURCES = [
    "pipeline/protocol/gate.py",
    "pipeline/protocol/codec.py",
    "pipeline/protocol/envelope.py",
    "pipeline/runtime/chain.py",
    "pipeline/config/*.py",
]
TESTS = ["tests/pipeline/protocol", "tests/pipeline/config", "tests/pipeline/runtime/test_chain.py"]
NOTICED = {"killed", "timeout", "segfault"}
SETTINGS = f"""
[tool.mutmut]
source_paths = ["src"]
only_mutate = {[f"src/sluiceway/{source}" for source in SOURCES]}
pytest_add_cli_args = ["-p", "no:randomly", "-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = {TESTS}
also_copy = ["configs", "docs"]
debug = true
"""
FAIR_TESTS = """

import functools
import gc

import _pytest.python

_pytest.python.IdMaker.make_unique_parameterset_ids = lambda self: [str(n) for n, _ in enumerate(self.parametersets)]


def pytest_collection_finish():
    for found in gc.get_objects():
        if isinstance(found, functools._lru_cache_wrapper) and (found.__module__ or "").startswith("sluiceway."):
            found.cache_clear()
"""
"""
What the tests in the copy need beside their own fixtures. mutmut selects tests by their ids, and takes an id that
pytest does not find again (addresses, control characters, what a mutant made of it) for a mutant that was noticed: in
the copy parameters go by number. And it forks after all tests ran once: what they left in caches was made by whole
functions, so every session begins its tests without.
"""


def lay_out(copy: Path) -> None:
    """The tree that mutmut understands: packages where their names say, mutmut's settings beside pytest's."""
    skip = shutil.ignore_patterns("__pycache__")
    for package in ("pipeline", "middlewares", "transports"):
        shutil.copytree(ROOT / package, copy / "src" / "sluiceway" / package, ignore=skip)
    for folder in ("tests", "configs", "docs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=skip)
    with (copy / "tests" / "conftest.py").open("a") as conftest:
        conftest.write(FAIR_TESTS)
    (copy / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + SETTINGS)


def mutmut(copy: Path, *arguments: str) -> str:
    """What a mutmut command prints; its progress display is of no use here."""
    command = [sys.executable, "-m", "mutmut", *arguments]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False, env=dict(os.environ))
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(arguments[:2])} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    if "BadTestExecution" in done.stdout + done.stderr:
        raise SystemExit("pytest did not find the tests that mutmut chose; what it calls killed may not be")
    return done.stdout


def results(copy: Path) -> dict[str, str]:
    """Mutant -> status, for all that were made, in the order of the sources."""
    lines = mutmut(copy, "results", "--all", "true").splitlines()
    return dict(line.strip().rsplit(": ", 1) for line in lines if "__mutmut_" in line)


def change(copy: Path, mutant: str) -> tuple[str, str]:
    """Where a mutant differs, as `file:line`, and how, as the lines of a diff."""
    lines = mutmut(copy, "show", mutant).splitlines()
    file = next(line[len("--- src/sluiceway/") :] for line in lines if line.startswith("--- "))
    differing = [line for line in lines if line[:1] in "-+" and line[:4] not in ("--- ", "+++ ")]
    first = next((line[1:] for line in differing if line.startswith("-")), "")
    return f"{file}:{line_of(ROOT / file, mutant, first)}", "\n".join(differing)


def line_of(path: Path, mutant: str, text: str) -> int:
    """The number of a line of the function that a mutant belongs to: `x_name` or `xǁClassǁname`."""
    name = mutant.rpartition("__mutmut_")[0].rpartition(".")[2]
    name = name.rpartition("ǁ")[2] if "ǁ" in name else name.removeprefix("x_")
    source = path.read_text()
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            for number in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                if lines[number - 1].strip() == text.strip():
                    return number
    return 0


def main() -> int:
    """Run, print, compare with the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=250, help="how many mutants to try; 0 for all (default: 250)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (default: 1)")
    parser.add_argument("--only", default="", help="only mutants with this in their name, e.g. protocol.gate")
    parser.add_argument("--workers", type=int, default=1, help="processes that run tests (default: 1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Path(folder)
        lay_out(copy)
        # makes every mutant and learns which test reaches which function, at the price of running a few
        mutmut(copy, "run", "--max-children", str(options.workers), "*.gate.x_fold__mutmut_1")
        mutants = [name for name in results(copy) if options.only in name]
        chosen = mutants
        if 0 < options.sample < len(mutants):
            chosen = random.Random(options.seed).sample(mutants, options.sample)
        mutmut(copy, "run", "--max-children", str(options.workers), *chosen)
        after = {name: status for name, status in results(copy).items() if name in set(chosen)}
        survivors = [change(copy, name) for name, status in after.items() if status not in NOTICED]
    return report(len(mutants), collections.Counter(after.values()), survivors)


def report(made: int, statuses: collections.Counter[str], survivors: list[tuple[str, str]]) -> int:
    """Print what survived; the exit code."""
    explained = EXPLAINED.read_text() if EXPLAINED.exists() else ""
    unexplained = 0
    for place, difference in sorted(survivors):
        known = all(line[1:].strip() in explained for line in difference.splitlines())
        unexplained += not known
        print(f"{place}{'' if known else '  (not explained)'}\n{difference}\n")
    counts = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    print(f"{made} mutants, {statuses.total()} tried: {counts}; {unexplained} survivors are not explained")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
