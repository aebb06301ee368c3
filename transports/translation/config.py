"""Options of the translation between the eras: what is held at a legacy upstream for modern clients."""

from __future__ import annotations

from typing import final

from attrs import frozen

from sluiceway.pipeline.model.options import MINUTE, Duration, option


@final
@frozen
class TranslationConfig:
    """What a sink may hold at an upstream that knows handshakes only, for clients that know none."""

    max_sessions: int = option(
        32, ge=1,
        doc="Sessions held at the upstream. Each modern caller has one for each set of capabilities it declares; the "
        "one idle for longest makes room for another. A stdio server has a process for each.",
    )  # fmt: skip
    max_sessions_per_caller: int = option(4, ge=1, doc="Sessions of them that one caller may have.")
    session_idle: Duration = option(
        Duration(10 * MINUTE), gt=0, doc="Time after which a session that nobody uses is ended."
    )
    park_timeout: Duration = option(
        Duration(5 * MINUTE), gt=0,
        doc="Time a client has to answer what the upstream asked in the middle of a call (`input_required`). The call "
        "waits at the upstream meanwhile, outside of the pipeline's `timeout`; after that it is cancelled.",
    )  # fmt: skip
    max_parked: int = option(
        256, ge=1,
        doc="Calls in which the upstream has asked, until they end; in others it is told that nobody can answer.",
    )  # fmt: skip
    max_parked_per_caller: int = option(16, ge=1, doc="Calls of them that one caller may have.")
