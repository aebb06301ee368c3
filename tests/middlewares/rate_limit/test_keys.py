"""What is counted together, and what is not."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sluiceway.middlewares.rate_limit.keys import bounded, key_of
from sluiceway.pipeline.model.session import ANONYMOUS, Caller, Session
from sluiceway.pipeline.testing import memory_exchange

ANA = Caller("ana", "acme", how="bearer")


def exchange(method="tools/call", name="echo", *, caller=ANONYMOUS, address=None, session=None, source="public"):
    """An exchange of a method, about a tool, from somebody, somewhere."""
    made = memory_exchange(method, {"name": name}, caller=caller)
    made.source = source
    made.client = replace(made.client, address=address, session=session)
    return made


def together(per, one, other, **options):
    """Whether two exchanges are counted together."""
    key = key_of(per, **options)
    return key(one) == key(other)


def test_callers_are_told_apart_by_subject_and_tenant():
    """The same name in another tenant is somebody else; the same one on another session or method is not."""
    ana = exchange(caller=ANA)

    assert together(["caller"], ana, exchange("tools/list", caller=ANA, address="192.0.2.9"))
    assert not together(["caller"], ana, exchange(caller=evolve(ANA, subject="bob")))
    assert not together(["caller"], ana, exchange(caller=evolve(ANA, tenant="globex")))
    assert not together(["caller"], ana, exchange(caller=evolve(ANA, tenant=None)))
    assert not together(["caller"], exchange(caller=Caller("ana")), exchange(caller=Caller("bob")))


def test_nobody_is_who_has_an_address():
    """Sessions do not make an anonymous caller somebody else, for they cost nothing; where no address is, they do."""
    one, other = (Session(id=name, source="public") for name in ("one", "other"))

    assert together(
        ["caller"], exchange(address="192.0.2.1", session=one), exchange(address="192.0.2.1", session=other)
    )
    assert not together(["caller"], exchange(address="192.0.2.1"), exchange(address="192.0.2.2"))
    assert not together(["caller"], exchange(session=one), exchange(session=other))
    assert together(["caller"], exchange(), exchange())
    named = Caller(subject="192.0.2.1", how="bearer")
    assert not together(["caller"], exchange(address="192.0.2.1"), exchange(caller=named))


def test_each_part_counts_what_it_names():
    """And nothing else."""
    here = exchange(caller=ANA, address="192.0.2.1")
    changes = {
        "tenant": exchange(caller=evolve(ANA, tenant="globex"), address="192.0.2.1"),
        "method": exchange("prompts/get", caller=ANA, address="192.0.2.1"),
        "target": exchange(name="other", caller=ANA, address="192.0.2.1"),
        "source": exchange(caller=ANA, address="192.0.2.1", source="agents"),
        "address": exchange(caller=ANA, address="192.0.2.2"),
    }
    apart = {
        part: [name for name, changed in changes.items() if not together([part], here, changed)]
        for part in ("all", "tenant", "method", "target", "source", "address")
    }

    assert apart == {
        "all": [],
        "tenant": ["tenant"],
        "method": ["method"],
        "target": ["method", "target"],
        "source": ["source"],
        "address": ["address"],
    }


def test_an_address_behind_a_trusted_proxy_is_the_clients():
    """And a subscriber of IPv6 is one sender, whatever address it takes."""
    proxied = exchange(address="10.0.0.1")
    proxied.client = replace(proxied.client, headers={"x-forwarded-for": "192.0.2.1"})

    assert together(["address"], proxied, exchange(address="192.0.2.1"), trusted_proxies=["10.0.0.0/8"])
    assert not together(["address"], proxied, exchange(address="192.0.2.1"))
    one, other = exchange(address="2001:db8::1"), exchange(address="2001:db8::ffff:1")
    assert together(["address"], one, other)
    assert not together(["address"], one, other, ipv6_prefix=128)


@given(st.lists(st.text(alphabet="a1:=@ ", max_size=6), min_size=6, max_size=6))
def test_no_two_different_things_make_one_key(texts):
    """However the names are chosen."""
    key = key_of(["caller", "target", "source"])
    seen = {}
    for tenant, subject, name in (texts[:3], texts[3:], texts[1:4], texts[2:5]):
        made = exchange(name=name, caller=Caller(subject, tenant, how="bearer"), source=subject)

        assert seen.setdefault(key(made), (tenant, subject, name)) == (tenant, subject, name)


def test_a_long_name_makes_no_long_key():
    """A client cannot fill the memory with names; two long ones are still two."""
    key = key_of(["target"])
    one, other = (bounded(key(exchange(name="x" * 1_000_000 + end))) for end in "ab")

    assert len(one) == len(other) == 33
    assert one != other
    assert bounded("x" * 120) == "x" * 120


@pytest.mark.parametrize("per", [[], ["caller", "caller"]])
def test_what_cannot_be_counted_is_an_error(per):
    """Nothing, or the same twice."""
    with pytest.raises(ValueError, match="per names each thing to count by once"):
        key_of(per)
