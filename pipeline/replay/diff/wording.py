"""
What options of our own components mean, in words. Data only; options that are not here are named as they are.

A phrase has `{old}` and `{new}`, or `{item}` for what came to a list or mapping, or left it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

from attrs import frozen

from .change import Area


@final
@frozen
class Words:
    """How a changed value is put."""

    changed: str = ""
    """From one value to another."""
    set: str = ""
    """From nothing to something; `changed` if empty."""
    unset: str = ""
    """The other way round."""
    values: Mapping[str, str] = {}
    """By new value, of an option with a few: sentences without `{old}`."""
    added: str = ""
    """An item came."""
    removed: str = ""
    """An item left."""

    @property
    def is_set(self) -> bool:
        """Whether the option is a set: the order of its items means nothing."""
        return bool(self.added)


def _bool(yes: str, no: str) -> Words:
    return Words(values={"true": yes, "false": no})


def _items(added: str, removed: str) -> Words:
    return Words(added=added, removed=removed)


_REPEAT: Final = _items("{item} may run twice now", "{item} may no longer run twice")
_HINTS: Final = _bool("the hints of tools are believed now", "the hints of tools are no longer believed")
_AT_ONCE: Final = "up to {new} exchanges may be inside at the same time instead of {old}"
_WAITING: Final = "up to {new} exchanges may wait for a place instead of {old}"
_WAIT: Final = "exchanges wait up to {new} for a place instead of {old}"
_PER: Final = "counted per {new} instead of per {old}"
_SET_STORE: Final = Words(
    "its state is kept in the store {new} instead of {old}",
    "its state is kept in the store {new} instead of in this process",
    "its state is kept in this process instead of in the store {old}",
)
_ON: Final = _items(
    "it now also acts on failures of the kind {item}", "it no longer acts on failures of the kind {item}"
)
_MASKED: Final = _items("values of {item} are masked now", "values of {item} are no longer masked")

LIMITS: Final[Mapping[str, Words]] = {
    "timeout": Words("an exchange may take {new} instead of {old}"),
    "timeout_max": Words("progress may extend an exchange to {new} instead of {old}"),
    "timeout_on_progress": Words(
        values={"reset": "progress starts the timeout anew now", "keep": "progress no longer starts the timeout anew"}
    ),
    "max_in_flight": Words(_AT_ONCE),
    "max_waiting": Words(_WAITING),
    "wait_at_most": Words(_WAIT),
    "max_listeners": Words("up to {new} listeners are served at the same time instead of {old}"),
}
"""Of pipelines."""

STAGES: Final[Mapping[str, Mapping[str, Words]]] = {
    "rate_limit": {
        "rate": Words("it admits {new} instead of {old}"),
        "burst": Words("{new} requests may come at once instead of {old}"),
        "per": Words(_PER),
        "wait_at_most": Words(
            "requests over the limit wait up to {new} instead of {old}",
            "requests over the limit wait up to {new} instead of being refused",
            "requests over the limit are refused instead of waiting up to {old}",
        ),
        "store": _SET_STORE,
        "on_failure": Words(
            values={
                "open": "when its store fails, requests are counted in this process only",
                "closed": "when its store fails, everything is refused",
            }
        ),
        "trusted_proxies": _items(
            "{item} is believed now as to whom it forwards for",
            "{item} is no longer believed as to whom it forwards for",
        ),
    },
    "concurrency_limit": {
        "max_in_flight": Words(_AT_ONCE),
        "max_waiting": Words(_WAITING),
        "wait_at_most": Words(_WAIT),
        "per": Words(_PER),
        "max_listeners": Words(
            "up to {new} listeners are served at the same time instead of {old}",
            "up to {new} listeners are served at the same time instead of any number",
            "any number of listeners is served instead of {old}",
        ),
    },
    "load_shed": {
        "max_in_flight": Words(_AT_ONCE),
        "max_waiting": Words(_WAITING),
        "wait_at_most": Words(_WAIT),
        "per": Words("places are divided fairly between each {new} instead of each {old}"),
        "shed_above": Words("exchanges are shed when the queue is more than {new} full instead of {old}"),
    },
    "timeout": {
        "after": Words("an exchange may take {new} instead of {old}"),
        "on_progress": LIMITS["timeout_on_progress"],
        "at_most": Words("progress may extend an exchange to {new} instead of {old}"),
        "idle_after": Words(
            "a silent exchange ends after {new} instead of {old}",
            "a silent exchange ends after {new}",
            "a silent exchange no longer ends after {old}",
        ),
    },
    "retry": {
        "max_attempts": Words("a call is tried up to {new} times instead of {old}"),
        "base_delay": Words("the first wait between tries is {new} instead of {old}"),
        "multiplier": Words("each wait between tries is {new} times the one before instead of {old} times"),
        "max_delay": Words("the longest wait between tries is {new} instead of {old}"),
        "jitter": Words("the jitter of waits between tries is {new} instead of {old}"),
        "on": _ON,
        "repeat": _REPEAT,
        "trust_hints": _HINTS,
        "budget": Words("repetitions may be {new} of the successes instead of {old}"),
        "reserve": Words("{new} repetitions are allowed without any success instead of {old}"),
        "failover": _items(
            "failed calls are tried at the sink {item} now", "failed calls are no longer tried at the sink {item}"
        ),
    },
    "hedge": {
        "after": Words(
            "a second attempt is made after {new} instead of {old}",
            "a second attempt is made after {new} instead of after a measured time",
            "a second attempt is made after a measured time instead of after {old}",
        ),
        "max_attempts": Words("up to {new} attempts are made instead of {old}"),
        "repeat": _REPEAT,
        "trust_hints": _HINTS,
        "budget": Words("second attempts may be {new} of the calls instead of {old}"),
    },
    "circuit_breaker": {
        "failures": Words("it opens after {new} failures in a row instead of {old}"),
        "failure_rate": Words("it opens when {new} of the calls fail instead of {old}"),
        "min_calls": Words("it looks at the rate of failures from {new} calls on instead of {old}"),
        "window": Words("it looks back {new} instead of {old}"),
        "open_for": Words("it stays open for {new} instead of {old}"),
        "open_for_max": Words("it stays open for {new} at most instead of {old}"),
        "probes": Words("it lets {new} calls probe at the same time instead of {old}"),
        "successes": Words("it closes after {new} successes instead of {old}"),
        "per": Words("it is kept per {new} instead of per {old}"),
    },
    "cache": {
        "max_ttl": Words("answers are fresh for {new} at most instead of {old}"),
        "stale_while_revalidate": Words(
            "stale answers are given out for {new} while they are refreshed instead of {old}"
        ),
        "stale_if_error": Words("stale answers are given out for {new} when the upstream fails instead of {old}"),
        "negative_ttl": Words(
            "that something does not exist is remembered for {new} instead of {old}",
            "that something does not exist is remembered for {new} now",
            "that something does not exist is no longer remembered",
        ),
        "trust_public": _bool(
            "what upstreams call public is shared by the callers of a tenant now",
            "what upstreams call public is no longer shared by the callers of a tenant",
        ),
        "trust_hints": _HINTS,
        "max_entries": Words("up to {new} answers are held in memory instead of {old}"),
        "max_bytes": Words("answers may take {new} of memory instead of {old}"),
    },
    "dedup": {"repeat": _REPEAT, "trust_hints": _HINTS, "store": _SET_STORE},
    "fallback": {"on": _ON},
    "access": {
        "roles": _items("the role {item} includes {new} now", "the role {item} no longer includes {old}"),
        "scopes": _items("the scope {item} includes {new} now", "the scope {item} no longer includes {old}"),
        "scope_prefix": Words(
            "scopes that begin with {new} allow what follows, and no longer those with {old}",
            "scopes that begin with {new} allow what follows now",
            "scopes that begin with {old} no longer allow what follows",
        ),
        "store": _SET_STORE,
    },
    "auth_api_key": {
        "optional": _bool("callers without a key pass as anonymous now", "callers without a key are refused now"),
        "header": Words("the key is read from the header {new} instead of {old}"),
    },
    "auth_bearer": {
        "optional": _bool("callers without a token pass as anonymous now", "callers without a token are refused now"),
        "issuer": Words("tokens of {new} are accepted instead of those of {old}"),
        "resource": Words("tokens must be for {new} instead of {old}"),
        "audiences": _items("tokens for {item} are accepted, too", "tokens for {item} are no longer accepted"),
        "algorithms": _items(
            "tokens signed with {item} are accepted now", "tokens signed with {item} are no longer accepted"
        ),
        "require": _items("tokens need the scope {item} now", "tokens no longer need the scope {item}"),
        "leeway": Words("the clock of the issuer may be {new} off instead of {old}"),
        "keep_stale": Words("keys outlast an issuer that is down for {new} instead of {old}"),
    },
    "auth_mtls": {
        "optional": _bool(
            "callers without a certificate pass as anonymous now", "callers without a certificate are refused now"
        ),
    },
    "tenant": {
        "tenants": _items("the tenant {item} is served now", "the tenant {item} is no longer served"),
        "default": Words(
            "callers without a tenant act for {new} instead of {old}",
            "callers without a tenant act for {new} now",
            "callers without a tenant no longer act for {old}",
        ),
        "required": _bool("callers without a tenant are refused now", "callers without a tenant pass now"),
    },
    "pin": {
        "unknown": Words(
            values={
                "hide": "tools that the lock file does not know are hidden now",
                "allow": "tools that the lock file does not know may be used now",
            }
        ),
        "on_drift": Words(
            values={
                "quarantine": "tools that have changed are quarantined now",
                "log": "tools that have changed are only complained of",
            }
        ),
        "lock": Words("tools are held to {new} instead of {old}"),
    },
    "validate": {
        "arguments": Words(
            values={
                "refuse": "arguments that do not fit are refused now",
                "log": "arguments that do not fit are only logged now",
                "off": "arguments are no longer checked",
            }
        ),
        "results": Words(
            values={
                "refuse": "results that do not fit are refused now",
                "log": "results that do not fit are only logged now",
                "off": "results are no longer checked",
            }
        ),
    },
    "redact": {
        "keys": _MASKED,
        "paths": _MASKED,
        "requests": _bool("requests are masked now", "requests are no longer masked"),
        "replies": _bool("replies are masked now", "replies are no longer masked"),
    },
    "headers": {
        "allowed_origins": _items("pages of {item} may use it now", "pages of {item} may no longer use it"),
        "hide": _items("the header {item} is hidden now", "the header {item} is no longer hidden"),
    },
    "audit": {
        "path": Words("the trail is written to {new} instead of {old}"),
        "params": Words("params are recorded as {new} instead of {old}"),
        "on_failure": Words(
            values={
                "closed": "what cannot be recorded is refused now",
                "open": "what cannot be recorded passes now",
            }
        ),
        "keep_for": Words("entries are kept for {new} instead of {old}"),
    },
    "trace": {"sample": Words("{new} of the traces are recorded instead of {old}")},
    "log": {"sample": Words("{new} of the exchanges are logged instead of {old}")},
}
"""Of stages, by name of stage and option."""

SOURCES: Final[Mapping[str, Words]] = {
    "allowed_origins": _items("pages of {item} may use it now", "pages of {item} may no longer use it"),
    "allowed_hosts": _items("it answers to the name {item} now", "it no longer answers to the name {item}"),
    "path": Words("it is found at {new} instead of {old}"),
    "max_connections": Words("up to {new} connections are served at the same time instead of {old}"),
    "max_body": Words("a request may have {new} instead of {old}"),
    "max_message": Words("a message may have {new} instead of {old}"),
    "http2": _bool("HTTP/2 is spoken now", "HTTP/2 is no longer spoken"),
    "websocket": Words("", "WebSockets are accepted now", "WebSockets are no longer accepted"),
    "socket_access": Words("processes of {new} may connect to its sockets instead of {old}"),
    "max_in_flight": Words("up to {new} requests are served at the same time instead of {old}"),
}
"""Of sources, whatever their kind."""

SINKS: Final[Mapping[str, Words]] = {
    "url": Words("it talks to {new} instead of {old}"),
    "command": Words("it runs {new} instead of {old}"),
    "cwd": Words("it runs in {new} instead of {old}", "it runs in {new}", "it no longer runs in {old}"),
    "to": _items("requests go to {item}, too", "requests no longer go to {item}"),
    "separator": Words("names have {new} after the prefix instead of {old}"),
    "prefixes": Words(values={"always": "names have a prefix now", "never": "names have no prefix any more"}),
    "strategy": Words("upstreams are chosen by {new} instead of {old}"),
    "allow_private": _bool("it may talk to private addresses now", "it may no longer talk to private addresses"),
    "era": Words("its upstream is taken to speak {new} instead of {old}"),
    "translate": _bool("requests are translated for it now", "requests are no longer translated for it"),
    "connect_timeout": Words("connecting may take {new} instead of {old}"),
    "max_connections": Words("up to {new} connections are open at the same time instead of {old}"),
    "max_message": Words("a message may have {new} instead of {old}"),
    "http2": Words("HTTP/2 is spoken {new} instead of {old}"),
    "proxy": Words(
        "it goes through {new} instead of {old}", "it goes through {new} now", "it no longer goes through {old}"
    ),
    "server": Words("it is {new} instead of {old}"),
}
"""Of sinks, whatever their kind."""

RUN: Final[Mapping[str, Words]] = {
    "drain_timeout": Words("exchanges get {new} to finish when the gateway stops instead of {old}"),
    "stop_timeout": Words("each component gets {new} to close instead of {old}"),
    "hang_timeout": Words("a worker may leave its supervisor without an answer for {new} instead of {old}"),
    "on_crash": Words(
        values={"stop": "a sink that crashes ends the gateway", "restart": "a sink that crashes is opened again"}
    ),
    "error_codes": Words("the gateway's own errors have the numbers of `{new}` instead of `{old}`"),
    "log_level": Words("log lines are written from {new} on instead of {old}"),
    "admin": Words("", "the admin listener is on now ({new})", "the admin listener is off now"),
    "record": Words("", "what passes is recorded now ({new})", "what passes is no longer recorded"),
}
"""Of `run`."""

EFFECTS: Final[Mapping[str, tuple[Area, str, str]]] = {
    "auth": ("authentication", "callers are authenticated by it", "callers are not authenticated by it any more"),
    "tenant": ("access", "callers are given a tenant", "callers are no longer given a tenant"),
    "access": ("access", "only what its rules allow may be done", "nothing of what its rules forbade is forbidden"),
    "rate_limit": ("limits", "requests are limited", "the limit is gone"),
    "concurrency_limit": ("limits", "exchanges at the same time are limited", "the limit is gone"),
    "load_shed": ("limits", "exchanges are shed under load", "exchanges are no longer shed under load"),
    "timeout": ("deadlines", "exchanges have a deadline here", "the deadline is gone"),
    "retry": ("retries", "failed calls are tried again", "failed calls are no longer tried again"),
    "hedge": ("retries", "slow calls are tried a second time", "slow calls are no longer tried a second time"),
    "circuit_breaker": ("retries", "failing upstreams are left alone", "failing upstreams are no longer left alone"),
    "fallback": ("retries", "failures are answered otherwise", "failures are passed on"),
    "cache": ("caching", "answers are kept", "answers are no longer kept"),
    "dedup": ("caching", "identical requests share a call", "identical requests no longer share a call"),
    "audit": ("recording", "requests are recorded", "requests are no longer recorded"),
    "log": ("recording", "exchanges are logged", "exchanges are no longer logged"),
    "metrics": ("recording", "exchanges are counted", "exchanges are no longer counted"),
    "trace": ("recording", "exchanges are traced", "exchanges are no longer traced"),
    "request_id": ("recording", "requests have a correlation id", "requests no longer have a correlation id"),
    "redact": ("recording", "values are masked", "values are no longer masked"),
    "pin": ("access", "tools are held to the lock file", "tools are no longer held to the lock file"),
    "validate": ("access", "arguments and results are checked", "arguments and results are no longer checked"),
    "headers": ("exposure", "headers are checked and set", "headers are no longer checked and set"),
    "fault": ("operation", "faults are injected", "faults are no longer injected"),
}
"""By role of a stage: what it is about, what its coming means, what its going means."""
