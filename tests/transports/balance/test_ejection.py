"""Who is out: the two records, and the group's word."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluiceway.transports.balance.ejection import Ejection, EjectionRules, Probed
from sluiceway.transports.balance.group import Group, GroupRules, Ledger
from sluiceway.transports.balance.member import Member, Vitals

RULES = EjectionRules(consecutive=3, window_s=60.0, base_s=30.0, max_s=100.0)


def test_failures_in_a_row_are_counted():
    """A success between them, or too long a pause, begins anew."""
    record = Ejection()
    assert [record.failed(at, RULES) for at in (0.0, 1.0)] == [False, False]
    record.succeeded()
    assert [record.failed(at, RULES) for at in (2.0, 3.0, 64.0, 65.0, 66.0)] == [False, False, False, False, True]


def test_every_ejection_is_longer_up_to_a_maximum():
    """And shorter again for the time that it was back."""
    record = Ejection()
    assert [record.eject(now, RULES) for now in (0.0, 30.0, 90.0, 180.0)] == [30.0, 60.0, 90.0, 100.0]
    assert record.is_out(279.9)
    assert not record.is_out(280.0)

    assert record.eject(280.0 + 3 * 30.0, RULES) == 60.0
    assert record.total == 5


def test_it_can_be_back_before_its_time():
    """When a probe says so."""
    record = Ejection()
    record.eject(0.0, RULES)
    record.take_back(5.0)

    assert not record.is_out(5.0)


def test_probes_must_agree_to_change_anything():
    """Two that fail, then one that succeeds; one between does not count."""
    record = Probed()
    said = [record.note(well=well, unhealthy_after=2, healthy_after=1) for well in (False, True, False, False, True)]

    assert said == [False, False, False, True, True]
    assert not record.is_down


async def _nowhere(_exchange):
    raise AssertionError("a group sends nothing")


def make_group(count: int, *, max_ejected: float = 0.1, panic: float = 0.0, said: list[str] | None = None) -> Group:
    """Some upstreams."""
    ledger = Ledger()
    made = [Member(f"u{n}", n, _nowhere, 1, ledger.vitals.setdefault(f"u{n}", Vitals())) for n in range(count)]
    rules = GroupRules(eject=RULES, max_ejected=max_ejected, panic_threshold=panic, unhealthy_after=1, healthy_after=1)
    return Group(made, ledger, rules, lambda member, state: (said if said is not None else []).append(state))


def put_out(group: Group, index: int, now: float) -> bool:
    """Let an upstream fail as often as it takes."""
    return [group.failed(group.members[index], 0.1, now) for _ in range(3)][-1]


@given(
    count=st.integers(1, 30),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    failing=st.lists(st.tuples(st.integers(0, 29), st.floats(0, 50)), max_size=60),
)
def test_never_more_are_out_than_may_be(count, share, failing):
    """One always may, if there are others; whatever fails, and when."""
    group, now = make_group(count, max_ejected=share), 0.0
    for index, step in failing:
        now += step
        put_out(group, index % count, now)
        out = [member for member in group.members if member.vitals.ejection.is_out(now)]

        assert len(out) <= (max(1, int(share * count)) if count > 1 else 0)
        assert set(group.usable(now)) == set(group.members) - set(out)


def test_time_brings_one_back():
    """At the end of its ejection, without anybody looking before."""
    said: list[str] = []
    group = make_group(3, said=said)
    assert put_out(group, 0, 0.0)
    assert [m.id for m in group.usable(29.9)] == ["u1", "u2"]

    assert [m.id for m in group.usable(30.0)] == ["u0", "u1", "u2"]
    assert said == ["ejected", "back"]


def test_too_few_that_are_well_are_not_believed():
    """Below the threshold all are used, but not those that are drained."""
    group = make_group(4, panic=0.5)
    for index in (0, 1):
        group.probed(group.members[index], 0.0, well=False)
    assert [m.id for m in group.usable(0.0)] == ["u2", "u3"]
    group.probed(group.members[2], 0.0, well=False)
    assert len(group.usable(0.0)) == 4
    assert group.panics
    group.drain(group.members[3], 0.0, drained=True)

    assert [m.id for m in group.usable(0.0)] == ["u0", "u1", "u2"]


def test_without_a_threshold_nobody_is_used_who_is_ill():
    """Not even if that is everybody."""
    group = make_group(2)
    for member in group.members:
        group.probed(member, 0.0, well=False)

    assert group.usable(0.0) == ()


def test_what_is_usable_stays_the_same_object():
    """Strategies keep what they have worked out for it."""
    group = make_group(3)
    first = group.usable(0.0)
    group.succeeded(group.members[0], 0.1, 1.0)

    assert group.usable(1.0) is first


def test_a_fast_failure_does_not_look_fast():
    """Else whoever fails at once would be sent more."""
    group = make_group(2)
    member = group.members[0]
    group.succeeded(member, 0.5, 0.0)
    group.failed(member, 0.001, 0.0)

    assert member.vitals.latency.at(0.0) == 0.5
