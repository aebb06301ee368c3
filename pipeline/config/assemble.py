"""
From a tree to a `Document`: names resolved, options typed. Goes on after every problem, to report all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

from attrs import define, evolve, field

from ..model.component import ComponentKind, Sink, Source
from ..model.document import Document, Limits, PipelineSpec, Run, SinkSpec, SourceSpec, StoreSpec
from ..model.registry import RegistryError
from ..model.store import Store
from .chains import BAD_ID, ID, Chains
from .components import Components
from .declarations import options_of
from .hooks import shown
from .include import shown_name
from .keys import PIPELINE_KEYS, TOP_KEYS, PipelineKeys, SinkKeys, SourceKeys
from .nodes import Broken, Mapping, Node, Scalar, Sequence
from .problems import Span, unknown
from .references import expand_globs, sinks_in


@define(eq=False)
class Assembler:
    """Builds one document. What it leaves out it has reported."""

    components: Components
    declared: dict[str, Mapping] = field(factory=dict)
    """The sections `stores`, `sources`, `pipelines` and `sinks` as written, broken ids included."""
    chains: Chains = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.chains = Chains(self.components)

    def document(self, root: Mapping) -> Document:
        """The document of a merged tree; of no use if errors were reported."""
        self.plugins(root.get("plugins"))
        for key, entry in root.entries.items():
            if key not in TOP_KEYS and not key.startswith("x-"):
                self.components.unknown_key(key, entry.key, TOP_KEYS)
        for key, fix in (
            ("version", "start the file with version: 1"),
            ("pipelines", "add pipelines: {main: {sink: ...}}"),
        ):
            if key not in root.entries:
                self.components.report(
                    "config/missing-key", f"{key!r} is required: {TOP_KEYS[key]}", root.span, fix=fix
                )
        for section in ("stores", "sources", "pipelines", "sinks"):
            self.declared[section] = self.section(root.get(section), section, root.span)
        return Document(
            stores=dict(self.each("stores", self.store)),
            sinks=dict(self.each("sinks", self.sink)),
            pipelines=dict(self.each("pipelines", self.pipeline)),
            sources=dict(self.each("sources", self.source)),
            run=self.run(root),
        )

    def plugins(self, node: Node | None) -> None:
        """Import what `plugins:` names."""
        if node is None:
            return
        if not isinstance(node, Sequence):
            self.components.report(
                "config/type", "plugins: is a list of modules or files", node.span, fix="write [./stages/mask.py]"
            )
            return
        for item in node.items:
            if not isinstance(item, Scalar) or not isinstance(item.value, str | Broken):
                self.components.report("config/type", "expected a module or a file such as ./stages/mask.py", item.span)
            elif isinstance(item.value, str):
                try:
                    self.components.registry.load_plugin(item.value, item.span.source.base)
                except RegistryError as error:
                    fix = (
                        f"paths are relative to {shown_name(item.span.source.base)}"
                        if str(error).endswith("does not exist")
                        else ""
                    )
                    self.components.report("component/plugin", str(error), item.span, fix=fix)
                    self.components.incomplete = True

    def section(self, node: Node | None, name: str, around: Span) -> Mapping:
        """A top-level section with ids that can be used."""
        if node is None or (isinstance(node, Scalar) and node.value is None):
            return Mapping({}, around)
        if not isinstance(node, Mapping):
            self.components.report("config/type", f"{name}: is a mapping of ids, got {shown(node.plain)}", node.span)
            return Mapping({}, node.span)
        for id_, entry in node.entries.items():
            self.components.spans[f"{name}.{id_}"] = entry.key
            if not ID.fullmatch(id_):
                self.components.report("config/id", f"{id_[:80]!r} {BAD_ID}", entry.key)
        return node

    def each(self, section: str, build: Callable[[str, Mapping, str], Any]) -> Iterator[tuple[str, Any]]:
        """What a section declares, by id, without what is broken."""
        for id_, entry in self.declared[section].entries.items():
            path = f"{section}.{id_}"
            if isinstance(entry.value, Mapping):
                spec = build(id_, entry.value, path)
                if spec is not None:
                    yield id_, spec
            elif not (isinstance(entry.value, Scalar) and isinstance(entry.value.value, Broken)):
                self.components.report(
                    "config/type", f"{path} is a mapping, got {shown(entry.value.plain)}", entry.value.span
                )

    def store(self, id_: str, node: Mapping, path: str) -> StoreSpec | None:
        """A named store."""
        found = self.components.transport(ComponentKind.STORE, node, path)
        if found is None:
            return None
        cls, config = cast("tuple[type[Store], Any]", found)  # the registry checked the kind
        return StoreSpec(id=id_, cls=cls, config=config, path=path, place=str(self.components.spans[path]))

    def sink(self, id_: str, node: Mapping, path: str) -> SinkSpec | None:
        """A sink and the chain in front of it."""
        found = self.components.transport(ComponentKind.SINK, node, path)
        keys = self.common(node, SinkKeys)
        chain = self.chains.chain(node.get("chain"), f"{path}.chain")
        if found is None or keys is None:
            return None
        cls, config = cast("tuple[type[Sink], Any]", found)  # the registry checked the kind
        if cls.interchangeable:
            config = expand_globs(config, (other for other in self.declared["sinks"].entries if other != id_))
        sink = SinkSpec(
            id=id_, cls=cls, config=config, path=path, place=str(self.components.spans[path]),
            chain=chain, max_in_flight=keys.max_in_flight, required=keys.required,
        )  # fmt: skip
        return evolve(sink, sends_to=sinks_in((sink, *chain)), routes=bool(sinks_in((sink,))))

    def source(self, id_: str, node: Mapping, path: str) -> SourceSpec | None:
        """A source and the pipeline it feeds."""
        found = self.components.transport(ComponentKind.SOURCE, node, path)
        keys = self.common(node, SourceKeys)
        if keys is None:
            return None
        pipeline = self.reference(node, "pipeline", keys.pipeline, "pipelines", path)
        if found is None or pipeline is None:
            return None
        cls, config = cast("tuple[type[Source], Any]", found)  # the registry checked the kind
        return SourceSpec(
            id=id_, cls=cls, config=config, path=path, place=str(self.components.spans[path]), pipeline=pipeline
        )

    def common(self, node: Mapping, cls: type) -> Any | None:
        """The keys beside a transport."""
        return self.components.structurer.structure(node.only(option.name for option in options_of(cls)), cls)

    def pipeline(self, id_: str, node: Mapping, path: str) -> PipelineSpec:
        """A pipeline, with defaults for what is broken: the rest of it is still looked at."""
        limits = self.components.structurer.structure(node, Limits, beside=PIPELINE_KEYS)
        if limits is None:
            self.components.broken.add(path)
        keys = self.common(node, PipelineKeys)
        chain = self.chains.chain(node.get("chain"), f"{path}.chain")
        self.components.nodes[path] = node
        sink = keys and self.reference(node, "sink", keys.sink, "sinks", path)
        return PipelineSpec(
            id=id_, path=path, place=str(self.components.spans[path]),
            chain=chain, sink=sink or "", limits=limits or Limits(),
        )  # fmt: skip

    def reference(self, node: Mapping, key: str, given: str | None, section: str, path: str) -> str | None:
        """The id that a key names; the only one there is, if the key is absent."""
        ids = list(self.declared[section].entries)
        if given is None:
            if len(ids) == 1:
                return ids[0]
            message = f"{path} needs {key!r}: there are {len(ids)} {section} to choose from"
            fix = f"add {key}: with one of {', '.join(ids)}" if ids else f"declare one under {section}:"
            self.components.report("config/missing-key", message, self.components.spans[path], fix=fix)
            return None
        if given in ids:
            return given
        value = node.get(key)
        assert value is not None
        self.components.report("reference/unknown", unknown(key, given, ids, listed="declared"), value.span)
        return None

    def run(self, root: Mapping) -> Run:
        """How the process runs; the defaults where nothing usable is said."""
        entry = root.entries.get("run")
        if entry is None:
            return Run()
        self.components.spans["run"] = entry.key
        self.components.nodes["run"] = entry.value
        return self.components.structurer.structure(entry.value, Run) or Run()
