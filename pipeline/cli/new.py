"""`sluiceway new`: skeletons that work from the first minute, each with its passing test."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final, Literal

from ..model.component import ComponentKind
from ..model.registry import GROUPS, Registry
from .exits import Failure, usage
from .output import emit, say

Kind = Literal["middleware", "sink", "source", "pipeline"]
"""What there is a skeleton of."""

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_COMPONENT: Final = {
    "${module}.py": "{kind}.py.txt",
    "test_${module}.py": "test_{kind}.py.txt",
    "README.md": "component.md.txt",
    "pyproject.toml": "pyproject.toml.txt",
    "example.yaml": "example_{kind}.yaml.txt",
}
_PIPELINE: Final = {"${name}.yaml": "pipeline.yaml.txt", "${name}_test.yaml": "pipeline_test.yaml.txt"}


def new(kind: Kind, name: str, /, *, into: Path = Path()) -> None:
    """
    Write the skeleton of a component or a pipeline, with a passing test.

    A component becomes a folder that is a distribution of its own: class, options, documentation, contract test, an
    example configuration, and the entry point that makes its name known where it is installed. A pipeline becomes a
    configuration and a test.

    Args:
        kind: `middleware`, `sink`, `source` or `pipeline`.
        name: Its name in snake_case: the key in YAML.
        into: The folder to write into.
    """
    _check_name(kind, name)
    values = _values(kind, name)
    folder = into if kind == "pipeline" else into / name
    written = {
        folder / Template(target).substitute(values): _filled(source.format(kind=kind), values)
        for target, source in (_PIPELINE if kind == "pipeline" else _COMPONENT).items()
    }
    taken = [path for path in written if path.exists()]
    if taken:
        raise Failure(f"{taken[0]} exists; nothing was written")
    for path, text in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        emit(str(path))
    say(_filled(f"next_{'pipeline' if kind == 'pipeline' else 'component'}.txt", {**values, "folder": str(folder)}))


def _check_name(kind: Kind, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise usage(f"a name is snake_case, such as mask_iban; {name!r} is not")
    if keyword.iskeyword(name):
        raise usage(f"{name!r} is a keyword of Python; choose another name")
    if kind != "pipeline" and name in Registry().names(ComponentKind(kind)):
        raise usage(f"there is a {kind} {name!r} already; see: sluiceway explain {kind}.{name}")


def _values(kind: Kind, name: str) -> dict[str, str]:
    return {
        "kind": kind,
        "name": name,
        "dashed": name.replace("_", "-"),
        "module": f"sluiceway_{name}",
        "cls": name.title().replace("_", ""),
        "group": "" if kind == "pipeline" else GROUPS[ComponentKind(kind)],
    }


def _filled(template: str, values: dict[str, str]) -> str:
    assert __package__ is not None
    text = files(__package__).joinpath("templates", template).read_text(encoding="utf-8")
    return Template(text).substitute(values)
