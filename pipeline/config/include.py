"""
From files to one tree: reading, includes, overlays.

`include:` is a list of globs relative to the file that has it. The maps of an included file are merged by id: the
same id twice is an error that shows both places, there is no deep merge. A glob that matches nothing is an error, and
so is a file that includes itself on any way round. A file reached twice is read once.

An overlay (`--env`, `--overlay`) is the opposite: a file of the same shape that says what differs. Its maps are merged
deeply over the base by key; lists and scalars replace; `null` removes a key. So a production file needs to hold only
what production changes:

    # gateway.production.yaml, over gateway.yaml
    run: {log_level: warning}
    sources: {public: {http: {bind: "0.0.0.0:8443"}}}
    stores: {state: {memory: null, sqlite: {path: /var/lib/sluiceway/state.db}}}

Places point to the file that said it last.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping as Environment
from pathlib import Path
from typing import Final

from attrs import define, evolve, field

from .interpolate import interpolate
from .nodes import Broken, Entry, Mapping, Node, Scalar, Sequence
from .problems import Problem, SourceText, Span
from .texts import Texts
from .toml_loader import load_toml
from .yaml_loader import load_yaml

MAX_BYTES: Final = 1024 * 1024
"""Largest file, in bytes."""
VERSION: Final = 1
"""The version of the format."""
MAX_FILES: Final = 256
"""Most files of one configuration."""
MERGED: Final = ("stores", "sources", "pipelines", "sinks", "run")
"""Top-level maps that includes merge by key."""
LISTED: Final = ("plugins", "tests")
"""Top-level lists that includes make one of."""


def shown_name(path: Path) -> str:
    """A path as people see it: relative to the working directory when below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def text_source(text: str, name: str, base: Path, path: Path | None = None) -> SourceText:
    """A `SourceText` of a text, split into lines as YAML counts them."""
    return SourceText(name, base, tuple(text.replace("\r\n", "\n").replace("\r", "\n").split("\n")), path)


@define(eq=False)
class Reader:
    """Reads the files of one configuration and remembers which, and what is wrong with them."""

    environment: Environment[str, str]
    given: Texts | None = None
    """Read instead of the files of the same names."""
    problems: list[Problem] = field(factory=list)
    contents: dict[Path, bytes] = field(factory=dict)
    """What was read, by absolute path, in order."""
    globs: dict[str, None] = field(factory=dict)
    """What was included, as absolute globs, in order."""

    def read(self, path: Path, asked: Span | None = None, above: tuple[Path, ...] = ()) -> Mapping | None:
        """
        One file with everything it includes, as one tree; None if nothing of it can be used.

        Args:
            path: The file.
            asked: The place that names it, if a file does.
            above: The files that include it, outermost first.
        """
        path = path.resolve()
        source = SourceText(shown_name(path), path.parent, path=path)
        try:
            content = self.content_of(path)
        except OSError as error:
            self.report("file/unreadable", f"{source.name} cannot be read: {error.strerror}", asked or Span(source))
            return None
        self.contents[path] = content
        if len(content) > MAX_BYTES:
            message = f"the file has more than {MAX_BYTES:,} bytes, which is the limit"
            self.report("file/size", message, Span(source), fix="split it into files and name them under include")
            return None
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            self.report("file/encoding", f"byte 0x{content[error.start]:02x} is not UTF-8", Span(source, line, 1))
            return None
        return self.parse(text, text_source(text, source.name, path.parent, path), (*above, path))

    def content_of(self, path: Path) -> bytes:
        """What is in a file, or was when the given texts were read. Raises OSError."""
        if self.given is not None and path in self.given.contents:
            return self.given.contents[path]
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)  # a device has no end

    def parse(self, text: str, source: SourceText, above: tuple[Path, ...] = ()) -> Mapping | None:
        """One text with everything it includes, as one tree; None if nothing of it can be used."""
        is_toml = source.path is not None and source.path.suffix.lower() == ".toml"
        root, problems = (load_toml if is_toml else load_yaml)(text, source)
        self.problems += problems
        return None if root is None else self.finish(root, above)

    def finish(self, root: Node, above: tuple[Path, ...] = ()) -> Mapping | None:
        """A tree with its variables replaced and its includes merged in."""
        root, problems = interpolate(root, self.environment)
        self.problems += problems
        if not isinstance(root, Mapping):
            self.report("config/type", "a configuration is a mapping with the key `version`", root.span)
            return None
        version = root.get("version")
        if version is not None and (type(version.plain) is not int or version.plain != VERSION):
            self.report(
                "config/version", f"this Sluiceway reads version {VERSION}", version.span, fix="write version: 1"
            )
        include = root.get("include")
        for included in [] if include is None else self.included(include, above):
            root = self.merge(root, included)
        return root.without(["include"])

    def included(self, include: Node, above: tuple[Path, ...]) -> list[Mapping]:
        """The trees that an `include:` names."""
        if not isinstance(include, Sequence):
            self.report("config/type", "include: is a list of globs", include.span, fix="write [sinks/*.yaml]")
            return []
        trees: list[Mapping] = []
        for item in include.items:
            if not isinstance(item, Scalar) or not isinstance(item.value, str | Broken):
                self.report("config/type", "expected a glob such as sinks/*.yaml", item.span)
            elif isinstance(item.value, str):
                trees += self.matching(item.value, item.span, above)
        return trees

    def matching(self, pattern: str, span: Span, above: tuple[Path, ...]) -> list[Mapping]:
        """The trees of the files that a glob matches, by name."""
        base = span.source.base
        absolute = pattern if Path(pattern).is_absolute() else f"{glob.escape(str(base))}/{pattern}"
        self.globs[absolute] = None
        if self.given is not None and absolute in self.given.matches:
            paths = [*self.given.matches[absolute]]
        else:
            paths = [path for name in sorted(glob.glob(absolute, recursive=True)) if (path := Path(name)).is_file()]
        if not paths:
            fix = f"patterns are relative to {shown_name(base)}"
            self.report("include/nothing", f"no file matches {pattern!r}", span, fix=fix)
        return [tree for path in paths if (tree := self.include(path.resolve(), span, above)) is not None]

    def include(self, path: Path, span: Span, above: tuple[Path, ...]) -> Mapping | None:
        """One included file; None if it was read before, or cannot be used."""
        if path in above:
            way = " -> ".join(shown_name(each) for each in (*above[above.index(path) :], path))
            self.report("include/cycle", f"a file includes itself: {way}", span)
            return None
        if path in self.contents:
            return None
        if len(self.contents) >= MAX_FILES:
            self.report("include/size", f"more than {MAX_FILES} files", span)
            return None
        return self.read(path, span, above)

    def merge(self, base: Mapping, other: Mapping) -> Mapping:
        """The base with what an included file adds."""
        entries = dict(base.entries)
        for key, entry in other.entries.items():
            mine = entries.get(key)
            if mine is None:
                entries[key] = entry
            elif key in MERGED and isinstance(mine.value, Mapping) and isinstance(entry.value, Mapping):
                entries[key] = evolve(mine, value=self.merge_ids(key, mine.value, entry.value))
            elif key in LISTED and isinstance(mine.value, Sequence) and isinstance(entry.value, Sequence):
                entries[key] = evolve(mine, value=evolve(mine.value, items=mine.value.items + entry.value.items))
            elif key != "version" and not key.startswith("x-"):
                self.duplicate(f"{key}:", entry.key, mine.key)
        return evolve(base, entries=entries)

    def merge_ids(self, kind: str, base: Mapping, other: Mapping) -> Mapping:
        """One section with what an included file adds to it."""
        entries = dict(base.entries)
        for name, entry in other.entries.items():
            if name in entries:
                self.duplicate(f"{kind}.{name}", entry.key, entries[name].key)
            else:
                entries[name] = entry
        return evolve(base, entries=entries)

    def duplicate(self, what: str, second: Span, first: Span) -> None:
        """Report something that two files declare."""
        self.report("include/duplicate", f"{what} is declared twice", second, others=(("first", first),),
                    fix="remove one, or rename it; to change a part of it use an overlay")  # fmt: skip

    def report(
        self, rule: str, message: str, span: Span, *, fix: str = "", others: tuple[tuple[str, Span], ...] = ()
    ) -> None:
        """Note an error."""
        self.problems.append(Problem(rule=rule, message=message, span=span, fix=fix, others=others))


def overlay(base: Mapping, over: Mapping) -> Mapping:
    """The base with what an overlay changes: maps deeply by key, everything else replaced, `null` removes."""
    entries = dict(base.entries)
    for key, entry in over.entries.items():
        mine = entries.get(key)
        if isinstance(entry.value, Scalar) and entry.value.value is None:
            entries.pop(key, None)
        elif mine is not None and isinstance(mine.value, Mapping) and isinstance(entry.value, Mapping):
            entries[key] = Entry(mine.key, overlay(mine.value, entry.value))
        else:
            entries[key] = entry
    return evolve(base, entries=entries)
