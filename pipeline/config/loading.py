"""
The way in: files, a text or plain data to a checked `Document`.

Nothing is opened and no secret is read: only the files named, and the plugins they name. Which stage of the work finds
what: `include` reads and merges, `interpolate` replaces variables, `assemble` resolves names and types,
`references` and `lint` look at the whole once everything in it is sound.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from attrs import evolve, field, frozen

from ..model.document import Document
from ..model.registry import Registry
from . import nodes
from .assemble import Assembler
from .case_rules import Declared
from .cases import read_cases
from .components import Components
from .include import Reader, overlay, text_source
from .lint import Linter
from .problems import ConfigError, Problem, SourceText, Span, has_errors, sort_problems
from .references import References
from .texts import Texts


@final
@frozen
class Checked:
    """What came of looking at a configuration."""

    document: Document | None
    """The document; None if there are errors."""
    problems: tuple[Problem, ...]
    """Every finding, warnings and notes included, by place."""
    registry: Registry = field(repr=False)
    """Names to classes, plugins of this configuration included."""
    tests: tuple[Declared, ...] = field(default=(), repr=False)
    """Its tests, those of included files too, as far as they are sound."""
    written: Mapping[str, nodes.Node] = field(factory=dict, repr=False)
    """What was written as the options of each component, by its path, for who names the line of an option."""

    def place(self, path: str, option: tuple[str | int, ...] = ()) -> str:
        """`file:line:column` of an option of a component; of the nearest thing around it if it is not written."""
        node = self.written.get(path)
        return "" if node is None else str(nodes.place_of(node, option))

    def require(self) -> Document:
        """
        The document.

        Raises:
            ConfigError: There are errors.
        """
        if self.document is None:
            raise ConfigError(self.problems)
        return self.document


def check(
    path: Path,
    *,
    overlays: Sequence[Path] = (),
    env: Mapping[str, str] | None = None,
    registry: Registry | None = None,
    given: Texts | None = None,
) -> Checked:
    """
    Look at a configuration file. Never raises because of what is in it.

    Args:
        path: The main file: YAML, or TOML if it ends in `.toml`.
        overlays: Files merged deeply over it, in this order (see `include`).
        env: Variables for `${NAME}`; the process's environment if absent.
        registry: Where names are looked up; its plugins grow by those of the configuration.
        given: Read instead of the files that it has.
    """
    reader = Reader(os.environ if env is None else env, given)
    root = reader.read(path)
    for each in overlays:
        over = reader.read(each)
        root = None if root is None or over is None else overlay(root, over)
    return _checked(reader, root, registry)


def check_text(
    text: str,
    name: str = "text",
    *,
    base: Path | None = None,
    env: Mapping[str, str] | None = None,
    registry: Registry | None = None,
) -> Checked:
    """
    Look at a configuration in YAML that is no file of its own, such as a snippet in a Markdown page.

    Args:
        text: The YAML.
        name: How messages call it.
        base: Directory that relative paths start from; the working directory if absent.
        env: Variables for `${NAME}`; the process's environment if absent.
        registry: Where names are looked up.
    """
    reader = Reader(os.environ if env is None else env)
    source = text_source(text, name, (base or Path()).absolute())
    return _checked(reader, reader.parse(text, source), registry, text.encode("utf-8", "replace"))


def load(
    path: Path,
    *,
    overlays: Sequence[Path] = (),
    env: Mapping[str, str] | None = None,
    registry: Registry | None = None,
    given: Texts | None = None,
) -> Document:
    """
    The document of a configuration file. Arguments as for `check`.

    Raises:
        ConfigError: The configuration has errors; all of them are in it.
    """
    return check(path, overlays=overlays, env=env, registry=registry, given=given).require()


def load_text(
    text: str,
    name: str = "text",
    *,
    base: Path | None = None,
    env: Mapping[str, str] | None = None,
    registry: Registry | None = None,
) -> Document:
    """
    The document of a YAML text. Arguments as for `check_text`.

    Raises:
        ConfigError: The configuration has errors; all of them are in it.
    """
    return check_text(text, name, base=base, env=env, registry=registry).require()


def from_data(
    data: Mapping[str, Any],
    *,
    base: Path | None = None,
    env: Mapping[str, str] | None = None,
    registry: Registry | None = None,
) -> Document:
    """
    The document of plain data, shaped as the YAML would be: dicts, lists and scalars.

    Raises:
        ConfigError: The configuration has errors; messages name the path of each.
        TypeError: Something in the data is none of dict, list, tuple, str, int, float, bool and None.
    """
    reader = Reader(os.environ if env is None else env)
    source = SourceText("data", (base or Path()).absolute())
    try:
        tree = nodes.tree_of(dict(data), source)
    except ValueError as error:
        raise ConfigError([Problem(rule="config/size", message=str(error), span=Span(source))]) from error
    return _checked(reader, reader.finish(tree), registry, repr(data).encode("utf-8", "replace")).require()


def _checked(reader: Reader, root: nodes.Mapping | None, registry: Registry | None, content: bytes = b"") -> Checked:
    registry = Registry() if registry is None else registry
    problems = reader.problems
    document: Document | None = None
    tests: tuple[Declared, ...] = ()
    components: Components | None = None
    if root is not None:
        components = Components(registry, problems)
        assembler = Assembler(components)
        document = assembler.document(root)
        declared = {section: node.entries for section, node in assembler.declared.items()}
        References(document, components, declared, root.span).check()
        Linter(document, components).check()
        tests = read_cases(root.get("tests"), document, problems, components.belongs)
        digest = hashlib.sha256(b"\0".join([content, *reader.contents.values()])).hexdigest()
        document = evolve(document, files=tuple(reader.contents), includes=tuple(reader.globs), digest=digest)
    found = sort_problems(problems, list(reader.contents))
    written = {} if components is None else components.nodes
    return Checked(None if has_errors(found) else document, found, registry, tests, written)
