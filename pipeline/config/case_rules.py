"""What makes a test of a configuration wrong although each of its values has the right type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, final

from attrs import define, field, frozen

from ..model.cases import Case, Expect, Sending, Step
from ..model.document import Document
from ..model.options import parse_duration
from ..model.patterns import mistakes
from .declarations import Group, walk
from .nodes import Node, key_of, place_of
from .nodes import Path as NodePath
from .problems import Problem, Span, unknown
from .references import SECTIONS

PATTERNS: Final = frozenset({"result", "error", "relayed", "asked", "headers", "sent_to", "figures", "got", "answer"})
"""Options that hold patterns."""
AT_THE_END: Final = ("sent_to", "figures")
"""What can be expected of a case as a whole."""
_NOTHING: Final = Expect()
_PLAIN: Final = Sending()


@final
@frozen(eq=False)
class Declared:
    """One test and where everything in it stands."""

    case: Case
    node: Node = field(repr=False)
    """As written, with its row filled in."""

    def span(self, path: NodePath = ()) -> Span:
        """The place of a value in the case; the nearest thing around it if there is none."""
        return place_of(self.node, path)


def start_date(text: str) -> float:
    """
    `now:` of a case in seconds since 1970.

    Raises:
        ValueError: It is no date, or has no time zone.
    """
    date = datetime.fromisoformat(text)
    if date.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write {text}Z for UTC")
    return date.timestamp()


def jump_s(text: str) -> float:
    """
    `clock_jump:` of a step in seconds: a duration with a sign.

    Raises:
        ValueError: It is not.
    """
    back = text.startswith("-")
    seconds = parse_duration(text.lstrip("+-"))
    return -seconds if back else seconds


def component_ids(document: Document) -> list[str]:
    """Ids of everything that decides: stages, and sinks."""
    found = [f"sinks.{sink}" for sink in document.sinks]
    for section, owners in (("pipelines", document.pipelines), ("sinks", document.sinks)):
        found += [
            f"{section}.{owner.id}.{stage.id}" for owner in owners.values() for stage in owner.chain if stage.enabled
        ]
    return found


def resolve(name: str, ids: Iterable[str]) -> list[str]:
    """The component ids that a name in a test means: the id itself, or what it ends in after a full stop."""
    known = list(ids)
    return [name] if name in known else [each for each in known if each.endswith(f".{name}")]


def case_problems(declared: Declared, document: Document | None) -> list[Problem]:
    """
    What is wrong with one test.

    Args:
        declared: The test.
        document: What it tests; None if that has errors, so that ids cannot be looked up.
    """
    rules = _Rules(declared)
    rules.shape()
    rules.patterns()
    rules.dates()
    if document is not None:
        rules.ids(document)
    return rules.problems


@define(eq=False)
class _Rules:
    declared: Declared
    problems: list[Problem] = field(factory=list)

    def report(self, rule: str, message: str, path: NodePath, *, fix: str = "", of_key: bool = False) -> None:
        span = (key_of if of_key else place_of)(self.declared.node, path)
        self.problems.append(Problem(rule=f"tests/{rule}", message=message, span=span, fix=fix))

    def shape(self) -> None:
        """What goes together."""
        case = self.declared.case
        for path, sending in sendings(case):
            has_inner = bool(getattr(sending, "steps", ()) or getattr(sending, "together", ()))
            inner = "steps" if sending is case else "together"
            if has_inner and sending.request is not None:
                self.report(
                    "steps",
                    f"either request or {inner}",
                    (*path, "request"),
                    of_key=True,
                    fix=f"make it one of the {inner}",
                )
            if sending.request is None:
                self.without_request(path, sending, has_inner=has_inner)
            if sending.repeat > 1 and sending.at_once > 1:
                self.report("steps", "either repeat or at_once", (*path, "at_once"), of_key=True)
        if case.request is None and not case.steps:
            self.report("steps", "the test sends nothing", (), fix="give it a request, or steps")
        if not any(True for _ in self.expectations()):
            self.report("no-expectation", "the test expects nothing", ("name",), fix="add expect")

    def without_request(self, path: NodePath, sending: Sending, *, has_inner: bool) -> None:
        """A case or step that sends nothing itself can be expected to have reached sinks, and no more."""
        for name in ("repeat", "at_once", "cancel_after"):
            if getattr(sending, name) != getattr(_PLAIN, name):
                self.report("steps", f"{name} goes with a request", (*path, name), of_key=True)
        if sending.expect_last is not None:
            self.report("steps", "expect_last goes with a request", (*path, "expect_last"), of_key=True)
        if sending.expect is not None:
            for name in given(sending.expect):
                if name not in AT_THE_END:
                    message = f"{name} is expected of a request; of several together {' and '.join(AT_THE_END)}"
                    self.report("steps", message, (*path, "expect", name), of_key=True)
        is_idle = isinstance(sending, Step) and (sending.after is not None or sending.clock_jump is not None)
        if not (has_inner or is_idle or sending is self.declared.case or sending.expect is not None):
            self.report("steps", "the step sends nothing, and no time passes", path)

    def expectations(self) -> Iterator[Any]:
        """Everything that can fail."""
        for opt, value, _path in walk(Group(Case), self.declared.case):
            if value is not None and opt.name in ("expect", "expect_last", "got", "answer"):
                yield value

    def patterns(self) -> None:
        """Patterns that cannot be matched."""
        for opt, value, path in walk(Group(Case), self.declared.case):
            if opt.name in PATTERNS and value is not None and isinstance(value, Mapping | list | tuple):
                for below, message in mistakes(value):
                    self.report("pattern", message, (*path, *below), of_key=True)

    def dates(self) -> None:
        """Dates and jumps."""
        case = self.declared.case
        for path, text, parse in [
            (("now",), case.now, start_date),
            *((("steps", i, "clock_jump"), s.clock_jump, jump_s) for i, s in enumerate(case.steps) if s.clock_jump),
        ]:
            try:
                parse(text)
            except ValueError as error:
                self.report("date", str(error), path)

    def ids(self, document: Document) -> None:
        """Names of what the document does not have."""
        case = self.declared.case
        known: dict[str, Iterable[str]] = {section: getattr(document, section) for section in SECTIONS.values()}
        for opt, value, path in walk(Group(Case), case):
            if opt.info.refers is not None and value is not None:
                for id_ in [value] if isinstance(value, str) else value:
                    if id_ not in known[SECTIONS[opt.info.refers]]:
                        message = unknown(opt.info.refers, id_, known[SECTIONS[opt.info.refers]], listed="declared")
                        self.report(
                            "unknown-id",
                            message,
                            path if isinstance(value, str) else (*path, id_),
                            of_key=not isinstance(value, str),
                        )
        for path, expect in expects(case):
            self.expected_ids(document, path, expect)
        self.door(document)

    def expected_ids(self, document: Document, path: NodePath, expect: Expect) -> None:
        """Sinks and stages that something is expected of."""
        case, ids = self.declared.case, component_ids(document)
        for sink_id in expect.sent_to:
            spec = document.sinks.get(sink_id)
            if spec is None:
                self.report(
                    "unknown-id",
                    unknown("sink", sink_id, document.sinks, listed="declared"),
                    (*path, "sent_to", sink_id),
                    of_key=True,
                )
            elif sink_id not in case.sinks and (spec.routes or spec.cls.in_process):
                message = f"what reaches {sink_id!r} is seen only if it is mocked"
                fix = f"add {sink_id}: {{}} under sinks:"
                self.report("not-mocked", message, (*path, "sent_to", sink_id), fix=fix, of_key=True)
        names = [(name, (*path, "decided", name), True) for name in expect.decided]
        names += [(name, (*path, "stages", index), False) for index, name in enumerate(expect.stages or ())]
        for name, where, of_key in names:
            if not resolve(name, ids):
                short = [each.partition(".")[2].partition(".")[2] or each for each in ids]
                self.report(
                    "unknown-id", unknown("stage", name, sorted(set(short)), listed="declared"), where, of_key=of_key
                )

    def door(self, document: Document) -> None:
        """Which source the requests come in by."""
        case = self.declared.case
        if case.source in document.sources and case.pipeline in document.pipelines:
            assert case.source is not None
            feeds = document.sources[case.source].pipeline
            if feeds != case.pipeline:
                self.report(
                    "source",
                    f"source {case.source!r} feeds {feeds!r}, not {case.pipeline!r}",
                    ("source",),
                    fix="leave one of them out",
                )
        if not document.pipelines:
            self.report("source", "there is no pipeline to test", ("name",))


def given(expect: Expect) -> list[str]:
    """Names of what is expected."""
    return [name for name in Expect.__annotations__ if getattr(expect, name) != getattr(_NOTHING, name)]


def sendings(case: Case) -> Iterator[tuple[NodePath, Sending]]:
    """The case itself, its steps, and what they do together; with their places."""
    yield (), case
    for index, step in enumerate(case.steps):
        yield ("steps", index), step
        for number, each in enumerate(step.together):
            yield ("steps", index, "together", number), each


def expects(case: Case) -> Iterator[tuple[NodePath, Expect]]:
    """Everything that is expected of requests and of the whole; with their places."""
    for path, sending in sendings(case):
        if sending.expect is not None:
            yield (*path, "expect"), sending.expect
        if sending.expect_last is not None:
            yield (*path, "expect_last"), sending.expect_last
