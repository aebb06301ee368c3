"""The examples of RFC 7515 and RFC 7519, and what has been done to JWT verifiers."""

from __future__ import annotations

import base64
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.middlewares.auth.jwks import ASYMMETRIC, KeySet, parse_jwks
from sluiceway.middlewares.auth.tokens import (
    MAX_TOKEN,
    Rules,
    TokenRejected,
    UnknownKey,
    check_claims,
    expiry_of,
    read_header,
    verify,
)

ISSUER = "https://id.example.com"
GATEWAY = "https://gateway.example.com/mcp"
NOW = 1_800_000_000
RULES = Rules(ISSUER, frozenset(ASYMMETRIC), frozenset({"at+jwt", "jwt"}), 30)
AUDIENCES = frozenset({GATEWAY})


def b64(data):
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def cause(token, keys, rules=RULES, audiences=AUDIENCES, now=NOW):
    with pytest.raises(TokenRejected) as caught:
        verify(token, keys, rules, audiences, now)
    return caught.value.cause


@pytest.fixture(scope="module")
def keys(issuer):
    return parse_jwks(issuer.jwks("rsa", "ec", "ed"))


@pytest.mark.parametrize(
    ("kid", "alg"),
    [("rsa", "RS256"), ("rsa", "RS512"), ("rsa", "PS256"), ("ec", "ES256"), ("ed", "EdDSA"), ("ed", "Ed25519")],
)  # fmt: skip
def test_a_token_in_order_is_accepted(issuer, keys, kid, alg):
    """Whichever algorithm its key is for, and without a warning about the name of EdDSA (RFC 9864)."""
    claims = verify(issuer.token(kid=kid, alg=alg), keys, RULES, AUDIENCES, NOW)

    assert (claims["sub"], expiry_of(claims)) == ("ana", NOW + 600)


# RFC 7515 appendix A. The claims are those of RFC 7519 section 3.1: issuer joe, expired in 2011, and no audience.

A_1_KEY = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
A_1 = (
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
    ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)
A_3_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
A_3 = (
    "eyJhbGciOiJFUzI1NiJ9"
    ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
)
A_5 = "eyJhbGciOiJub25lIn0." + A_1.split(".")[1] + "."


def joes(algorithms):
    return Rules("joe", frozenset(algorithms), frozenset({"jwt"}), 0)


def test_the_signature_of_rfc_7515_a_1_verifies():
    """HMAC; what is refused is that the example names no audience. With another key the signature is bad."""
    keys = parse_jwks(json.dumps({"keys": [{"kty": "oct", "k": A_1_KEY}]}).encode(), symmetric=True)
    wrong = parse_jwks(json.dumps({"keys": [{"kty": "oct", "k": A_1_KEY[::-1]}]}).encode(), symmetric=True)

    assert cause(A_1, keys, joes(["HS256"]), now=1300819380 - 1) == "wrong audience"
    assert cause(A_1, wrong, joes(["HS256"]), now=1300819380 - 1) == "bad signature"


def test_the_signature_of_rfc_7515_a_3_verifies():
    """ECDSA; and with a byte of it changed it does not."""
    keys = parse_jwks(json.dumps({"keys": [A_3_KEY]}).encode())

    assert cause(A_3, keys, joes(["ES256"]), now=1300819380 - 1) == "wrong audience"
    assert cause(A_3[:-3] + "A1Q", keys, joes(["ES256"]), now=1300819380 - 1) == "bad signature"


def test_the_unsecured_token_of_rfc_7519_6_1_is_refused(keys):
    """`alg: none`, in whatever spelling."""
    assert cause(A_5, keys) == "algorithm not allowed"
    for name in ("None", "NONE", "nOnE", ""):
        assert cause(f"{b64({'alg': name})}.{b64({'iss': ISSUER})}.", keys) == "algorithm not allowed"


# The known attacks (RFC 8725).


def test_a_public_key_is_no_secret(issuer, keys):
    """Key confusion: signed with HMAC, the secret being the text of the public RSA key."""
    pem = issuer.keys["rsa"].as_pem(private=False)
    signed = f"{b64({'alg': 'HS256', 'kid': 'rsa'})}.{b64({'iss': ISSUER, 'aud': GATEWAY, 'exp': NOW + 9})}"
    forged = f"{signed}.{b64(hmac.digest(pem, signed.encode(), 'sha256'))}"
    everything = Rules(ISSUER, frozenset({*ASYMMETRIC, "HS256"}), frozenset(), 0)

    assert cause(forged, keys) == "algorithm not allowed"
    assert cause(forged, keys, everything) == "unknown key"


def test_an_algorithm_must_fit_the_key(issuer, keys):
    """And the one the key names, if it names one."""
    assert cause(issuer.token(kid="rsa", header={"kid": "ec"}), keys) == "unknown key"
    only = parse_jwks(json.dumps({"keys": [{**json.loads(issuer.jwks("rsa"))["keys"][0], "alg": "PS256"}]}).encode())

    assert cause(issuer.token(), only) == "unknown key"
    assert verify(issuer.token(alg="PS256"), only, RULES, AUDIENCES, NOW)["sub"] == "ana"


@pytest.mark.parametrize(
    "kid", ["../../../../dev/null", "rsa' OR '1'='1", "RSA", "rsa\u0000", "http://169.254.169.254/", "other", ""]
)
def test_a_key_id_is_a_name_and_nothing_else(issuer, keys, kid):
    """It is compared with the names in the set."""
    assert cause(issuer.token(kid="other", header={"kid": kid}), keys) == "unknown key"


@pytest.mark.parametrize("kid", [1, ["rsa"], {"kid": "rsa"}, "k" * 257, True])
def test_a_key_id_is_a_short_text(issuer, keys, kid):
    """Anything else is refused before keys are looked at."""
    head, rest = issuer.token().split(".", 1)

    assert cause(f"{b64({'alg': 'RS256', 'kid': kid})}.{rest}", keys) == "malformed key id"
    assert head


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
def test_a_token_cannot_bring_its_key(issuer, keys, name):
    """Nor say where to fetch it: signed properly with the attacker's own key."""
    value = {
        "jwk": issuer.keys["other"].as_dict(private=False),
        "jku": "https://evil.example/jwks", "x5u": "https://evil.example/x5u", "x5c": ["MII"],
    }[name]  # fmt: skip
    header = {"alg": "RS256", "kid": "other", name: value}

    assert cause(issuer.sign(header, {"iss": ISSUER, "aud": GATEWAY, "exp": NOW + 9}, "other"), keys) == (
        "key in the header"
    )


@pytest.mark.parametrize(
    "more", [{"crit": ["exp"], "exp": 1}, {"crit": []}, {"b64": False, "crit": ["b64"]}, {"b64": True}]
)
def test_what_a_header_demands_is_refused(issuer, keys, more):
    """RFC 7515 section 4.1.11: we understand no extension (appendix E)."""
    _, rest = issuer.token().split(".", 1)

    assert cause(f"{b64({'alg': 'RS256', 'kid': 'rsa', **more})}.{rest}", keys) == "critical header not understood"


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+JWT", "JWT", None])
def test_a_token_of_the_right_type_is_accepted(issuer, keys, typ):
    """And one that does not say its type."""
    assert verify(issuer.token(header={"typ": typ}), keys, RULES, AUDIENCES, NOW)["sub"] == "ana"


@pytest.mark.parametrize("typ", ["dpop+jwt", "logout+jwt", "", 1, ["JWT"]])
def test_a_token_of_another_type_is_refused(issuer, keys, typ):
    """RFC 8725 section 3.11."""
    _, rest = issuer.token().split(".", 1)

    assert cause(f"{b64({'alg': 'RS256', 'kid': 'rsa', 'typ': typ})}.{rest}", keys) == "type not allowed"


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"iss": "https://id.example.com/"}, "wrong issuer"),
        ({"iss": "https://evil.example"}, "wrong issuer"),
        ({"iss": None}, "wrong issuer"),
        ({"iss": [ISSUER]}, "wrong issuer"),
        ({"aud": "https://other.example/mcp"}, "wrong audience"),
        ({"aud": GATEWAY + "/"}, "wrong audience"),
        ({"aud": []}, "wrong audience"),
        ({"aud": ""}, "wrong audience"),
        ({"aud": None}, "wrong audience"),
        ({"aud": {"a": GATEWAY}}, "wrong audience"),
        ({"aud": [1, GATEWAY]}, "wrong audience"),
        ({"exp": None}, "no expiry"),
        ({"exp": NOW - 30}, "expired"),
        ({"exp": "never"}, "no expiry"),
        ({"exp": True}, "no expiry"),
        ({"nbf": NOW + 31}, "not valid yet"),
        ({"nbf": "soon"}, "not valid yet"),
        ({"iat": NOW + 31}, "issued in the future"),
        ({"sub": 7}, "malformed claims"),
    ],
)
def test_a_token_for_somebody_else_or_another_time_is_refused(issuer, keys, claims, expected):
    """Each by its own cause."""
    assert cause(issuer.token(**claims), keys) == expected


@pytest.mark.parametrize(
    "claims",
    [{"exp": NOW - 29}, {"nbf": NOW + 30}, {"iat": NOW + 30}, {"aud": ["x", GATEWAY]}, {"nbf": None, "iat": None}],
)
def test_clocks_may_differ_a_little(issuer, keys, claims):
    """By the leeway, and not more; and an audience may be one of several."""
    assert verify(issuer.token(**claims), keys, RULES, AUDIENCES, NOW)["sub"] == "ana"


def test_any_of_our_audiences_will_do(issuer, keys):
    """For issuers that do not know the gateway's address."""
    assert verify(issuer.token(aud="sluiceway"), keys, RULES, AUDIENCES | {"sluiceway"}, NOW)["sub"] == "ana"


def test_a_claim_that_stands_twice_is_refused(issuer, keys):
    """Parsers would disagree about which one counts; so in the header."""
    body = f'{{"iss":"{ISSUER}","aud":"{GATEWAY}","exp":{NOW + 9},"sub":"ana","sub":"root"}}'.encode()
    twice = issuer.sign({"alg": "RS256", "kid": "rsa"}, body, "rsa")
    _, rest = issuer.token().split(".", 1)

    assert cause(twice, keys) == "not a JWT"
    assert cause(b64(b'{"alg":"none","alg":"RS256"}') + "." + rest, keys) == "not a JWT"


@pytest.mark.parametrize("payload", [b"[]", b'"text"', b"", b"{", b"\xff", b"[" * 5000])
def test_a_payload_that_is_no_object_is_refused(issuer, keys, payload):
    """However well it is signed."""
    assert cause(issuer.sign({"alg": "RS256", "kid": "rsa"}, payload, "rsa"), keys) == "not a JWT"


def test_a_changed_token_is_refused(issuer, keys):
    """Claims of one, signature of another; a cut signature; a signature of a key that is not in the set."""
    ana, root = issuer.token(), issuer.token(sub="root")
    head, body, signature = root.split(".")

    assert cause(f"{head}.{body}.{ana.split('.')[2]}", keys) == "bad signature"
    assert cause(f"{head}.{body}.{signature[:-4]}", keys) == "bad signature"
    assert cause(f"{head}.{body}.", keys) == "bad signature"
    assert cause(issuer.token(kid="other", header={"kid": "rsa"}), keys) == "bad signature"


def test_a_token_that_names_no_key_is_tried_with_those_that_fit(issuer, keys):
    """And if none does, there may be a newer one."""
    assert verify(issuer.token(header={"kid": None}), keys, RULES, AUDIENCES, NOW)["sub"] == "ana"
    with pytest.raises(UnknownKey, match="bad signature"):
        verify(issuer.token(kid="other", header={"kid": None}), keys, RULES, AUDIENCES, NOW)
    with pytest.raises(UnknownKey, match="unknown key"):
        verify(issuer.token(), KeySet(), RULES, AUDIENCES, NOW)


@pytest.mark.parametrize(
    "token",
    [
        "", ".", "..", "a.b", "a.b.c.d", "a.b.c.d.e", "e30=.e30.e30", "\u00e4.b.c", f"{b64([])}.a.b",
        "a+b.c.d", f"{b64({'alg': 'RS256'})}=.a.b", "e" * (MAX_TOKEN + 1) + ".a.b", f"{b64(b'[' * 300)}.a.b",
    ],
)  # fmt: skip
def test_what_is_no_token_is_refused(keys, token):
    """With the same cause."""
    assert cause(token, keys) == "not a JWT"


@given(st.text(max_size=80))
def test_rubbish_is_refused_and_nothing_else(text):
    """No other exception comes out, whatever is sent."""
    with pytest.raises(TokenRejected):
        read_header(text, RULES)


HEADER = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "b64"]),
    st.none() | st.integers() | st.text() | st.sampled_from(["RS256", "none"]) | st.lists(st.text(max_size=3)),
)


@given(HEADER)
def test_a_header_decides_nothing(header):
    """Whatever it says: it is refused, or names one of the allowed algorithms."""
    try:
        found = read_header(f"{b64(header)}.e30.e30", RULES)
    except TokenRejected:
        return
    assert found.algorithm in ASYMMETRIC


def test_an_introspection_response_need_not_name_issuer_and_end():
    """But the audience; and what it names must be right."""

    def check(**claims):
        check_claims({"aud": GATEWAY, **claims}, RULES, AUDIENCES, NOW, complete=False)

    check()
    check(iss=ISSUER, exp=NOW + 1)
    for claims, expected in (
        ({"aud": None}, "wrong audience"), ({"aud": "x"}, "wrong audience"), ({"iss": "x"}, "wrong issuer"),
        ({"exp": NOW - 31}, "expired"), ({"nbf": NOW + 40}, "not valid yet"),
    ):  # fmt: skip
        with pytest.raises(TokenRejected, match=expected):
            check(**claims)
