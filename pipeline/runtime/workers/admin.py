"""
The admin listener of a gateway with several workers: asks them, and answers as one gateway would.

    GET  /-/workers                  the workers: number, process, state, connections
    GET  /-/workers/{number}/...     what stands below /-/ for one worker: status, metrics, components/{id}, ...
    POST likewise

All else has the paths and the answers of one process (`pipeline/admin`), merged. The workers as a whole are a component
with an action: `run.workers` is renewed one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, Final, final
from urllib.parse import quote

import msgspec
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...admin.app import PlainJson, guarded
from ...admin.listener import serve_app
from ...admin.merging import (
    merge_component,
    merge_components,
    merge_figures,
    merge_lists,
    merge_pipelines,
    merge_results,
    merge_rules,
)
from ...model.document import Admin
from ...protocol.messages import Json
from ...telemetry.metrics import Snapshot, merge
from .figures import figures_of
from .fleet import NAME, Fleet
from .member import Member, Phase
from .messages import Answered, Ask, Count, Counted

RENEW: Final = "renew"
_ACTIONS: Final = {
    RENEW: "Put a new worker in the place of each, one after the other, with the configuration as it is."
}
PATIENCE_S: Final = 5.0
"""Seconds for a worker to answer. One that does not is left out: it may be stuck, and that is what is asked about."""


async def serve_merged(
    admin: Admin,
    fleet: Fleet,
    renew: Callable[[], None],
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """
    Serve the admin endpoints until cancelled.

    Args:
        admin: Address and token.
        fleet: The workers.
        renew: Begins to renew them.
        task_status: Told the addresses once connections are accepted.

    Raises:
        ComponentError: The address is not one, cannot be bound, or needs a token; or the token cannot be read.
    """
    merged = Merged(fleet, renew)
    await serve_app(admin, lambda guard: guarded(Starlette(routes=merged.routes()), guard), task_status=task_status)


@final
class Merged:
    """
    The endpoints.

    Args:
        fleet: The workers.
        renew: Begins to renew them.
    """

    def __init__(self, fleet: Fleet, renew: Callable[[], None]) -> None:
        self._fleet = fleet
        self._renew = renew
        self._started = trio.current_time()

    def routes(self) -> list[Route]:
        """For a Starlette application behind a guard."""
        return [
            Route("/-/live", self.live),
            Route("/-/ready", self.ready),
            Route("/-/status", self.status),
            Route("/-/metrics", self.metrics),
            Route("/metrics", self.metrics),
            Route("/-/traces", self.traces),
            Route("/-/alerts", self.alerts),
            Route("/-/audit", self.audit),
            Route("/-/workers", self.workers),
            Route("/-/workers/{number}/{rest:path}", self.one, methods=["GET", "POST"]),
            Route("/-/components/{id}", self.component),
            Route("/-/components/{id}/{action}", self.act, methods=["POST"]),
        ]

    async def live(self, _request: Request) -> Response:  # Starlette would run a plain function in a thread
        """The supervisor lives."""
        return PlainJson({"live": True})

    async def ready(self, _request: Request) -> Response:  # likewise
        """All workers were ready once, and one is now."""
        return PlainJson({"ready": self._fleet.ready}, status_code=200 if self._fleet.ready else 503)

    async def status(self, _request: Request) -> Response:
        """Everything that `sluiceway status` shows."""
        fleet, answers = self._fleet, await self._ask_all("/-/status")
        return PlainJson(
            {
                "version": version("sluiceway"),
                "uptime_s": round(trio.current_time() - self._started, 3),
                "ready": fleet.ready,
                "draining": fleet.draining,
                "generation": fleet.generation,
                "components": [self._row(), *merge_components(answers)],
                "pipelines": merge_pipelines(answers),
                "alerts": [*fleet.alerting.rows(), *merge_lists(answers, "alerts")],
                "workers": self._rows(),
            }
        )

    async def workers(self, _request: Request) -> Response:  # Starlette would run a plain function in a thread
        """Who they are."""
        return PlainJson({"workers": self._rows()})

    async def metrics(self, request: Request) -> Response:
        """The counts of all, added up, and those of the workers themselves."""
        from ...telemetry.exposition import exposition  # prometheus-client, for those who scrape

        snapshots: list[Snapshot] = [(*figures_of(self._fleet), *self._fleet.alerting.figures())]

        async def count(member: Member) -> None:
            with trio.move_on_after(PATIENCE_S):
                answer = await self._fleet.ask(member, lambda number: Count(number=number))
                if isinstance(answer, Counted):
                    snapshots.append((*answer.figures, *answer.distributions))

        await self._for_all(count)
        content_type, body = exposition(merge(snapshots), request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})

    async def traces(self, request: Request) -> Response:
        """The spans that ended lately, of all workers, latest first."""
        answers = await self._ask_all("/-/traces", request.url.query)
        spans = [span for answer in answers.values() for span in answer["spans"]]
        spans.sort(key=lambda span: span["start_ns"], reverse=True)
        limit = request.query_params.get("limit", "")
        return PlainJson({"spans": spans[: int(limit)] if limit.isascii() and limit.isdigit() else spans})

    async def alerts(self, _request: Request) -> Response:
        """The alerts of the workers as a whole and of each, and the rules."""
        answers, whole = await self._ask_all("/-/alerts"), self._fleet.alerting.report()
        rules = merge_rules([whole["rules"], *(answer["rules"] for answer in answers.values())])
        return PlainJson({"alerts": [*whole["alerts"], *merge_lists(answers, "alerts")], "rules": rules})

    async def audit(self, request: Request) -> Response:
        """Entries of the audit trails, which are the same for all."""
        for member in self._members():
            answer = await self._ask(member, "GET", "/-/audit", request.url.query)
            if answer is not None:
                return _passed(answer)
        return _error(503, "no worker answers")

    async def one(self, request: Request) -> Response:
        """What one worker says by itself."""
        number, rest = request.path_params["number"], request.path_params["rest"]
        member = next((each for each in self._fleet.members.values() if str(each.slot) == number), None)
        if member is None:
            return _error(404, f"no worker {number!r}; there are: {', '.join(map(str, sorted(self._fleet.members)))}")
        path = f"/-/{rest}"
        answer = await self._ask(member, request.method, path, request.url.query, await request.body())
        return _error(503, f"worker {number} does not answer") if answer is None else _passed(answer)

    async def component(self, request: Request) -> Response:
        """One component, merged."""
        component_id = request.path_params["id"]
        if component_id == NAME:
            return PlainJson({**self._row(), "actions": _ACTIONS, "figures": []})
        answers = await self._all(f"/-/components/{quote(component_id, safe='')}")
        shown = {worker: _json(answer) for worker, answer in answers.items() if answer.status == 200}
        if not shown:
            return _passed(next(iter(answers.values()))) if answers else _error(503, "no worker answers")
        actions = {name: text for row in shown.values() for name, text in row["actions"].items()}
        figures = merge_figures({worker: row["figures"] for worker, row in shown.items()})
        return PlainJson({**merge_component(shown), "actions": actions, "figures": figures})

    async def act(self, request: Request) -> Response:
        """Have a component of every worker do something."""
        component_id, action = request.path_params["id"], request.path_params["action"]
        if component_id == NAME:
            if action != RENEW:
                return _error(404, f"{NAME} has no action {action!r}; it has: {RENEW}")
            self._renew()
            return PlainJson({"result": None})
        path = f"/-/components/{quote(component_id, safe='')}/{quote(action, safe='')}"
        answers = await self._all(path, method="POST", body=await request.body())
        failed = [answer for answer in answers.values() if answer.status != 200]
        if failed or not answers:
            return _passed(failed[0]) if failed else _error(503, "no worker answers")
        return PlainJson({"result": merge_results({k: _json(answer)["result"] for k, answer in answers.items()})})

    # Asking.

    def _members(self) -> list[Member]:
        return self._fleet.those(Phase.READY, Phase.DRAINING)

    async def _for_all(self, act: Callable[[Member], Any]) -> None:
        async with trio.open_nursery() as nursery:
            for member in self._members():
                nursery.start_soon(act, member)

    async def _ask(self, member: Member, method: str, path: str, query: str = "", body: bytes = b"") -> Answered | None:
        with trio.move_on_after(PATIENCE_S):
            answer = await self._fleet.ask(
                member, lambda number: Ask(number=number, method=method, path=path, query=query, body=body)
            )
            return answer if isinstance(answer, Answered) else None
        return None

    async def _all(self, path: str, query: str = "", *, method: str = "GET", body: bytes = b"") -> dict[str, Answered]:
        """What each worker answers, by its number; without those that do not."""
        found: dict[int, Answered] = {}

        async def ask(member: Member) -> None:
            answer = await self._ask(member, method, path, query, body)
            if answer is not None:
                found[member.slot] = answer

        await self._for_all(ask)
        return {str(slot): found[slot] for slot in sorted(found)}

    async def _ask_all(self, path: str, query: str = "") -> dict[str, Any]:
        answers = await self._all(path, query)
        return {worker: _json(answer) for worker, answer in answers.items() if answer.status == 200}

    def _rows(self) -> list[Json]:
        now = trio.current_time()
        return [
            {
                "worker": member.slot,
                "pid": member.pid,
                "state": member.phase.value,
                "for_s": round(now - member.since, 3),
                "connections": self._fleet.connections(member),
            }
            for member in self._fleet.those(*Phase)
        ]

    def _row(self) -> dict[str, Json]:
        """The workers as a whole, as a component is shown."""
        fleet = self._fleet
        serving = len(fleet.those(Phase.READY))
        state = "ready" if serving >= fleet.size else "degraded" if serving else "failed"
        reason = "" if serving >= fleet.size else f"{serving} of {fleet.size} serve"
        details = {"workers": serving, "deaths": fleet.restarts.total}
        return {"id": NAME, "kind": "workers", "state": state, "reason": reason, "required": True, "details": details}


def _json(answer: Answered) -> Mapping[str, Any]:
    decoded: Mapping[str, Any] = msgspec.json.decode(answer.body)
    return decoded


def _passed(answer: Answered) -> Response:
    headers = {"content-type": answer.content_type, "cache-control": "no-store"}
    return Response(answer.body, status_code=answer.status, headers=headers)


def _error(status: int, text: str) -> Response:
    return PlainJson({"error": text}, status_code=status)
