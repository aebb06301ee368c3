"""
Every method an embedded server answers, by era, and the one boundary around its handlers.

Sources: the schemas of the published revisions; errors as in `errors`; results of 2026-07-28 carry `resultType`,
the server's info, and where they can be kept `ttlMs` and `cacheScope`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from attrs import frozen

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import Forbidden, GatewayError
from sluiceway.pipeline.protocol.mcp import LATEST_LEGACY, METHODS, Era, ErrorCode, Kind, MetaKey
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Reply, Result
from sluiceway.pipeline.runtime.nursery import unwrap_single

from . import errors
from .answers import complete, discover, get_prompt, initialize, ping, read_resource, set_level
from .calls import call_method, call_tool
from .context import BadAnswer, Context
from .incidents import incident_of
from .listening import listen, subscribe, unsubscribe
from .lists import list_prompts, list_resources, list_templates, list_tools
from .mrtr import InputRequired, InvalidState, StateTooLarge, binding_of, responses_of
from .runtime import Feature, Runtime

Answer = Callable[[Runtime, Context], dict[str, Json] | Awaitable[dict[str, Json]]]
"""Makes the result of one method; async only where it may block."""


@frozen
class _Row:
    answer: Answer
    needs: Feature | None = None
    """What must be offered for the method to exist."""


_BOTH: Final[Mapping[str, _Row]] = {
    "tools/list": _Row(list_tools, "tools"),
    "tools/call": _Row(call_tool, "tools"),
    "resources/list": _Row(list_resources, "resources"),
    "resources/templates/list": _Row(list_templates, "resources"),
    "resources/read": _Row(read_resource, "resources"),
    "prompts/list": _Row(list_prompts, "prompts"),
    "prompts/get": _Row(get_prompt, "prompts"),
    "completion/complete": _Row(complete, "completions"),
}
_METHODS: Final[Mapping[Era, Mapping[str, _Row]]] = {
    Era.LEGACY: {
        **_BOTH,
        "initialize": _Row(initialize),
        "ping": _Row(ping),
        "logging/setLevel": _Row(set_level, "logging"),
        "resources/subscribe": _Row(subscribe, "resources"),
        "resources/unsubscribe": _Row(unsubscribe, "resources"),
    },
    Era.MODERN: {**_BOTH, "server/discover": _Row(discover), "subscriptions/listen": _Row(listen)},
}

_STATUS: Final[Mapping[int, int]] = {ErrorCode.METHOD_NOT_FOUND: 404, ErrorCode.MISSING_CLIENT_CAPABILITY: 400}
"""HTTP statuses of modern errors; any other error is a regular answer and travels with 200."""


async def answer(runtime: Runtime, exchange: Exchange) -> Reply:
    """
    Answer one exchange. A checkpoint only where its handler is one.

    Raises:
        Forbidden: A handler refused the caller.
        HeaderMismatch: An `Mcp-Param-*` header differs from its argument.
        InternalError: A handler failed; the log has the detail under the incident in `data`.
    """
    client = exchange.client
    if client.session is not None:
        runtime.hub.data_of(client.session)
    if exchange.kind is Kind.NOTIFY:
        return Result()
    handler = _find(runtime, client.era, exchange.method)
    if handler is None:
        return _error(client.era, ErrorCode.METHOD_NOT_FOUND, f"method not found: {exchange.method}")
    context = Context(exchange=exchange, runtime=runtime, version=client.version or LATEST_LEGACY)
    try:
        value = await _run(handler, context)
    except errors.ServerError as error:
        return _failure(context, error)
    except GatewayError:
        raise
    except Exception as error:  # the boundary: whatever a handler raises ends only its own request
        raise incident_of(context, error) from error
    finally:
        context.end()
    return Result(_finish(runtime, exchange.method, value) if client.era is Era.MODERN else value)


async def _run(handler: Answer, context: Context) -> dict[str, Json]:
    runtime, exchange = context.runtime, context.exchange
    if exchange.client.era is Era.MODERN:
        context.answers = _answers(runtime, exchange)
    try:
        with unwrap_single():
            async with context.stack:
                made = handler(runtime, context)
                return made if isinstance(made, dict) else await made
    except InputRequired as asked:
        return _input_required(context, asked)


def _find(runtime: Runtime, era: Era, method: str) -> Answer | None:
    row = _METHODS[era].get(method)
    if row is not None:
        return row.answer if row.needs is None or runtime.offers(row.needs) else None
    route = runtime.server.routes.find(method) if runtime.offers("methods") and method not in METHODS else None
    return None if route is None else call_method(route)


def _answers(runtime: Runtime, exchange: Exchange) -> Mapping[str, Any]:
    """The client's answers of all rounds so far; an earlier one cannot be changed any more."""
    params = exchange.request.params
    row = METHODS.get(exchange.method)
    if row is None or not row.asks or not ("requestState" in params or "inputResponses" in params):
        return {}
    earlier: Mapping[str, Any] = {}
    try:
        if "requestState" in params:
            earlier = runtime.sealer.open(params["requestState"], _binding(runtime, exchange), runtime.clock())
        return {**responses_of(params), **earlier}
    except InvalidState as error:
        runtime.log.warning("retry refused", method=exchange.method, reason=str(error), caller=exchange.caller.subject)
        raise BadAnswer("requestState or inputResponses are not valid for this request, or expired") from error


def _binding(runtime: Runtime, exchange: Exchange) -> bytes:
    return binding_of(runtime.id, exchange.caller, exchange.method, exchange.request.params)


def _input_required(context: Context, asked: InputRequired) -> dict[str, Json]:
    runtime = context.runtime
    try:
        state = runtime.sealer.seal(context.used, _binding(runtime, context.exchange), runtime.clock())
    except StateTooLarge as error:
        raise errors.ToolError(str(error)) from error
    return {"resultType": "input_required", "inputRequests": dict(asked.requests), "requestState": state}


def _failure(context: Context, error: errors.ServerError) -> ErrorReply:
    """A handler's failure as a JSON-RPC error; `errors` has the table."""
    era = context.client.era
    match error:
        case errors.Denied():
            raise Forbidden(error.message, data=error.data) from error
        case errors.InternalError():
            raise incident_of(context, error) from error
        case errors.MissingCapability() if era is Era.MODERN:
            code = ErrorCode.MISSING_CLIENT_CAPABILITY
        case errors.NotFound() if era is Era.LEGACY and context.method.startswith("resources/"):
            code = ErrorCode.RESOURCE_NOT_FOUND
        case errors.NotFound() | errors.InvalidParams() | BadAnswer():
            code = ErrorCode.INVALID_PARAMS
        case errors.InvalidRequest():
            code = ErrorCode.INVALID_REQUEST
        case _:
            code = ErrorCode.INTERNAL_ERROR
    return _error(era, code, error.message, error.data)


def _error(era: Era, code: ErrorCode, message: str, data: Json = None) -> ErrorReply:
    status = _STATUS.get(code, 200) if era is Era.MODERN else None
    return ErrorReply(int(code), message, None if data is None else dict(data), http_status=status)


def _finish(runtime: Runtime, method: str, value: dict[str, Json]) -> dict[str, Json]:
    """What every result since 2026-07-28 carries."""
    finished: dict[str, Json] = {"resultType": "complete", **value}
    finished["_meta"] = {MetaKey.SERVER_INFO: runtime.info, **value.get("_meta", {})}
    row = METHODS.get(method)
    if row is not None and row.cacheable and finished["resultType"] == "complete":
        finished.setdefault("ttlMs", runtime.server.ttl_ms)
        finished.setdefault("cacheScope", runtime.server.cache_scope)
    return finished
