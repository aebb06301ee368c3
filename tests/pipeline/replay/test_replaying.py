"""What a replay says of itself."""

from __future__ import annotations

from sluiceway.pipeline.replay.comparing import Changed, Comparison
from sluiceway.pipeline.replay.matching import Place
from sluiceway.pipeline.replay.playing import Played
from sluiceway.pipeline.replay.replaying import Replayed


def replayed(*reloads: float) -> Replayed:
    """Two exchanges went differently, at 1 and at 3 seconds."""
    comparison, played = Comparison(), Played()
    comparison.count, played.begun, played.reloads = 2, 2, list(reloads)
    comparison.changed = [Changed(n, t, "ping", "", (Place("decisions", "a", "b"),)) for n, t in ((1, 1.0), (2, 3.0))]
    return Replayed(comparison=comparison, played=played, virtual_s=4.0, real_s=0.1)


def test_a_reload_stands_where_it_was() -> None:
    """Between what went before it and what came after, which may be different because of it."""
    heads = [line.strip().partition(",")[0] for line in replayed(2.0, 3.5).lines()]

    reload = "s the recorded gateway loaded its configuration again"
    assert heads == [
        "2 exchanges",
        "exchange 1 at 1.000 s",
        'decisions: "a" -> "b"',
        f"at 2.000 {reload}",
        "exchange 2 at 3.000 s",
        'decisions: "a" -> "b"',
        f"at 3.500 {reload}",
    ]
    assert replayed(2.0).as_json()["reloads"] == [2.0]
