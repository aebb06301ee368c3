"""
What is allowed but wrong: the order of stages, open doors, settings that contradict each other.

Order rules are declared by the stages themselves (`Middleware.order`), each with its reason. They are checked on every
way an exchange can take: within a chain, and from the chain of a pipeline to the chains of the sinks behind it.
Nothing is ever re-sorted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from itertools import combinations, product

from attrs import define, field

from ..model.document import Document, PipelineSpec, SinkSpec, SourceSpec, StageSpec
from ..model.options import render_duration
from ..model.order import Order, WantsCertificates
from .components import Components
from .lint_workers import lint_workers
from .nodes import node_at, place_of
from .problems import Problem, Span, has_errors
from .references import sink_targets, sinks_in


def role_of(stage: StageSpec) -> str:
    """What a stage is, for order rules."""
    return stage.cls.role or stage.cls.name


def is_open(bind: str) -> bool:
    """Whether an address to listen on can be reached from other machines."""
    if bind.startswith(("unix:", "fd:")):
        return False
    host = bind.rpartition(":")[0].strip("[]") if ":" in bind else bind
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


@define(eq=False)
class Linter:
    """Checks one document; what had errors is missing in it."""

    document: Document
    components: Components
    targets: dict[str, list[str]] = field(init=False)
    sound: bool = field(init=False)
    """Nothing has errors, so nothing is missing."""

    def __attrs_post_init__(self) -> None:
        self.sound = not has_errors(self.components.problems)
        self.targets = sink_targets(self.document)

    def check(self) -> None:
        """Report every finding."""
        for pipeline in self.document.pipelines.values():
            if pipeline.path not in self.components.broken:
                self.limits(pipeline)
        for chain in self.chains():
            self.firsts(chain)
            self.alternatives(chain)
            for outer, inner in combinations(chain, 2):
                self.pair(outer, inner)
        for before, after in self.successions():
            for outer, inner in product(before, after):
                self.pair(outer, inner)
        self.advice()
        self.admin()
        self.binds()
        lint_workers(self.document, self.components)
        if self.sound:
            self.doors()
            self.certificates()

    def chains(self) -> Iterator[Sequence[StageSpec]]:
        """Every chain, without the stages that are switched off."""
        yield from (_active(pipeline.chain) for pipeline in self.document.pipelines.values())
        yield from (_active(sink.chain) for sink in self.document.sinks.values())

    def successions(self) -> Iterator[tuple[Sequence[StageSpec], Sequence[StageSpec]]]:
        """Every two chains of which one exchange can pass one and then the other."""
        for pipeline in self.document.pipelines.values():
            for id_ in self.behind([pipeline.sink]):
                yield _active(pipeline.chain), _active(self.document.sinks[id_].chain)
        for sink in self.document.sinks.values():
            for id_ in self.behind(self.targets[sink.id]) if sink.chain else ():
                yield _active(sink.chain), _active(self.document.sinks[id_].chain)

    def behind(self, sinks: Sequence[str]) -> list[str]:
        """These sinks and all that they send to."""
        found = dict.fromkeys(sinks)
        waiting = list(found)
        while waiting:
            for target in self.targets.get(waiting.pop(), ()):
                if target not in found:
                    found[target] = None
                    waiting.append(target)
        return [id_ for id_ in found if id_ in self.document.sinks]

    def ends(self, sink: str, seen: frozenset[str] = frozenset()) -> list[str]:
        """The sinks at which requests to this one end: itself, or those that it sends to; equal ones count as one."""
        spec = self.document.sinks.get(sink)
        if spec is None or sink in seen:
            return []
        if spec.cls.interchangeable:
            return [sink]
        targets = sinks_in((spec,))
        found = [end for target in targets for end in self.ends(target, seen | {sink})]
        return list(dict.fromkeys(found)) if targets else [sink]

    def advice(self) -> None:
        """What stages say about their own options at their place."""
        specs: list[PipelineSpec | SinkSpec] = [*self.document.pipelines.values(), *self.document.sinks.values()]
        for spec in specs:
            chain = _active(spec.chain)
            sinks = self.ends(spec.sink if isinstance(spec, PipelineSpec) else spec.id) if chain else []
            for stage in chain:
                for advice in stage.cls.advise(stage.config, stage.when, sinks):
                    self.components.problems.append(
                        Problem(rule=advice.rule, level=advice.level, message=f"{stage.id!r} {advice.message}",
                                span=self.components.spans[stage.path], reason=advice.reason, fix=advice.fix)
                    )  # fmt: skip

    def firsts(self, chain: Sequence[StageSpec]) -> None:
        """Stages that want to be first in their chain, and stand behind one that does not."""
        ahead: list[StageSpec] = []
        for stage in chain:
            firsts = [order for order in stage.cls.order if order.relation == "first" and order.applies(stage.config)]
            for order in firsts if ahead else ():
                rule = f"order/{stage.cls.name}-not-first"
                self.misplaced(order, rule, stage, ahead[0], "is not first; before it comes", "above")
            if not firsts:
                ahead.append(stage)

    def alternatives(self, chain: Sequence[StageSpec]) -> None:
        """Auth stages of which each leaves those without a credential to the next: nobody decides about them."""
        auth = [stage for stage in chain if role_of(stage) == "auth"]
        if auth and all(getattr(stage.config, "optional", False) is True for stage in auth):
            last = auth[-1]
            self.components.report(
                "security/auth-optional", f"{last.id!r} is optional, and no auth stage decides after it",
                self.components.spans[last.path],
                reason="whoever shows no credential at all would come in",
                fix="remove its `optional`, or put auth_anonymous behind it if that is meant",
            )  # fmt: skip

    def pair(self, outer: StageSpec, inner: StageSpec) -> None:
        """Two stages that an exchange passes in this order."""
        rule = f"order/{role_of(outer)}-before-{role_of(inner)}"
        for order in inner.cls.order:
            if order.relation == "before" and order.role == role_of(outer) and order.applies(inner.config):
                return self.misplaced(order, rule, outer, inner, "runs before", "below")
        for order in outer.cls.order:
            if order.relation == "after" and order.role == role_of(inner) and order.applies(outer.config):
                return self.misplaced(order, rule, outer, inner, "runs before", "below")
        return None

    def misplaced(self, order: Order, rule: str, stage: StageSpec, other: StageSpec, verb: str, direction: str) -> None:
        """Report one stage that stands wrong with regard to another."""
        span, place = self.components.spans[stage.path], self.components.spans[other.path]
        where = f"line {place.line}" if place.source is span.source and place.line else str(place)
        chain = _chain_of(other)
        elsewhere = f" of {chain}" if chain != _chain_of(stage) else ""
        self.components.problems.append(
            Problem(rule=rule, level=order.level, message=f"{stage.id!r} {verb} {other.id!r}{elsewhere}", span=span,
                    reason=order.reason, fix=f"move it {direction} {where} ({other.id}{elsewhere})")
        )  # fmt: skip

    def option_span(self, path: str, *keys: str) -> Span:
        """Place of an option's value if it was written, else of what it belongs to."""
        node = self.components.nodes.get(path)
        if node is None or node_at(node, keys) is None:
            return self.components.spans[path]
        return place_of(node, keys)

    def limits(self, pipeline: PipelineSpec) -> None:
        """Limits of a pipeline that contradict each other."""
        limits = pipeline.limits
        if limits.timeout > limits.timeout_max:
            timeout, maximum = render_duration(limits.timeout), render_duration(limits.timeout_max)
            self.components.report(
                "config/timeout-over-max", f"timeout {timeout} is longer than timeout_max {maximum}",
                self.option_span(pipeline.path, "timeout"), fix="raise timeout_max or lower timeout",
            )  # fmt: skip
        node = self.components.nodes.get(pipeline.path)
        if limits.max_waiting == 0 and node is not None and node_at(node, ("wait_at_most",)) is not None:
            self.components.report(
                "config/no-effect", "wait_at_most has no effect while max_waiting is 0",
                self.option_span(pipeline.path, "wait_at_most"), level="warning", fix="set max_waiting, or remove it",
            )  # fmt: skip

    def listeners(self) -> Iterator[tuple[SourceSpec, str]]:
        """Sources that listen somewhere, and where: those with an option `bind`, one text or several."""
        for source in self.document.sources.values():
            bind = getattr(source.config, "bind", None)
            for each in (bind,) if isinstance(bind, str) else bind if isinstance(bind, tuple) else ():
                yield source, each

    def binds(self) -> None:
        """Nothing else can listen on an address that is taken."""
        taken: dict[str, Span] = {}
        if self.document.run.admin is not None:
            taken[self.document.run.admin.bind] = self.option_span("run", "admin", "bind")
        for source, bind in self.listeners():
            span = self.bind_span(source)
            if bind in taken and not bind.endswith(":0"):
                others = (("first", taken[bind]),)
                self.components.report("config/same-bind", f"{bind} is bound twice", span, others=others)
            taken.setdefault(bind, span)

    def doors(self) -> None:
        """Addresses that other machines reach, where nobody asks who is calling, or others can hear the answer."""
        for source, bind in self.listeners():
            if not is_open(bind):
                continue
            chain = _active(self.document.pipelines[source.pipeline].chain)
            if any(role_of(stage) == "auth" for stage in chain):
                if getattr(source.config, "tls", True) is None:
                    self.components.report(
                        "security/plain-bind", f"{bind} can be reached from other machines, and speaks no TLS",
                        self.bind_span(source), level="info",
                        reason="credentials and all that tools say can be read on the way",
                        fix="set tls: {cert: FILE, key: FILE}, unless a proxy beside the gateway speaks TLS for it",
                    )  # fmt: skip
            else:
                self.components.report(
                    "security/open-bind", f"{bind} can be reached from other machines, and nothing asks who is calling",
                    self.bind_span(source), level="warning",
                    reason="anybody who reaches the port can use every tool behind it",
                    fix=f"bind to 127.0.0.1, or put an auth stage into pipelines.{source.pipeline}.chain",
                )  # fmt: skip

    def certificates(self) -> None:
        """Stages that wait for certificates, and none of the sources in front of them asks for any."""
        for pipeline in self.document.pipelines.values():
            sources = [each for each in self.document.sources.values() if each.pipeline == pipeline.id]
            tls = [getattr(source.config, "tls", None) for source in sources]
            if not sources or any(getattr(each, "client_certs", "off") != "off" for each in tls):
                continue
            for stage in _active(pipeline.chain):
                if isinstance(stage.cls, WantsCertificates) and stage.cls.wants_certificates(stage.config):
                    names = ", ".join(source.id for source in sources)
                    self.components.report(
                        "security/no-certificates", f"{stage.id!r} never sees a certificate: {names} asks for none",
                        self.components.spans[stage.path], level="warning",
                        reason="whoever comes in has none, as far as the gateway can tell",
                        fix="set tls: {client_certs: required, client_ca: FILE} in the source, or name the header of "
                        "a trusted proxy; under an ASGI server that has the tls extension all is well",
                    )  # fmt: skip

    def bind_span(self, source: SourceSpec) -> Span:
        """Where a source says what it binds."""
        return self.option_span(source.path, "bind")

    def admin(self) -> None:
        """The admin listener is for this machine only, and asks for its token."""
        admin = self.document.run.admin
        if admin is None:
            return
        span = self.option_span("run", "admin", "bind")
        if is_open(admin.bind):
            self.components.report(
                "security/admin-bind", f"the admin listener cannot be on {admin.bind}", span,
                reason="it shows and changes what runs", fix="use 127.0.0.1:9464 or unix:./admin.sock",
            )  # fmt: skip
        if admin.token is None and not admin.bind.startswith("unix:"):
            self.components.report(
                "security/admin-token", "the admin listener needs a token unless it is a Unix socket", span,
                reason="every process of this machine can reach a loopback port",
                fix="add token: {from_env: SLUICEWAY_ADMIN_TOKEN}",
            )  # fmt: skip


def _active(chain: Sequence[StageSpec]) -> Sequence[StageSpec]:
    return [stage for stage in chain if stage.enabled]


def _chain_of(stage: StageSpec) -> str:
    return stage.path.rpartition("[")[0]
