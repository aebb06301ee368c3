"""The options of the stage `audit`."""

from __future__ import annotations

from typing import Literal, final

from attrs import frozen

from sluiceway.pipeline.model.options import DAY, KIB, MIB, ConfigPath, Duration, Secret, Size, option

from .writer import Sync


@final
@frozen
class AuditConfig:
    """Options of `audit`."""

    path: ConfigPath | None = option(
        None,
        doc="The trail; made if it is missing, in a folder that must exist, for its owner only. Needed unless `to` is "
        "`log`.",
        example="./audit.jsonl",
    )
    to: Literal["jsonl", "sqlite", "log"] = option(
        "jsonl",
        doc="What the trail is: a JSON Lines file, a SQLite file, or lines of the gateway's own log, which are "
        "neither chained nor waited for.",
    )
    params: Literal["none", "digest", "redacted"] = option(
        "redacted",
        doc="How an entry shows params: not, as a fingerprint, or with secrets masked and long values cut.",
    )
    redact: tuple[str, ...] = option(
        (),
        doc="Further keys, as globs, whose values are masked; compared without case, `-` and `_`. Passwords, tokens, "
        "credentials and the like are masked in any case.",
        example=["*iban*"],
    )
    paths: tuple[str, ...] = option(
        (),
        doc="Places in params that are masked; a star stands for any one name or index, also as part of a name.",
        example=["arguments.card.number"],
    )
    max_params: Size = option(
        Size(4 * KIB), ge=0, doc="Longest params that an entry shows, as JSON; of longer ones it has the fingerprint."
    )
    result: Literal["none", "digest"] = option(
        "none", doc="Whether an entry has a fingerprint of the result. Results themselves are never recorded."
    )
    sync: Sync = option(
        "batch",
        doc="What a reply waits for. `always`: its record survives a power cut. `batch`: it survives the end of the "
        "process, and within 10 ms a power cut. `never`: nothing; the last records may be lost.",
    )
    on_failure: Literal["closed", "open"] = option(
        "closed",
        doc="What happens to calls while nothing can be recorded: they are refused, or served, counted and not "
        "recorded.",
    )
    max_waiting: int = option(10_000, ge=1, doc="Entries that may wait to be written; above this requests wait.")
    checkpoint_key: Secret | None = option(
        None,
        doc="Signs the checkpoints, so that nobody without it can write the trail anew; at least 16 characters.",
        example={"from_env": "AUDIT_KEY"},
    )
    checkpoints: ConfigPath | None = option(
        None,
        doc="The file of checkpoints; beside the trail if not given. On another disk it shows that the trail was cut "
        "off even to somebody who owns this one.",
        example="/mnt/other/audit.checkpoints",
    )
    max_file_size: Size = option(
        Size(64 * MIB), ge=1 * KIB, doc="A file that is longer is put aside, and the next one begun.", example="64MiB"
    )
    max_file_age: Duration = option(Duration(DAY), gt=0, doc="So is one whose first record is older.", example="1d")
    keep_files: int = option(
        100,
        ge=0,
        doc="Files that stay beside the current one; a SQLite file stays below `max_file_size` times this.",
    )
    keep_for: Duration = option(
        Duration(365 * DAY), gt=0, doc="How long records stay that `keep_files` has room for.", example="365d"
    )

    def __attrs_post_init__(self) -> None:
        """A trail needs a place."""
        if self.path is None and self.to != "log":
            raise ValueError(f"to: {self.to} needs a path, for example ./audit.{self.to}")
        if not all(part for path in self.paths for part in path.split(".")):
            raise ValueError("paths: a place is names with dots between, such as arguments.card.number")
