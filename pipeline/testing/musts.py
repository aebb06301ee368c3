"""What every component must do, as data: the contract checkers assert it, the rules for stage authors list it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, final

from attrs import frozen

from ..model.component import ComponentKind

_ALL: Final = tuple(ComponentKind)
_CHAIN: Final = (ComponentKind.MIDDLEWARE, ComponentKind.SINK)
_MIDDLEWARE: Final = (ComponentKind.MIDDLEWARE,)
_SINK: Final = (ComponentKind.SINK,)
_SOURCE: Final = (ComponentKind.SOURCE,)
_STORE: Final = (ComponentKind.STORE,)


@final
@frozen
class Must:
    """One rule that components must keep."""

    id: str
    """Stable; named in failures."""
    text: str
    """The rule, as one sentence with MUST in it."""
    kinds: tuple[ComponentKind, ...]
    """Whom it binds."""


class ContractViolation(AssertionError):
    """
    A component breaks a rule.

    Args:
        must: Id of the rule.
        found: What was seen instead.
    """

    def __init__(self, must: str, found: str) -> None:
        self.must = MUSTS[must]
        """The rule."""
        super().__init__(f"{must}: {self.must.text}\n  found: {found}")


def _table(*rows: tuple[str, Iterable[ComponentKind], str]) -> Mapping[str, Must]:
    return {must_id: Must(must_id, text, tuple(kinds)) for must_id, kinds, text in rows}


MUSTS: Final[Mapping[str, Must]] = _table(
    (
        "M-NAME",
        _ALL,
        "A component MUST be named by its decorator, keep its base's `kind`, speak component API 1, and have "
        "a docstring.",
    ),
    (
        "M-OPTIONS",
        _ALL,
        "`Config` MUST be a frozen attrs class in which every field is an `option()` with a doc, and with an "
        "example where its default shows none.",
    ),
    (
        "M-PURE",
        _ALL,
        "Constructing a component MUST do no I/O, start nothing, and need neither a clock nor a running event loop.",
    ),
    ("M-REOPEN", _ALL, "A component MUST open and close, and then open and close again."),
    (
        "M-CLEAN",
        _ALL,
        "A closed component MUST have left nothing behind: no task, child process, descriptor or thread.",
    ),
    (
        "M-CANCEL",
        _ALL,
        "A component MUST stay sound when it is cancelled at any checkpoint: nothing stays taken, no entry "
        "stays in a table, and it goes on working.",
    ),
    (
        "M-CALL-ONCE",
        _MIDDLEWARE,
        "A stage MUST await `call_next` at most once per exchange, unless its class sets `replays`.",
    ),
    ("M-CALL-LATE", _MIDDLEWARE, "A stage MUST NOT call `call_next` after it has returned or raised."),
    ("M-PASS", _MIDDLEWARE, "A stage with no reason to act MUST return the reply of `call_next` unchanged."),
    (
        "M-RELAY",
        _MIDDLEWARE,
        "A stage with no reason to act MUST pass every notification on, unchanged, in order, and before it returns.",
    ),
    (
        "M-BUGS",
        _MIDDLEWARE,
        "An exception of the inner chain that is no `GatewayError` MUST come out of a stage as it is.",
    ),
    ("M-MARKS", _MIDDLEWARE, "A stage MUST touch no key of `exchange.marks` but its own id."),
    (
        "M-NO-MUTATE",
        _CHAIN,
        "Requests, replies and notifications MUST NOT be changed in place; the exchange's own `request` MUST "
        "stay, rewriting goes inward with `with_request`.",
    ),
    ("M-REFUSE", _CHAIN, "A component MUST fail an exchange only with a `GatewayError`."),
    ("M-REPLY", _CHAIN, "An exchange MUST end with a `Result` or an `ErrorReply`."),
    ("M-OWN-REPLY", _CHAIN, "Exchanges at the same time MUST NOT get each other's replies."),
    (
        "M-APART",
        _MIDDLEWARE,
        "What was answered to one principal MUST NOT reach another one, nor one of its own with other rights.",
    ),
    ("M-AT-REST", _CHAIN, "Between exchanges nothing MUST stay taken: no token, lock, or place in a channel."),
    ("M-BOUNDED", (*_CHAIN, *_STORE), "No table MUST grow with every exchange: each has a bound, or forgets."),
    ("M-END", _ALL, "Whatever is asked of a component MUST come to an end once everything it waits for has happened."),
    ("M-SEEDED", _CHAIN, "Randomness and ids MUST come from the context: with the same seed the same happens again."),
    ("M-RELAY-LATE", _SINK, "A sink MUST NOT relay after it has returned or raised."),
    ("M-SERVE", _SOURCE, "`serve` MUST end when it is cancelled, with nothing but that cancellation."),
    ("M-STOP", _SOURCE, "`stop_accepting` MUST neither fail nor end `serve` by an exception."),
    ("M-TICKET", _SOURCE, "A source MUST run every ticket it opens exactly once."),
    (
        "M-VALUES",
        _STORE,
        "A store MUST return what was put last under a key, byte for byte, None for what is not there, and "
        "tell in `delete` whether something was.",
    ),
    ("M-KEYS", _STORE, "`keys` MUST be the live keys with the prefix, sorted, the prefix taken literally."),
    (
        "M-EXPIRY",
        _STORE,
        "An entry MUST be gone once its `ttl_s` has passed on the Trio clock, and a new value MUST bring its own.",
    ),
    (
        "M-SWAP",
        _STORE,
        "`swap` MUST store exactly if the key holds what is expected, an expired entry being nothing, say whether it "
        "did, and let one of several that expect the same win.",
    ),
    ("M-SIZE", _STORE, "`size` MUST count the entries, and count none when all are deleted."),
)
"""Every rule, by id."""
