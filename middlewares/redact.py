"""
`redact`: take values out of what passes, by place and by name, in both directions.

Logs, audit and traces mask what they write by themselves. This stage is for what must not get any further at all: a
card number that no upstream may see, an address that no client may read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final, Literal, final

from attrs import evolve, frozen

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Relay, Service
from sluiceway.pipeline.model.options import option
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.model.when import matcher
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Request, Result
from sluiceway.pipeline.telemetry.redaction import MASK, Redaction, digest

_PAYLOAD: Final = frozenset(
    {"arguments", "content", "structuredContent", "contents", "messages", "data", "inputResponses"}
)
"""Members of params, results and errors that hold what people and programs say; the rest is the protocol's."""
_TEXT: Final = "text"
_MAX_TEXT: Final = 1 << 20
"""Characters of a text that is looked into for JSON."""
_GONE: Final = object()

Mask = Callable[[Json], Json]


@final
@middleware("redact")
class Redact(Middleware):
    """
    Replace values in requests, replies and notifications.

    * `paths` name places, from `params`, `result`, `error` or `notification` down: `params.arguments.card`,
      `result.structuredContent.people.*.email`. A star stands for any one name or index, also as part of a name.
    * `keys` name members, wherever they stand in what is said: arguments, content, structured content, messages, error
      data. Case, `-` and `_` make no difference. Members of the protocol itself (cursors, tokens of progress) have
      other places and are never touched by them.
    * Text that is a JSON object or array is looked into, too: servers repeat their structured content as text.
    * What is inside of this stage never sees what was masked on the way in; what is outside, never what was masked on
      the way out. A request or reply in which there is nothing to mask passes as the bytes it was.

    A masked value is a text, whatever it was: tools whose schema wants a number there will say so.
    """

    reads_results = False
    role = "redact"
    order = (
        Order("after", "auth", "info", "what it masks in requests is not what authentication is about"),
        Order("after", "validate", "info", "masked arguments would be validated, not those that were sent"),
    )

    @frozen
    class Config:
        """Options of `redact`."""

        paths: tuple[str, ...] = option(
            (), doc="Places whose values are masked.", example=["params.arguments.card", "result.content.*.text"]
        )
        keys: tuple[str, ...] = option(
            (), doc="Names, as globs, whose values are masked wherever they stand.", example=["password", "*secret*"]
        )
        requests: bool = option(True, doc="Whether requests are masked on their way to the upstream.")
        replies: bool = option(True, doc="Whether replies and notifications are masked on their way to the client.")
        style: Literal["mask", "digest", "remove"] = option(
            "mask",
            doc="`mask` puts *** in place of a value, `digest` a fingerprint (equal values stay equal), `remove` takes "
            "the member out (an element of a list becomes null).",
        )

        def __attrs_post_init__(self) -> None:
            if not (self.paths or self.keys):
                raise ValueError("redact masks nothing: say what, with paths or keys")
            for path in self.paths:
                root, _, rest = path.partition(".")
                if root not in ("params", "result", "error", "notification") or not all(rest.split(".")):
                    raise ValueError(
                        f"paths: {path!r} is no place; begin with params, result, error or notification, for example "
                        "params.arguments.card"
                    )

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._masker = _Masker(config.keys, config.style)
        self._paths = {
            root: tuple(
                tuple(map(_segment, path.split(".")[1:])) for path in config.paths if path.startswith(f"{root}.")
            )
            for root in ("params", "result", "error", "notification")
        }
        self._inward = config.requests and bool(config.keys or self._paths["params"])
        self._outward = config.replies and bool(config.keys or len(config.paths) > len(self._paths["params"]))

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Mask the request, go on, mask the reply."""
        if self._inward:
            exchange = self._masked_request(exchange)
        if not self._outward:
            return await call_next(exchange)
        exchange.hold()
        return self._masked_reply(exchange, await call_next(exchange))

    async def relay(self, exchange: Exchange, notification: Notification, forward: Relay) -> None:
        """Mask what comes before the reply."""
        if self._outward:
            params = self._masker(notification.params, self._paths["notification"])
            if params is not notification.params:
                exchange.decide(self.context.id, "mask", "notification")
                notification = evolve(notification, body=params)
        await forward(exchange, notification)

    def _masked_request(self, exchange: Exchange) -> Exchange:
        request = exchange.request
        params = self._masker(request.params, self._paths["params"])
        if params is request.params:
            return exchange
        exchange.decide(self.context.id, "mask", "request")
        if isinstance(request, Request):
            return exchange.with_request(request.with_params(params))
        return exchange.with_request(Notification(request.method, params))

    def _masked_reply(self, exchange: Exchange, reply: Reply) -> Reply:
        if isinstance(reply, Result):
            value = self._masker(reply.value, self._paths["result"])
            if value is reply.value:
                return reply
            masked: Reply = Result(value)
        else:
            error = {"code": reply.code, "message": reply.message, "data": reply.data}
            value = self._masker(error, self._paths["error"])
            if value is error:
                return reply
            masked = _with(reply, value)
        exchange.decide(self.context.id, "mask", "reply")
        return masked


def _with(reply: ErrorReply, value: Mapping[str, Json]) -> ErrorReply:
    """An error that says what was left of it; its code is the protocol's and stays."""
    return evolve(reply, message=str(value.get("message", MASK)), data=value.get("data"))


Segment = Callable[[str], bool]
"""Whether a name, or an index as text, is meant by one part of a path."""
Path = tuple[Segment, ...]


def _segment(text: str) -> Segment:
    return matcher((text,))


@final
class _Masker:
    """Makes masked copies of JSON objects; returns the object itself if nothing in it is to be masked."""

    def __init__(self, keys: tuple[str, ...], style: str) -> None:
        self._hides = Redaction(keys).hides if keys else None
        masks: Mapping[str, Mask] = {"mask": lambda _: MASK, "digest": digest, "remove": lambda _: _GONE}
        self._mask = masks[style]

    def __call__(self, value: Mapping[str, Json], paths: tuple[Path, ...]) -> Mapping[str, Json]:
        """Params, a result or an error, with what stands at `paths`, and what its names say, masked."""
        copy: dict[str, Json] | None = None
        for key, item in value.items():
            here = tuple(path[1:] for path in paths if path[0](key))
            masked = self._walk(item, here, by_name=self._hides is not None and key in _PAYLOAD)
            if masked is not item:
                copy = dict(value) if copy is None else copy
                _put(copy, key, masked)
        return value if copy is None else copy

    def _walk(self, value: Json, paths: tuple[Path, ...], *, by_name: bool) -> Json:
        if () in paths:
            return self._mask(value)
        if not paths and not by_name:
            return value
        if isinstance(value, dict):
            return self._object(value, paths, by_name=by_name)
        if isinstance(value, list):
            items = [
                self._walk(item, tuple(p[1:] for p in paths if p[0](str(index))), by_name=by_name)
                for index, item in enumerate(value)
            ]
            if all(new is old for new, old in zip(items, value, strict=True)):
                return value
            return [None if item is _GONE else item for item in items]
        return value

    def _object(self, value: dict[str, Json], paths: tuple[Path, ...], *, by_name: bool) -> Json:
        copy: dict[str, Json] | None = None
        for key, item in value.items():
            if by_name and self._hides is not None and self._hides(key):
                masked = self._mask(item)
            else:
                masked = self._walk(item, tuple(p[1:] for p in paths if p[0](key)), by_name=by_name)
                if masked is item and by_name and key == _TEXT and isinstance(item, str):
                    masked = self._text(item)
            if masked is not item:
                copy = dict(value) if copy is None else copy
                _put(copy, key, masked)
        return value if copy is None else copy

    def _text(self, text: str) -> str:
        """A text that may be JSON, with what it holds masked by name."""
        if text.lstrip()[:1] not in ("{", "[") or len(text) > _MAX_TEXT:
            return text
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return text
        masked = self._walk(value, (), by_name=True)
        return text if masked is value else json.dumps(masked, separators=(",", ":"))


def _put(copy: dict[str, Json], key: str, value: Json) -> None:
    if value is _GONE:
        del copy[key]
    else:
        copy[key] = value
