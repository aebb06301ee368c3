"""`sluiceway status`: ask the admin listener of a running gateway."""

from __future__ import annotations

from pathlib import Path

from ..model.options import render_duration
from ..protocol.messages import Json, encode_json
from .asking import find_admin
from .exits import Exit
from .output import Format, emit, emit_json, table


def status(
    file: Path | None = None,
    /,
    *,
    admin: str | None = None,
    format: Format = "text",
) -> int:
    """
    Show the state of a running gateway: its components and pipelines.

    Args:
        file: Its configuration, which says where the admin listener is. Without it, the default address is asked,
            with the token of SLUICEWAY_ADMIN_TOKEN if that is set.
        admin: Address of the admin listener, host:port or unix:path, instead of the configured one.
        format: `text` for people, `json` for programs.
    """
    answer = find_admin(file, admin).ask("GET", "/-/status")
    if format == "json":
        emit_json(answer)
    else:
        _show(answer)
    return Exit.OK if answer["ready"] else Exit.FOUND


def _show(answer: Json) -> None:
    state = "draining" if answer.get("draining") else "ready" if answer["ready"] else "not ready"
    uptime = render_duration(float(int(answer["uptime_s"])))
    emit(f"sluiceway {answer['version']}: {state}, up {uptime}, configuration {answer['generation']}")
    emit("")
    if answer.get("alerts"):
        alerts = [(each["rule"], each["state"], _value(each), _labels(each)) for each in answer["alerts"]]
        table(("alert", "state", "value", "of"), alerts)
        emit("")
    if "workers" in answer:
        facts = ("worker", "pid", "state", "connections")
        table(facts, [tuple(_plain(each[fact]) for fact in facts) for each in answer["workers"]])
        emit("")
    rows = [(each["id"], each["kind"], each["state"], each["reason"]) for each in answer["components"]]
    table(("component", "kind", "state", "reason"), rows, styles=("", "dim"))
    details = [(each["id"], name, _plain(value)) for each in answer["components"] for name, value in _details(each)]
    if details:
        emit("")
        table(("component", "detail", "value"), details, styles=("", "dim"))
    emit("")
    names = ("in_flight", "waiting", "listeners", "served", "refused", "average_ms")
    table(
        ("pipeline", *(name.replace("_", " ") for name in names)),
        [(each["id"], *(str(each.get(name, "")) for name in names)) for each in answer["pipelines"]],
    )


def _details(component: Json) -> list[tuple[str, Json]]:
    return list(component.get("details", {}).items())


def _value(alert: Json) -> str:
    return f"{alert['value']:g}, {alert['condition']}"


def _labels(alert: Json) -> str:
    return ", ".join(alert["labels"].values())


def _plain(value: Json) -> str:
    return value if isinstance(value, str) else encode_json(value).decode()
