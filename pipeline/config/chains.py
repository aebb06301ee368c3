"""Chains: lists of stages, each with an id of its own in its chain."""

from __future__ import annotations

import re
from typing import Final, cast

from attrs import define, evolve

from ..model.component import ComponentKind, Middleware
from ..model.document import StageSpec
from .components import Components
from .hooks import shown
from .keys import STAGE_KEYS, StageKeys
from .nodes import Broken, Mapping, Node, Scalar, Sequence
from .problems import Span

MAX_STAGES: Final = 256
"""Most stages of one chain."""
ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
BAD_ID: Final = "cannot be an id; use up to 64 letters, digits, _, - and ."


@define(eq=False)
class Chains:
    """Reads chains."""

    components: Components

    def chain(self, node: Node | None, path: str) -> tuple[StageSpec, ...]:
        """The stages of a chain, without those that are broken."""
        if node is None or (isinstance(node, Scalar) and isinstance(node.value, Broken | None)):
            return ()
        if not isinstance(node, Sequence):
            self.components.report("config/type", f"{path} is a list of stages, got {shown(node.plain)}", node.span,
                        fix="write one stage a line, each after a dash")  # fmt: skip
            return ()
        if len(node.items) > MAX_STAGES:
            self.components.report(
                "config/size", f"{len(node.items)} stages; a chain has at most {MAX_STAGES}", node.span
            )
            return ()
        stages = [self.stage(item, f"{path}[{index}]") for index, item in enumerate(node.items)]
        return self.identified([stage for stage in stages if stage is not None])

    def stage(self, node: Node, path: str) -> StageSpec | None:
        """One stage, with an empty id if it does not say one."""
        parts = self.stage_parts(node)
        if parts is None:
            return None
        name, span, options = parts
        self.components.spans[path] = span
        found = self.components.options(ComponentKind.MIDDLEWARE, name, span, options, path, STAGE_KEYS)
        own = options.only(STAGE_KEYS) if isinstance(options, Mapping) else Mapping({}, span)
        keys: StageKeys | None = self.components.structurer.structure(own, StageKeys)
        if found is None or keys is None:
            return None
        if keys.id is not None and not ID.fullmatch(keys.id):
            self.components.report("config/id", f"{keys.id[:80]!r} {BAD_ID}", span)
        cls, config = cast("tuple[type[Middleware], object]", found)  # the registry checked the kind
        return StageSpec(
            id=keys.id or "", cls=cls, config=config, path=path, place=str(span), when=keys.when, enabled=keys.enabled
        )

    def stage_parts(self, node: Node) -> tuple[str, Span, Node] | None:
        """Name, place and options of a stage: a name alone, or a mapping with one key."""
        if isinstance(node, Scalar) and isinstance(node.value, Broken):
            return None
        if isinstance(node, Scalar) and isinstance(node.value, str):
            return node.value, node.span, Mapping({}, node.span)
        if not isinstance(node, Mapping):
            message = f"a stage is a name, or one name with its options; got {shown(node.plain)}"
            self.components.report("config/stage", message, node.span)
            return None
        names = [key for key in node.entries if key not in STAGE_KEYS]
        if len(names) == 1 and len(node.entries) == 1:
            return names[0], node.entries[names[0]].key, node.entries[names[0]].value
        if len(names) == 1:
            beside = next(key for key in node.entries if key in STAGE_KEYS)
            message = f"`{beside}` belongs among the options of `{names[0]}`"
            self.components.report(
                "config/misplaced-key", message, node.entries[beside].key, fix="indent it two spaces more"
            )
        else:
            found = ", ".join(names) or "none"
            message = f"a stage is a mapping with one key, its name; found {found}"
            fix = "start each stage with a dash of its own"
            self.components.report("config/stage", message, node.span, fix=fix)
        return None

    def identified(self, stages: list[StageSpec]) -> tuple[StageSpec, ...]:
        """Every stage with an id of its own in the chain: the one it says, or its name, or its name and a number."""
        taken: dict[str, str] = {}
        for stage in stages:
            if stage.id in taken:
                message = f"stage id {stage.id!r} is given twice in this chain"
                first = self.components.spans[taken[stage.id]]
                span = self.components.spans[stage.path]
                self.components.report("config/duplicate-id", message, span, others=(("first", first),))
            elif stage.id:
                taken[stage.id] = stage.path
        result = []
        for stage in stages:
            id_ = stage.id
            if not id_:
                name = id_ = stage.cls.name or stage.cls.__name__
                number = 1
                while id_ in taken:
                    number += 1
                    id_ = f"{name}_{number}"
                taken[id_] = stage.path
            result.append(evolve(stage, id=id_))
        return tuple(result)
