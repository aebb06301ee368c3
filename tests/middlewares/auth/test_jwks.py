"""Which keys of a set are taken."""

from __future__ import annotations

import json

import pytest
from joserfc.errors import SecurityWarning
from joserfc.jwk import OKPKey, RSAKey

from sluiceway.middlewares.auth.jwks import MAX_KEYS, parse_jwks


def members(issuer):
    return {each["kid"]: each for each in json.loads(issuer.jwks())["keys"]}


def kids(*given, **options):
    return [key.kid for key in parse_jwks(json.dumps({"keys": given}).encode(), **options).keys]


def test_keys_for_signatures_are_taken(issuer):
    """With their names; others are left out (RFC 7517 section 5)."""
    rsa, ec = members(issuer)["rsa"], members(issuer)["ec"]
    with pytest.warns(SecurityWarning):
        small = RSAKey.generate_key(1024, {"kid": "small"}).as_dict(private=False)
    agreement = OKPKey.generate_key("X25519", {"kid": "agreement"}).as_dict(private=False)

    assert kids(
        rsa, {**ec, "use": "enc"}, {**ec, "key_ops": ["sign"]}, {**ec, "key_ops": ["verify"], "kid": "v"}, small, 7,
        {"kty": "new"}, {"kty": "RSA", "n": "!"}, {"kty": "oct", "k": "c2VjcmV0"}, {**ec, "crv": "P-0"},
        {**ec, "kid": 1},
        agreement,
    ) == ["rsa", "v", "agreement"]  # fmt: skip


def test_a_key_for_agreement_fits_no_algorithm(issuer):
    """X25519 is no curve for signatures."""
    agreement = OKPKey.generate_key("X25519", {"kid": "x"}).as_dict(private=False)
    keys = parse_jwks(json.dumps({"keys": [agreement, members(issuer)["ed"]]}).encode())

    assert [key.kid for key in keys.candidates("EdDSA", None)] == ["ed"]
    assert keys.candidates("ES256", "x") == []


def test_symmetric_keys_are_taken_by_themselves_only(issuer):
    """And only where they are asked for."""
    shared = {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "s"}

    assert kids(members(issuer)["rsa"], shared, symmetric=True) == ["s"]
    with pytest.raises(ValueError, match="no key for the signatures"):
        kids(shared)


def test_a_token_that_names_no_key_is_tried_with_a_few(issuer):
    """Not with a hundred: each costs fifty microseconds."""
    rsa = members(issuer)["rsa"]
    keys = parse_jwks(json.dumps({"keys": [{**rsa, "kid": f"k{n}"} for n in range(50)]}).encode())

    assert len(keys.candidates("RS256", None)) == 8
    assert [key.kid for key in keys.candidates("RS256", "k40")] == ["k40"]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"keys": {}}', b"\xff", b'{"keys":[],"keys":[]}'])
def test_what_is_no_set_is_refused(data):
    """Duplicate names included."""
    with pytest.raises(ValueError, match="key set"):
        parse_jwks(data)


def test_a_set_is_bounded(issuer):
    """In keys; bytes are bounded where they are fetched."""
    with pytest.raises(ValueError, match=f"at most {MAX_KEYS}"):
        kids(*[members(issuer)["rsa"]] * (MAX_KEYS + 1))
