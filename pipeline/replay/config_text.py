"""A document as the text of a configuration that says the same: for one that was made smaller."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Final

import yaml

from ..config.declarations import Group, options_of, to_data
from ..config.references import components_of
from ..model.document import Document, SinkSpec, SourceSpec, Spec, StageSpec
from ..model.when import When
from ..protocol.messages import Json

_OURS: Final = "sluiceway."


def config_text(document: Document) -> str:
    """YAML that loads as the document; secrets by their origin, and no comments."""
    return yaml.safe_dump(config_data(document), sort_keys=False, width=100, allow_unicode=True)


def config_data(document: Document) -> dict[str, Json]:
    """The same as plain data."""
    data: dict[str, Json] = {"version": 1}
    plugins = sorted(set(_plugins(document)))
    if plugins:
        data["plugins"] = list(plugins)
    for section in ("stores", "sources", "pipelines", "sinks"):
        specs = getattr(document, section)
        if specs:
            data[section] = {key: _spec(each) for key, each in specs.items()}
    run = to_data(document.run, Group(type(document.run)))
    if run:
        data["run"] = run
    return data


def _spec(spec: Any) -> dict[str, Json]:
    found: dict[str, Json] = {}
    if isinstance(spec, Spec):
        found[_name(spec)] = _options(spec)
    match spec:
        case SourceSpec():
            found["pipeline"] = spec.pipeline
        case SinkSpec():
            if spec.max_in_flight is not None:
                found["max_in_flight"] = spec.max_in_flight
            if not spec.required:
                found["required"] = False
        case _ if not isinstance(spec, Spec):
            found |= to_data(spec.limits, Group(type(spec.limits)))
            found["sink"] = spec.sink
    chain = getattr(spec, "chain", ())
    if chain:
        found["chain"] = [_stage(stage) for stage in chain]
    return found


def _stage(stage: StageSpec) -> Json:
    options = _options(stage)
    if stage.id != _name(stage):
        options = {"id": stage.id, **options}
    if stage.when is not None:
        options["when"] = {
            each.name: to_data(value, each.shape)
            for each in options_of(When)
            if (value := getattr(stage.when, each.name))
        }
    if not stage.enabled:
        options["enabled"] = False
    return {_name(stage): options} if options else _name(stage)


def _options(spec: Spec) -> dict[str, Json]:
    cls: type = type(spec.config)
    data: dict[str, Json] = to_data(spec.config, Group(cls))
    return data


def _name(spec: Spec) -> str:
    return spec.cls.name or f"{spec.cls.__module__}:{spec.cls.__qualname__}"


def _plugins(document: Document) -> Iterator[str]:
    """Files of the components that are not ours, as plugins; installed ones are found without, and it does no harm."""
    for spec in components_of(document):
        if not spec.cls.__module__.startswith(_OURS) and spec.cls.name:
            yield inspect.getfile(spec.cls)
