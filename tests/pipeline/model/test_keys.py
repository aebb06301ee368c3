"""Keys: what is the same, and what must never be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.model.keys import authorization_of, canonical, continues, digest, principal_of, request_of
from sluiceway.pipeline.model.session import Caller, Client, Session
from sluiceway.pipeline.protocol.mcp import LATEST, Era
from sluiceway.pipeline.testing import memory_exchange

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("aé\U0001f600"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
)


def shuffled(value: object) -> object:
    """The same value, with the members of its objects in another order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(each) for each in value] if isinstance(value, list) else value


@given(JSON)
def test_the_order_of_members_makes_no_difference(value: object) -> None:
    """Whatever is inside, integers of more than 64 bits included."""
    assert canonical(value) == canonical(shuffled(value))


def test_what_never_changes_an_answer_is_no_part_of_a_request() -> None:
    """Trace context, progress tokens and who asks are left out; capabilities stay."""
    volatile = {
        "progressToken": 7,
        "traceparent": "00-1",
        "io.modelcontextprotocol/clientInfo": {"name": "x"},
        "io.sluiceway/timeoutMs": 5,
        "io.sluiceway/idempotencyKey": "k",
    }
    plain = memory_exchange("tools/call", {"name": "a", "arguments": {"x": 1, "y": 2}})
    noisy = memory_exchange("tools/call", {"arguments": {"y": 2, "x": 1}, "name": "a", "_meta": volatile})
    able = {"io.modelcontextprotocol/clientCapabilities": {"sampling": {}}}
    other = memory_exchange("tools/call", {"name": "a", "arguments": {"x": 1, "y": 2}, "_meta": able})

    assert request_of(plain) == request_of(noisy)
    assert request_of(plain) != request_of(other)


def test_meta_that_is_no_object_makes_another_request() -> None:
    """An upstream may refuse it; who sends none must not get that answer, nor the other way round."""
    params: list[dict[str, object]] = [{"name": "a"}, {"name": "a", "_meta": 5}, {"name": "a", "_meta": None}]

    assert len({request_of(memory_exchange("tools/call", each)) for each in params}) == 3


def test_a_principal_is_never_another_one() -> None:
    """Not in another tenant, not with a name that looks like a session, not if a stage did not say how it knows."""
    session = Session(id="caller:a", source="s")
    era = {"era": Era.MODERN, "version": LATEST}
    exchanges = [memory_exchange("ping", client=Client(**era, session=session))]
    exchanges += [memory_exchange("ping", client=Client(**era, address=address)) for address in ("a", "b", None)]
    for caller in (
        Caller("a", how="bearer"),
        Caller("a", "t", how="bearer"),
        Caller("session:caller:a", how="bearer"),
        Caller("b"),
        Caller("c"),
    ):
        exchanges.append(memory_exchange("ping"))
        exchanges[-1].caller = caller

    assert len({principal_of(exchange) for exchange in exchanges}) == len(exchanges)


@pytest.mark.parametrize("more", [{"scopes": frozenset({"x"})}, {"roles": frozenset({"x"})}, {"how": "mtls"}])
def test_other_rights_are_another_authorization(more: dict[str, object]) -> None:
    """One principal with two tokens that may not do the same has two contexts; a renewed token has the same."""
    one, renewed, other = (memory_exchange("ping") for _ in range(3))
    one.caller = Caller("a", how="bearer", credential="1")
    renewed.caller = Caller("a", how="bearer", credential="2")
    other.caller = Caller("a", **{"how": "bearer", **more})

    assert authorization_of(one) == authorization_of(renewed)
    assert authorization_of(one) != authorization_of(other)


@pytest.mark.parametrize(
    ("params", "expected"),
    [({"name": "a"}, False), ({"name": "a", "inputResponses": {}}, True), ({"name": "a", "requestState": "x"}, True)],
)
def test_a_request_that_takes_up_another_one_is_known(params: dict[str, object], expected: bool) -> None:
    """By either of the two members."""
    assert continues(memory_exchange("tools/call", params)) is expected


def test_a_digest_tells_parts_apart() -> None:
    """`("ab", "c")` is not `("a", "bc")`, and a number is not its text."""
    assert len({digest("ab", "c"), digest("a", "bc"), digest("1"), digest(1), digest(b"1"), digest(None)}) == 6
    assert len(digest("x")) == 32
