"""One difference of behaviour between two configurations, as everything here hands it out."""

from __future__ import annotations

from typing import Literal, final

from attrs import frozen

from ...protocol.messages import Json

Area = Literal[
    "access", "authentication", "exposure", "limits", "deadlines", "retries", "caching", "order", "upstreams",
    "recording", "naming", "operation", "options",
]  # fmt: skip
"""What a difference is about, for those who want to know of some only."""


@final
@frozen
class Change:
    """One difference."""

    path: str
    """What behaves differently: `pipelines.main`, `pipelines.main.retry`, `sinks.files`, `run`; as it is called now."""
    area: Area
    text: str
    """A sentence about it, without its name and without a full stop."""
    option: str = ""
    """Path of the option in it that says so, `overrides[0].rate`; empty if there is no single one."""
    old: Json = None
    """What the option was, as it would be written; None where there was nothing, or no option says it."""
    new: Json = None
    """What it is."""

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"

    def as_json(self) -> dict[str, Json]:
        """For programs."""
        return {
            "path": self.path, "area": self.area, "text": self.text, "option": self.option, "old": self.old,
            "new": self.new,
        }  # fmt: skip
