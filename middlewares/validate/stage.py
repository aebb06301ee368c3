"""The stage: what is looked up, what is checked, and what is made of a mismatch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Final, Literal, final

from attrs import frozen

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import option
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.model.tools import CALL, LIST, Tool, ToolBook
from sluiceway.pipeline.protocol.errors import ComponentError, InvalidParams, UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import Json, Reply, Result
from sluiceway.pipeline.telemetry.redaction import clip

from .schemas import MAX_ERRORS, Schema, Schemas, UnusableSchema, Wrong

Rule = Callable[[str, Mapping[str, Json]], Iterable[str] | None]
"""A check of one's own: tool and arguments in, sentences about what is wrong out; none, or None, if nothing is."""

REASON: Final = "io.sluiceway/reason"
"""In `_meta` of a tool's result that the gateway wrote: why."""
_TOLD_OF: Final = 1000
"""Tools whose results were complained of; the complaint is not repeated."""


@final
@middleware("validate")
class Validate(Middleware):
    """
    Check the arguments of tools, and their structured results, against the schemas that their upstream lists.

    * A call that does not fit never reaches the upstream. All wrong fields are listed, none of their values.
    * A schema that is not known yet is looked up with `tools/list` behind the stage, once, and again after five minutes
      or when the list changed. Calls of tools that are in no list pass: their upstream says that it does not know them.
    * Nothing is ever fetched for a schema. Patterns run in linear time. A schema, or a value for it, that could take
      long to check is not checked: it is refused, or passes, as `unusable` says.
    * Results of tools with an output schema are only complained of in the log, unless `results` says otherwise.

    Raises:
        InvalidParams: With `refuse_as: error`; `data.errors` has path and problem of each field.
        UpstreamProtocolError: A result does not fit, and `results: refuse` is set.
    """

    reads_results = False
    role = "validate"
    replays = True
    order = (
        Order("after", "tenant", "warning", "tools are known by tenant, and it is not chosen yet"),
        Order("after", "access", "info", "tools that the caller may not use would be looked up for it"),
        Order("before", "cache", "info", "an answer from the cache would be given to arguments that were not checked"),
    )

    @frozen
    class Config:
        """Options of `validate`."""

        arguments: Literal["refuse", "log", "off"] = option(
            "refuse", doc="What becomes of a call whose arguments do not fit."
        )
        refuse_as: Literal["tool_error", "error"] = option(
            "tool_error",
            doc="How a call is refused: as the failed result of the tool, which models read and correct (SEP-1303), or "
            "as a JSON-RPC error -32602.",
        )
        results: Literal["refuse", "log", "off"] = option(
            "log", doc="What becomes of a result whose structured content does not fit the output schema."
        )
        unusable: Literal["refuse", "pass"] = option(
            "refuse", doc="What becomes of a call whose tool has a schema that cannot be used."
        )
        rules: tuple[str, ...] = option(
            (),
            doc="Checks of your own, as `module:function`; each gets tool and arguments, and returns sentences "
            "that say what is wrong.",
            example=["acme.rules:known_account"],
        )
        max_schemas: int = option(1000, ge=1, doc="Schemas kept ready; above this the least recently used go.")

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._book = ToolBook()
        self._schemas = Schemas(config.max_schemas)
        self._rules: tuple[Rule, ...] = ()
        self._told: dict[str, None] = {}
        self._refused = self._misfits = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Import the rules, and listen for changes of tools.

        Raises:
            ComponentError: A rule cannot be found.
        """
        self._rules = tuple(map(self._rule, self.config.rules))
        stop = self.context.changes.listen(self._book.forget)
        try:
            yield
        finally:
            stop()
            self._book.forget()

    def _rule(self, path: str) -> Rule:
        module, _, name = path.partition(":")
        try:
            rule: Rule = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ComponentError(
                self.context.id, "open", f"rules: there is no {path!r}: write module:function ({error})"
            ) from error
        return rule

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Check a call, go on, check its result; learn from lists that pass."""
        if exchange.method == LIST:
            exchange.hold()
            reply = await call_next(exchange)
            self._book.learn(exchange, reply)
            return reply
        if exchange.method != CALL:
            return await call_next(exchange)
        tool = await self._book.find(exchange, call_next)
        if self.config.arguments != "off":
            refusal = self._refusal(exchange, tool)
            if refusal is not None:
                return refusal
        if tool is None or self.config.results == "off" or not tool.output_schema:
            return await call_next(exchange)
        exchange.hold()
        reply = await call_next(exchange)
        self._check_result(exchange, tool, reply)
        return reply

    def _refusal(self, exchange: Exchange, tool: Tool | None) -> Reply | None:
        """What the client gets instead of an answer; None if the call may go on."""
        arguments = exchange.request.params.get("arguments", {})
        name = exchange.target or ""
        rules = self._rules if isinstance(arguments, dict) else ()
        wrong = [Wrong("", problem) for rule in rules for problem in rule(name, arguments) or ()][:MAX_ERRORS]
        if tool is not None and tool.input_schema:
            try:
                wrong = [*self._schemas.ready(tool.input_schema).check(arguments), *wrong]
            except UnusableSchema as error:
                if self.config.unusable == "refuse":
                    wrong.append(Wrong("", f"the arguments cannot be checked: {error}"))
        if not wrong:
            return None
        self._refused += 1
        exchange.decide(self.context.id, "refuse" if self.config.arguments == "refuse" else "misfit", "arguments")
        if self.config.arguments == "log":
            problems = [f"{each.path}: {each.problem}" for each in wrong]
            self.context.log.warning("arguments do not fit", tool=clip(name), problems=problems)
            return None
        if self.config.refuse_as == "error":
            listed = "; ".join(f"{each.path or 'arguments'}: {each.problem}" for each in wrong)
            raise InvalidParams(f"invalid arguments for {clip(name)}: {listed}", data={"errors": _listed(wrong)})
        return _tool_error(name, wrong, exchange.client.era)

    def _check_result(self, exchange: Exchange, tool: Tool, reply: Reply) -> None:
        if not isinstance(reply, Result) or reply.value.get("isError") is True:
            return
        if reply.value.get("resultType", "complete") != "complete" or "task" in reply.value:
            return
        problem = self._misfit(tool, reply)
        if problem is None:
            return
        self._misfits += 1
        exchange.decide(self.context.id, "misfit", "result")
        if self.config.results == "refuse":
            raise UpstreamProtocolError(f"the result of {clip(tool.name)} does not fit its output schema: {problem}")
        if tool.name not in self._told and len(self._told) < _TOLD_OF:
            self._told[tool.name] = None
            self.context.log.warning("a result does not fit its output schema", tool=clip(tool.name), problem=problem)

    def _misfit(self, tool: Tool, reply: Result) -> str | None:
        if "structuredContent" not in reply.value:
            return "it has no structured content"
        try:
            schema: Schema = self._schemas.ready(tool.output_schema)
            wrong = schema.check(reply.value["structuredContent"])
        except UnusableSchema as error:
            return f"it cannot be checked: {error}" if self.config.unusable == "refuse" else None
        return "; ".join(f"{each.path or 'it'}: {each.problem}" for each in wrong) or None

    def details(self) -> Mapping[str, Json]:
        """Tools known, and schemas kept ready."""
        return {"tools": len(self._book), "schemas": len(self._schemas)}

    def figures(self) -> Iterable[Figure]:
        """Counters."""
        return (
            Figure("validate_arguments_total", self._refused, "counter", "Calls whose arguments did not fit."),
            Figure("validate_results_total", self._misfits, "counter", "Results that did not fit their schema."),
        )


def _listed(wrong: list[Wrong]) -> list[Json]:
    return [each.to_json() for each in wrong]


def _tool_error(name: str, wrong: list[Wrong], era: Era) -> Result:
    """The result of a tool that did not run: text for the model, and the same as data."""
    lines = [f"- {each.path or 'arguments'}: {each.problem}" for each in wrong]
    text = "\n".join([f"The arguments of {clip(name)} do not fit its schema:", *lines])
    meta = {REASON: "invalid_arguments", "io.sluiceway/errors": _listed(wrong)}
    complete = {"resultType": "complete"} if era is Era.MODERN else {}
    return Result({"content": [{"type": "text", "text": text}], "isError": True, **complete, "_meta": meta})
