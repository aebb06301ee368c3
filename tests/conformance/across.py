"""
What the suite cannot find where its era and the fixture's differ: each check, and why no gateway could make it hold.

Anything else must come out across eras as it does directly; and a check listed here that does is a failure as well.
"""

from __future__ import annotations

from typing import Final

KEYS: Final = (
    "the suite wants the key `user_name` for a question; questions of a legacy server have ids, and no keys that a "
    "client could know beforehand"
)
SLOW: Final = (
    "the suite waits for 600 ms after it has declared capabilities that it had not before; at a legacy server on stdio "
    "that is another session, and so another process, which takes Python longer to start"
)
LOST: Final[dict[str, dict[tuple[str, str], str]]] = {
    "legacy-http": {
        ("input-required-result-basic-elicitation", "sep-2322-elicitation-incomplete"): KEYS,
        ("input-required-result-basic-elicitation", "sep-2322-elicitation-complete"): KEYS,
        ("input-required-result-ignore-extra-params", "sep-2322-ignore-unexpected-params"): KEYS,
    },
    "legacy-stdio": {
        ("input-required-result-basic-elicitation", "sep-2322-elicitation-incomplete"): KEYS,
        ("input-required-result-basic-elicitation", "sep-2322-elicitation-complete"): KEYS,
        ("input-required-result-ignore-extra-params", "sep-2322-ignore-unexpected-params"): KEYS,
    },
    "modern-http": {},
    "modern-stdio": {},
}
"""By the fixture, and then by scenario and check."""
MAY_BE_LOST: Final[dict[str, dict[tuple[str, str], str]]] = {
    "legacy-stdio": {("server-stateless", "sep-2575-http-server-no-independent-requests-on-stream"): SLOW},
}
"""Likewise, but it depends on how fast the machine is."""


def is_across(title: str) -> bool:
    """Whether a leg has a fixture of the other era."""
    return title.partition(",")[0] in LOST


def known(title: str) -> dict[tuple[str, str], str]:
    """What does not hold in a leg, or may not."""
    fixture = title.partition(",")[0]
    return {**LOST.get(fixture, {}), **MAY_BE_LOST.get(fixture, {})}


def must_be_lost(title: str) -> dict[tuple[str, str], str]:
    """What does not hold in a leg for certain."""
    return LOST.get(title.partition(",")[0], {})
