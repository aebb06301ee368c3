"""A configuration as a graph, and the two languages it is written in. Pure: a document in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count, pairwise
from typing import Final, Literal, final

from attrs import frozen

from ..config.references import sink_targets
from ..model.document import Document, Spec, StageSpec

Shape = Literal["source", "stage", "sink"]

_MERMAID: Final = {"source": ('(["', '"])'), "stage": ('["', '"]'), "sink": ('[("', '")]')}
_DOT: Final = {"source": "oval", "stage": "box", "sink": "cylinder"}


@final
@frozen
class Node:
    """One thing in the graph."""

    id: str
    """Unique in the graph; letters, digits and underscores."""
    label: str
    shape: Shape


@final
@frozen
class Group:
    """The stages of one chain, drawn inside a frame."""

    title: str
    nodes: tuple[Node, ...]


@final
@frozen
class Drawing:
    """What is drawn, in the order of the configuration."""

    sources: tuple[Node, ...]
    chains: tuple[Group, ...]
    """Chains without stages are left out."""
    sinks: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]
    """(from, to) node ids, as a request travels."""


def draw(document: Document) -> Drawing:
    """The graph of a configuration; stages that are switched off are not in it."""
    chains: list[Group] = []
    edges: list[tuple[str, str]] = []
    numbers = count(1)

    def chain(title: str, stages: Iterable[StageSpec], end: str) -> str:
        """Draw one chain in front of a node; returns where it is entered."""
        nodes = tuple(Node(f"stage{next(numbers)}", _stage_label(s), "stage") for s in stages if s.enabled)
        if nodes:
            chains.append(Group(title, nodes))
        way = [*(node.id for node in nodes), end]
        edges.extend(pairwise(way))
        return way[0]

    sinks = _ends(document.sinks, "sink")
    sources = _ends(document.sources, "source")
    entries = {i: chain(f"sink {i}", sink.chain, sinks[i].id) for i, sink in document.sinks.items()}
    pipelines = {i: chain(f"pipeline {i}", p.chain, entries[p.sink]) for i, p in document.pipelines.items()}
    edges += [
        (sinks[sink].id, entries[target]) for sink, targets in sink_targets(document).items() for target in targets
    ]
    edges += [(sources[i].id, pipelines[source.pipeline]) for i, source in document.sources.items()]
    return Drawing(tuple(sources.values()), tuple(chains), tuple(sinks.values()), tuple(edges))


def mermaid(drawing: Drawing) -> str:
    """As a mermaid flowchart."""
    lines = ["flowchart LR"]
    lines += [f"  {_mermaid_node(node)}" for node in (*drawing.sources, *drawing.sinks)]
    for number, group in enumerate(drawing.chains):
        lines += [f'  subgraph chain{number} ["{_mermaid_text(group.title)}"]', "    direction LR"]
        lines += [f"    {_mermaid_node(node)}" for node in group.nodes]
        lines += ["  end"]
    lines += [f"  {start} --> {end}" for start, end in drawing.edges]
    return "\n".join(lines) + "\n"


def dot(drawing: Drawing) -> str:
    """In Graphviz's language."""
    lines = ["digraph sluiceway {", "  rankdir=LR;", '  node [fontname="sans-serif"];']
    lines += [f"  {_dot_node(node)}" for node in (*drawing.sources, *drawing.sinks)]
    for number, group in enumerate(drawing.chains):
        lines += [f"  subgraph cluster_{number} {{", f"    label={_dot_text(group.title)};"]
        lines += [f"    {_dot_node(node)}" for node in group.nodes]
        lines += ["  }"]
    lines += [f"  {start} -> {end};" for start, end in drawing.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _ends(specs: Mapping[str, Spec], shape: Shape) -> dict[str, Node]:
    return {
        id_: Node(f"{shape}{number}", f"{id_} ({spec.cls.name})", shape)
        for number, (id_, spec) in enumerate(specs.items(), 1)
    }


def _stage_label(stage: StageSpec) -> str:
    name = stage.id if stage.id == stage.cls.name else f"{stage.id} ({stage.cls.name})"
    return f"{name}, sometimes" if stage.when is not None else name


def _mermaid_node(node: Node) -> str:
    left, right = _MERMAID[node.shape]
    return f"{node.id}{left}{_mermaid_text(node.label)}{right}"


def _mermaid_text(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def _dot_node(node: Node) -> str:
    return f"{node.id} [label={_dot_text(node.label)}, shape={_DOT[node.shape]}];"


def _dot_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
