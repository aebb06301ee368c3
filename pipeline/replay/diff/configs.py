"""
Two configurations side by side, from the compiled model: never from text.

What was only renamed is found first, by saying the same under another id, so that everything that names it is the same
as before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any, Final, final

from attrs import evolve, frozen

from ...config.declarations import flow
from ...model.document import Document, PipelineSpec, SinkSpec, SourceSpec, Spec, StageSpec
from .chains import Chain
from .change import Change
from .plain import Sides, in_force
from .renaming import sides_of
from .telling import options
from .wording import LIMITS, RUN, SINKS, SOURCES

_AUTH: Final = "auth"


def differences(old: Document, new: Document) -> tuple[Change, ...]:
    """
    What the new configuration does otherwise, in the order of its sections.

    Nothing for what is only written otherwise. Options of components are compared as they are in force
    (`Component.in_force`); stages and ids that were only moved or renamed are told as that.
    """
    return tuple(_Comparison(old, new, sides_of(old, new)).changes())


@final
@frozen
class _Comparison:
    old: Document
    new: Document
    sides: Sides

    def changes(self) -> Iterator[Change]:
        yield from self._section("sources", self._source, _new_source)
        yield from self._unprotected()
        yield from self._section("pipelines", self._pipeline, lambda spec: f"is new, in front of sinks.{spec.sink}")
        yield from self._section("sinks", self._sink, lambda spec: f"is new: {_kind(spec)}{self._given(spec)}")
        yield from self._section("stores", self._store, lambda spec: f"is new: {_kind(spec)}{self._given(spec)}")
        yield from options("run", "operation", self.sides, self.old.run, self.new.run, RUN)

    def _section(self, section: str, altered: Any, new: Any) -> Iterator[Change]:
        """What came, what went, what is called otherwise, and what is different about the rest."""
        kind = section.removesuffix("s")
        was: dict[str, Any] = {self.sides.renamed(kind, id_): spec for id_, spec in getattr(self.old, section).items()}
        now: Mapping[str, Any] = getattr(self.new, section)
        area: Any = "exposure" if section == "sources" else "operation" if section == "stores" else "upstreams"
        for id_ in was:
            if id_ not in now:
                yield Change(f"{section}.{id_}", area, "was removed")
        for id_, spec in now.items():
            path = f"{section}.{id_}"
            if id_ not in was:
                yield Change(path, area, new(spec))
                continue
            before = was[id_]
            if before.id != id_:
                yield Change(path, "naming", self._called(section, before.id, id_), old=before.id, new=id_)
            yield from altered(path, before, spec)

    def _called(self, section: str, old: str, new: str) -> str:
        routed = section == "sinks" and any(
            sink.cls.name == "route" and new in sink.sends_to for sink in self.new.sinks.values()
        )
        return f"it was called {old}" + (", and so did its tools begin where no prefix is given" if routed else "")

    def _source(self, path: str, old: SourceSpec, new: SourceSpec) -> Iterator[Change]:
        if self.sides.renamed("pipeline", old.pipeline) != new.pipeline:
            yield Change(
                path, "exposure", f"it feeds pipelines.{new.pipeline} instead of pipelines.{old.pipeline}", "pipeline",
                old.pipeline, new.pipeline,
            )  # fmt: skip
        if _kind(old) != _kind(new):
            yield Change(path, "exposure", f"it is {_kind(new)} instead of {_kind(old)}{self._given(new)}")
            return
        yield from _binds(path, old, new)
        was, now = getattr(old.config, "tls", None), getattr(new.config, "tls", None)
        if (was is None) is not (now is None):
            text = "it speaks plain text instead of TLS" if now is None else "it speaks TLS instead of plain text"
            yield Change(path, "exposure", text, "tls")
        for change in options(path, "exposure", self.sides, in_force(old), in_force(new), SOURCES):
            if change.option not in ("bind", "tls"):
                yield change

    def _unprotected(self) -> Iterator[Change]:
        """Sources that other machines reach now without anybody asking who they are, and did not before."""
        before = {self.sides.renamed("source", id_) for id_ in self.old.sources if _is_open(self.old, id_)}
        for id_ in self.new.sources:
            if id_ not in before and _is_open(self.new, id_):
                text = "who comes from other machines is not authenticated"
                yield Change(f"sources.{id_}", "exposure", text)

    def _pipeline(self, path: str, old: PipelineSpec, new: PipelineSpec) -> Iterator[Change]:
        if self.sides.renamed("sink", old.sink) != new.sink:
            text = f"requests go to sinks.{new.sink} instead of sinks.{old.sink}"
            yield Change(path, "upstreams", text, "sink", old.sink, new.sink)
        for change in options(path, "limits", self.sides, old.limits, new.limits, LIMITS):
            yield evolve(change, area="deadlines") if change.option.startswith("timeout") else change
        yield from Chain(path, old.chain, new.chain, self.sides).changes()

    def _sink(self, path: str, old: SinkSpec, new: SinkSpec) -> Iterator[Change]:
        if old.required is not new.required:
            text = "the gateway is not ready without it now" if new.required else "the gateway is ready without it now"
            yield Change(path, "operation", text, "required", old.required, new.required)
        if old.max_in_flight != new.max_in_flight:
            was, now = (_count(each.max_in_flight) for each in (old, new))
            text = f"{now} may be inside at the same time instead of {was}"
            yield Change(path, "limits", text, "max_in_flight", old.max_in_flight, new.max_in_flight)
        if _kind(old) != _kind(new):
            yield Change(path, "upstreams", f"it is {_kind(new)} instead of {_kind(old)}{self._given(new)}")
        else:
            yield from options(path, "upstreams", self.sides, in_force(old), in_force(new), SINKS)
        yield from Chain(path, old.chain, new.chain, self.sides).changes()

    def _given(self, spec: Spec) -> str:
        given = self.sides.new.config(spec.config, brief=True)
        return f" ({flow(given)[1:-1]})" if given else ""

    def _store(self, path: str, old: Spec, new: Spec) -> Iterator[Change]:
        if _kind(old) != _kind(new):
            text = f"what it holds is kept in {_kind(new)} instead of {_kind(old)}{self._given(new)}"
            yield Change(path, "operation", text)
        else:
            yield from options(path, "operation", self.sides, in_force(old), in_force(new), {})


def _binds(path: str, old: SourceSpec, new: SourceSpec) -> Iterator[Change]:
    was, now = _addresses(old), _addresses(new)
    if was != now:
        text = f"it listens on {', '.join(now)} instead of {', '.join(was)}"
        yield Change(path, "exposure", text, "bind", list(was), list(now))
    if _is_exposed(new) and not _is_exposed(old):
        yield Change(path, "exposure", "other machines can reach it now", "bind", list(was), list(now))
    elif _is_exposed(old) and not _is_exposed(new):
        yield Change(path, "exposure", "other machines can no longer reach it", "bind", list(was), list(now))


def _addresses(source: SourceSpec) -> tuple[str, ...]:
    """Where it listens, sorted: the order does not matter."""
    bind = getattr(source.config, "bind", ())
    return (bind,) if isinstance(bind, str) else tuple(sorted(bind))


def _is_exposed(source: SourceSpec) -> bool:
    return any(not _is_local(address) for address in _addresses(source))


def _is_local(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]").lower()
    if address.startswith("unix:") or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _is_open(document: Document, source_id: str) -> bool:
    """Whether other machines reach a source whose pipeline has no stage that finds out who they are."""
    source = document.sources[source_id]
    chain: tuple[StageSpec, ...] = document.pipelines[source.pipeline].chain
    proves = (each for each in chain if each.enabled and each.when is None and each.cls.role == _AUTH)
    return _is_exposed(source) and all(each.cls.name == "auth_anonymous" for each in proves)


def _new_source(source: SourceSpec) -> str:
    where = f" on {', '.join(_addresses(source))}" if _addresses(source) else ""
    return f"is new: {_kind(source)}{where}, feeds pipelines.{source.pipeline}"


def _kind(spec: Spec) -> str:
    return spec.cls.name or spec.cls.__name__


def _count(limit: int | None) -> str:
    return "any number of exchanges" if limit is None else f"up to {limit} exchanges"
