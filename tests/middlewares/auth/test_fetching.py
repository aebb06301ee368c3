"""Where a fetch may go, and where not."""

from __future__ import annotations

import pytest
import trio

from sluiceway.middlewares.auth import fetching
from sluiceway.middlewares.auth.fetching import Fetcher, FetchFailed, resolve


def told(**names):
    """A resolver that knows these names."""

    async def getaddrinfo(host, port, **_options):
        await trio.lowlevel.checkpoint()
        if host not in names:
            raise OSError("no such name")
        return [(2, 1, 6, "", (address, port)) for address in names[host]]

    return getaddrinfo


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["::1"], ["::ffff:10.0.0.1"], ["fd00::1"], ["0.0.0.0"],
     ["64:ff9b::a9fe:a9fe"]],
)  # fmt: skip
async def test_names_that_lead_to_private_places_are_not_followed(monkeypatch, addresses):
    """However the address is wrapped."""
    monkeypatch.setattr(trio.socket, "getaddrinfo", told(inside=addresses))
    with pytest.raises(FetchFailed, match="allow_private"):
        await resolve("inside", 443, open_to_all=False)


async def test_of_several_addresses_a_public_one_is_taken(monkeypatch):
    """And what was checked is what is connected to."""
    monkeypatch.setattr(trio.socket, "getaddrinfo", told(both=["10.0.0.1", "93.184.216.34"]))

    assert await resolve("both", 443, open_to_all=False) == "93.184.216.34"
    assert await resolve("both", 443, open_to_all=True) == "10.0.0.1"


async def test_a_name_that_means_nothing(monkeypatch):
    """Is told as that."""
    monkeypatch.setattr(trio.socket, "getaddrinfo", told())
    with pytest.raises(FetchFailed, match="cannot be resolved"):
        await resolve("nowhere", 443, open_to_all=True)


@pytest.mark.parametrize(("allow_private", "reached"), [(True, True), (False, False)])
async def test_private_places_are_reached_if_meant(server, allow_private, reached):
    """By `allow_private`, where the operator has not written the address."""
    async with Fetcher([], allow_private=allow_private, timeout_s=5) as fetcher:
        if reached:
            assert b"keys" in await fetcher.get(f"{server.url}/jwks", 100_000)
        else:
            with pytest.raises(FetchFailed, match="private address"):
                await fetcher.get(f"{server.url}/jwks", 100_000)

    assert server.paths() == (["/jwks"] if reached else [])


async def test_an_address_that_the_operator_wrote_is_meant(server):
    """With its port, and no other."""
    async with Fetcher([server.url], allow_private=False, timeout_s=5) as fetcher:
        assert b"keys" in await fetcher.get(f"{server.url}/jwks", 100_000)
        with pytest.raises(FetchFailed, match="private address"):
            await fetcher.get("http://127.0.0.1:1/jwks", 100_000)


async def test_a_connection_that_breaks_is_a_failure(server):
    """Whichever way."""
    server.broken = True
    async with Fetcher([server.url, "http://127.0.0.1:9"], allow_private=False, timeout_s=5) as fetcher:
        for url in (server.url, "http://127.0.0.1:9/"):
            with pytest.raises(FetchFailed):
                await fetcher.get(url, 10)


def test_nothing_is_imported_before_it_is_needed():
    """`check` does not pay for an HTTP client."""
    assert "httpcore2" not in vars(fetching)
