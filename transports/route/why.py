"""Where a name or uri goes, and why it is not shown: plain data, answered from the configuration alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sluiceway.pipeline.protocol.messages import Json

from .config import Member, RouteConfig
from .naming import Exposure
from .rules import compile_rules

_KINDS = {"tools/call": "tools", "prompts/get": "prompts"}


def explain(config: RouteConfig, question: Mapping[str, Json]) -> dict[str, Json]:
    """
    Which upstreams may get a request, as far as its name says.

    Args:
        config: Of the route.
        question: `method`, and `name` where it has a target; what else it says is not looked at.

    Returns:
        As `access` answers: `allowed`, `reason`, `rule`, `scopes`, and what each of the `rules` says, of which there
        is one for each upstream.
    """
    method, name = str(question.get("method") or "tools/call"), question.get("name")
    if not isinstance(name, str):
        return _answer(allowed=True, reason="goes to all of them", says=())
    ruled = compile_rules(config.rules, "name")(name)
    if ruled is not None:
        return _answer(allowed=True, reason=f"goes to {ruled}, as `rules` says", says=())
    says = [(sink_id, *_says(config, sink_id, member, method, name)) for sink_id, member in config.members().items()]
    fitting = [sink_id for sink_id, fits, _ in says if fits]
    reason = f"goes to {' or '.join(fitting)}" if fitting else "none of its upstreams has this name for clients"
    return _answer(allowed=bool(fitting), reason=reason, says=((sink_id, text) for sink_id, _, text in says))


def _says(config: RouteConfig, sink_id: str, member: Member, method: str, name: str) -> tuple[bool, str]:
    """Whether a name can be an upstream's, and why not."""
    kind = _KINDS.get(method)
    if kind is None:
        shown = Exposure(member.resources.allow, member.resources.deny).shows(name)
        return shown, "shown" if shown else "hidden by allow or deny"
    own, prefix = name, sink_id if member.prefix is None else member.prefix
    if config.prefixes == "always" and prefix:
        start = prefix + config.separator
        if not name.startswith(start):
            return False, f"its names begin with {start}"
        own = name.removeprefix(start)
    names = member.tools if kind == "tools" else member.prompts
    found = Exposure(names.allow, names.deny, names.rename).own(own)
    if found is not None:
        return True, f"shown, there called {found}"
    renamed = names.rename.get(own)
    return False, f"clients know it as {renamed}" if renamed is not None else f"{own} is hidden by allow or deny"


def _answer(*, allowed: bool, reason: str, says: Iterator[tuple[str, str]] | tuple[()]) -> dict[str, Json]:
    rules: list[Json] = [{"rule": rule, "says": text} for rule, text in says]
    return {"allowed": allowed, "reason": reason, "rule": "", "scopes": [], "rules": rules}
