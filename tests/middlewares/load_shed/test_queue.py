"""Who is served next, and who has to go."""

from __future__ import annotations

from collections import Counter
from weakref import WeakKeyDictionary

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.middlewares.load_shed.queue import FairQueue, Priority, Waiter

HIGH, NORMAL, LOW = Priority


NAMES: WeakKeyDictionary[Waiter, str] = WeakKeyDictionary()


def waiter(priority=NORMAL, tenant="", called=""):
    """Somebody who comes."""
    made = Waiter(priority, tenant, lambda: None)
    NAMES[made] = called
    return made


def name(one):
    """What the test calls somebody."""
    return NAMES[one]


def filled(capacity, threshold, *waiters):
    """A queue in which they are, and what they are called."""
    queue = FairQueue(capacity, threshold)
    for priority, tenant, called in waiters:
        assert queue.offer(waiter(priority, tenant, called)) is None
    return queue


def emptied(queue):
    """Everybody, in the order of service."""
    return [name(queue.pop()) for _ in range(len(queue))]


def test_the_highest_priority_is_served_first_and_then_each_tenant_in_turn():
    """Within a tenant, who came first."""
    queue = filled(
        20,
        20,
        (LOW, "a", "low"),
        *((NORMAL, "a", f"a{number}") for number in range(4)),
        (NORMAL, "b", "b0"),
        (NORMAL, "b", "b1"),
        (NORMAL, "c", "c0"),
        (HIGH, "a", "high"),
    )

    assert emptied(queue) == ["high", "a0", "b0", "c0", "a1", "b1", "a2", "a3", "low"]
    with pytest.raises(LookupError, match="nobody waits"):
        queue.pop()


def test_who_comes_again_waits_for_its_turn():
    """A tenant that was just served stands behind the others, even if it was gone in between."""
    queue = filled(20, 20, (NORMAL, "a", "a0"), (NORMAL, "b", "b0"), (NORMAL, "b", "b1"))
    assert name(queue.pop()) == "a0"
    queue.offer(waiter(NORMAL, "a", "a1"))

    assert emptied(queue) == ["b0", "a1", "b1"]


def test_the_801st_of_a_thousand_is_refused_and_somebody_important_is_not():
    """The seeds' rule: four fifths of the queue, the rest for high priority (S0-CP-05)."""
    queue = FairQueue(1000, 800)
    for _ in range(800):
        assert queue.offer(waiter()) is None
    late = waiter()
    assert queue.offer(late) is late

    for _ in range(200):
        assert queue.offer(waiter(HIGH)) is None
    last = waiter(HIGH)
    assert queue.offer(last) is not last
    assert len(queue) == 1000


def test_the_lowest_priority_goes_first_and_of_it_the_last():
    """And a lower one never takes the place of a higher one."""
    queue = filled(3, 3, (LOW, "", "l0"), (LOW, "", "l1"), (NORMAL, "", "n0"))

    assert name(queue.offer(waiter(NORMAL, "", "n1"))) == "l1"
    assert name(queue.offer(waiter(LOW, "", "l2"))) == "l2"
    assert name(queue.offer(waiter(HIGH, "", "h0"))) == "l0"
    assert name(queue.offer(waiter(HIGH, "", "h1"))) == "n1"
    assert name(queue.offer(waiter(LOW, "", "l3"))) == "l3"
    assert emptied(queue) == ["h0", "h1", "n0"]


def test_a_tenant_with_many_waiting_makes_room_for_one_with_few():
    """Until they have as many; then who comes is refused."""
    queue = filled(4, 4, *((NORMAL, "a", f"a{number}") for number in range(4)))

    assert name(queue.offer(waiter(NORMAL, "b", "b0"))) == "a3"
    assert name(queue.offer(waiter(NORMAL, "b", "b1"))) == "a2"
    assert name(queue.offer(waiter(NORMAL, "b", "b2"))) == "b2"
    assert name(queue.offer(waiter(NORMAL, "a", "a4"))) == "a4"
    assert name(queue.offer(waiter(NORMAL, "c", "c0"))) == "a1"
    assert emptied(queue) == ["a0", "b0", "c0", "b1"]


def test_where_nobody_may_wait_nobody_does():
    """Whatever the priority."""
    queue = FairQueue(0, 0)

    for priority in Priority:
        one = waiter(priority)
        assert queue.offer(one) is one
    assert len(queue) == 0


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(Priority), st.sampled_from("abc")),
        st.just("pop"),
        st.tuples(st.just("leave"), st.integers(0, 30)),
    ),
    max_size=80,
)


@given(OPERATIONS, st.integers(0, 6), st.integers(0, 6))
def test_nobody_is_lost_and_the_bounds_hold(operations, threshold, rest):
    """Whoever came is in the queue, or was served, shed or gone: exactly one of these, whatever happens."""
    queue = FairQueue(threshold + rest, threshold)
    inside: list[Waiter] = []
    for operation in operations:
        if operation == "pop":
            if not inside:
                continue
            served = queue.pop()
            inside.remove(served)
            assert served.priority == min([served.priority, *(each.priority for each in inside)])
        elif operation[0] == "leave":
            if operation[1] < len(inside):
                queue.discard(inside.pop(operation[1]))
        else:
            comes = waiter(*operation)
            before = len(queue)
            loser = queue.offer(comes)
            if loser is not comes:
                inside.append(comes)
            if loser is not None and loser is not comes:
                inside.remove(loser)
                assert loser.priority >= comes.priority
            if loser is not None:
                assert before >= queue.bound(comes.priority)
        assert len(queue) == len(inside) <= threshold + rest
    order = [queue.pop() for _ in range(len(queue))]
    assert Counter(map(id, order)) == Counter(map(id, inside))
    assert [each.priority for each in order] == sorted(each.priority for each in inside)
    for key in {(each.priority, each.tenant) for each in inside}:
        line = [each for each in inside if (each.priority, each.tenant) == key]
        assert [each for each in order if (each.priority, each.tenant) == key] == line


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=60))
def test_while_all_wait_none_is_served_more_than_one_ahead(tenants):
    """Fair, however many one of them sends."""
    queue = FairQueue(100, 100)
    for tenant in tenants:
        queue.offer(waiter(NORMAL, tenant))
    waiting, served = Counter(tenants), Counter()
    while len(queue):
        one = queue.pop()
        served[one.tenant] += 1
        waiting[one.tenant] -= 1
        least = min(served[tenant] for tenant in "abcd" if waiting[tenant] or served[tenant])
        assert all(served[one.tenant] <= least + 1 or not waiting[other] for other in "abcd" if served[other] == least)


@given(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=80),
    st.fixed_dictionaries({tenant: st.integers(1, 5) for tenant in "abcd"}),
)
def test_while_all_wait_each_is_served_by_its_weight(tenants, weights):
    """In every stretch in which all of them wait, none is more than one turn ahead of what its weight gives it."""
    queue = FairQueue(100, 100)
    for tenant in tenants:
        queue.offer(Waiter(NORMAL, tenant, list, weights[tenant]))
    waiting, served = Counter(tenants), Counter()
    everybody = set(tenants)
    while all(waiting[tenant] for tenant in everybody):
        one = queue.pop().tenant
        served[one] += 1
        waiting[one] -= 1
        turns = [served[tenant] / weights[tenant] for tenant in everybody]

        assert max(turns) - min(turns) <= 1


def test_a_turn_that_ends_because_nobody_is_left_is_not_taken_up_by_the_next():
    """Who comes next has a whole turn of its own."""
    queue = FairQueue(10, 10)
    for tenant in "abbb":
        queue.offer(Waiter(NORMAL, tenant, list, 3))
    queue.offer(Waiter(NORMAL, "c", list, 1))

    assert [queue.pop().tenant for _ in range(5)] == list("abbbc")


def test_who_may_have_more_served_may_have_more_waiting():
    """A full queue belongs to tenants by their weights, too."""
    queue = FairQueue(4, 4)
    for _ in range(4):
        queue.offer(Waiter(NORMAL, "gold", list, 4))
    poor = Waiter(NORMAL, "poor", list, 1)
    thrifty = Waiter(NORMAL, "thrifty", list, 4)

    assert queue.offer(poor) is poor
    assert queue.offer(thrifty).tenant == "gold"
