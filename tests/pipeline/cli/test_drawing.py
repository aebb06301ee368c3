"""A configuration as a graph."""

import pytest

from sluiceway.pipeline.cli.drawing import Drawing, Group, Node, dot, draw, mermaid
from sluiceway.pipeline.config import load_text

CONFIG = """\
version: 1
sources:
  public: {http: {}, pipeline: main}
  editor: {stdio: {}, pipeline: plain}
pipelines:
  main:
    chain:
      - request_id
      - timeout: {id: slow, after: 5s, when: {method: [tools/call]}}
      - log: {enabled: false}
    sink: files
  plain:
    sink: files
sinks:
  files:
    embedded: {}
    chain: [concurrency_limit]
"""


def test_a_request_can_be_followed_through_the_graph():
    """Sources lead into chains, chains into sinks through the sinks' own; what is switched off is not there."""
    limit = Node("stage1", "concurrency_limit", "stage")
    first, second = Node("stage2", "request_id", "stage"), Node("stage3", "slow (timeout), sometimes", "stage")

    assert Drawing(
        sources=(Node("source1", "public (http)", "source"), Node("source2", "editor (stdio)", "source")),
        chains=(Group("sink files", (limit,)), Group("pipeline main", (first, second))),
        sinks=(Node("sink1", "files (embedded)", "sink"),),
        edges=(
            ("stage1", "sink1"),
            ("stage2", "stage3"),
            ("stage3", "stage1"),
            ("source1", "stage2"),
            ("source2", "stage1"),
        ),
    ) == draw(load_text(CONFIG))


DRAWING = Drawing(
    sources=(Node("source1", 'a "b" <c>\\', "source"),),
    chains=(Group("pipeline main", (Node("stage1", "log", "stage"),)),),
    sinks=(Node("sink1", "up", "sink"),),
    edges=(("stage1", "sink1"), ("source1", "stage1")),
)


def test_mermaid_has_its_own_quoting():
    """What would end a label is written as an entity."""
    assert """\
flowchart LR
  source1(["a &quot;b&quot; &lt;c&gt;\\"])
  sink1[("up")]
  subgraph chain0 ["pipeline main"]
    direction LR
    stage1["log"]
  end
  stage1 --> sink1
  source1 --> stage1
""" == mermaid(DRAWING)


def test_dot_has_its_own_quoting():
    """Backslashes and quotes are escaped."""
    assert """\
digraph sluiceway {
  rankdir=LR;
  node [fontname="sans-serif"];
  source1 [label="a \\"b\\" <c>\\\\", shape=oval];
  sink1 [label="up", shape=cylinder];
  subgraph cluster_0 {
    label="pipeline main";
    stage1 [label="log", shape=box];
  }
  stage1 -> sink1;
  source1 -> stage1;
}
""" == dot(DRAWING)


@pytest.mark.parametrize(("words", "start"), [((), "flowchart LR"), (("--format", "dot"), "digraph sluiceway {")])
def test_the_verb_prints_a_graph(sluiceway, write, words, start):
    """Of a file, in the language that was asked for."""
    outcome = sluiceway("graph", write("g.yaml", CONFIG), *words)

    assert (0, "") == (outcome.code, outcome.err)
    assert outcome.out.startswith(start)


def test_a_file_with_errors_has_no_graph(sluiceway, write):
    """The problems are shown instead."""
    outcome = sluiceway("graph", write("g.yaml", "version: 2\n"))

    assert (1, "") == (outcome.code, outcome.out)
    assert "this Sluiceway reads version 1" in outcome.err
    assert "g.yaml cannot be used" in outcome.err
