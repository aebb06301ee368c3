"""Certificates: from the TLS layer, from a proxy that is trusted, and from nobody else."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sluiceway.middlewares.auth.certificates import MalformedCertificate, read_header, read_xfcc
from sluiceway.middlewares.auth_mtls import AuthMtls, Holder
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import MalformedCredentials, Unauthenticated
from sluiceway.pipeline.testing import check_middleware
from sluiceway.pipeline.testing.exchanges import MODERN_CLIENT

NOW = 1_800_000_000
AGENT = "spiffe://example.com/agents/a"
XFCC = "x-forwarded-client-cert"


def make(uris=(AGENT,), common_name="agent a", begins=NOW - 60, ends=NOW + 60):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime.fromtimestamp(0, UTC) + timedelta(seconds=begins))
        .not_valid_after(datetime.fromtimestamp(0, UTC) + timedelta(seconds=ends))
    )
    if uris:
        names = [*map(x509.UniformResourceIdentifier, uris), x509.DNSName("a.example.com"), x509.RFC822Name("a@b.c")]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256())


CERTIFICATE = make()
PEM = CERTIFICATE.public_bytes(Encoding.PEM).decode()
FINGERPRINT = CERTIFICATE.fingerprint(hashes.SHA256()).hex()
AGENTS = Holder(
    name=("spiffe://example.com/agents/*",), tenant="acme", tenants=("globex",), roles=("agent",), scopes=("s",)
)
CALLER = Caller(AGENT, "acme", frozenset({"s"}), "mtls", frozenset({"agent"}), frozenset({"globex"}), FINGERPRINT[:16])


def service(bench, sink, **options):
    context = bench.context("auth")
    context.now = lambda: NOW
    return bench.service(sink, AuthMtls(AuthMtls.Config(**{"holders": (AGENTS,)} | options), context))


def exchange(bench, *, certificate=None, address="192.0.2.1", transport="http", **headers):
    made = bench.exchange(headers={k.replace("_", "-"): v for k, v in headers.items()})
    made.client = replace(made.client, certificate=certificate, address=address, transport=transport)
    return made


async def test_a_certificate_of_the_tls_layer_establishes_its_caller(bench, answer):
    """Its name is the subject; the decision names its fingerprint."""
    passing = exchange(bench, certificate=PEM)
    await service(bench, answer)(passing)

    assert passing.caller == CALLER
    assert [(d.outcome, d.cause) for d in passing.link.decisions] == [("allow", FINGERPRINT[:16])]


@pytest.mark.parametrize(
    ("kind", "pattern", "subject"),
    [
        ("uri", "spiffe://*", AGENT),
        ("dns", "*.example.com", "a.example.com"),
        ("email", "a@b.c", "a@b.c"),
        ("common_name", "agent *", "agent a"),
        ("subject", "CN=agent a", "CN=agent a"),
        ("fingerprint", FINGERPRINT, FINGERPRINT),
    ],
    ids=["uri", "dns", "email", "common_name", "subject", "fingerprint"],  # the fingerprint is another one in each run
)
async def test_the_subject_is_the_name_that_was_chosen(bench, answer, kind, pattern, subject):
    """Of every kind, with a prefix if there is one."""
    passing = exchange(bench, certificate=PEM)
    await service(bench, answer, name_from=kind, holders=(Holder(name=(pattern,)),), prefix="cert:")(passing)

    assert passing.caller.subject == f"cert:{subject}"


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("xfcc", f'By=spiffe://p;Hash={FINGERPRINT.upper()};Subject="CN=agent a";URI={AGENT}'),
        ("xfcc", f'By=p;Cert="{quote(PEM)}"'),
        ("xfcc", f'Subject="CN=evil";URI=spiffe://evil , Hash={FINGERPRINT};URI={AGENT}'),
        ("pem", quote(PEM)),
        ("rfc9440", f":{base64.b64encode(CERTIFICATE.public_bytes(Encoding.DER)).decode()}:"),
    ],
)
async def test_a_trusted_proxy_tells_the_certificate(bench, answer, form, value):
    """In each form; the header goes no further."""
    seen = []

    async def sink(passing):
        seen.append(dict(passing.client.headers))
        return await answer(passing)

    options = {"header": "X-Forwarded-Client-Cert", "form": form, "trusted_proxies": ("10.0.0.0/8", "::1")}
    passing = exchange(bench, address="10.1.2.3", x_forwarded_client_cert=value, accept="a")
    await service(bench, sink, **options)(passing)

    assert passing.caller == CALLER
    assert seen == [{"accept": "a"}]


@pytest.mark.parametrize(
    ("proxies", "address", "transport", "trusted"),
    [
        (("10.0.0.0/8",), "10.0.0.1", "http", True),
        (("10.0.0.0/8",), "::ffff:10.0.0.1", "http", True),
        (("fe80::/10",), "fe80::1%eth0", "http", True),
        (("10.0.0.0/8",), "192.0.2.1", "http", False),
        (("10.0.0.0/8",), "not an address", "http", False),
        (("10.0.0.0/8",), None, "http", False),
        (("unix",), None, "http", True),
        (("unix",), None, "memory", False),
        (("unix",), "10.0.0.1", "http", False),
    ],
)
async def test_from_anybody_else_the_header_is_nothing(bench, answer, proxies, address, transport, trusted):
    """What counts is where the connection comes from, and nothing that a header says about it."""
    options = {"header": XFCC, "trusted_proxies": proxies}
    passing = exchange(
        bench, address=address, transport=transport, x_forwarded_client_cert=f"URI={AGENT}", x_forwarded_for="10.0.0.1"
    )
    if trusted:
        await service(bench, answer, **options)(passing)
        assert passing.caller.subject == AGENT
    else:
        with pytest.raises(Unauthenticated, match="a client certificate is needed"):
            await service(bench, answer, **options)(passing)


async def test_a_proxys_own_certificate_is_nobodys(bench, answer):
    """It shows one to us, and tells of none: its client has shown none."""
    options = {"header": XFCC, "trusted_proxies": ("10.0.0.0/8",)}
    with pytest.raises(Unauthenticated):
        await service(bench, answer, **options)(exchange(bench, address="10.0.0.1", certificate=PEM))


@pytest.mark.parametrize(
    ("certificate", "cause"),
    [
        (make(uris=("spiffe://example.com/other",)), "unknown name"),
        (make(uris=(AGENT, AGENT + "b")), "no single name"),
        (make(uris=()), "no single name"),
        (make(ends=NOW), "expired"),
        (make(begins=NOW + 1), "expired"),
    ],
)
async def test_a_certificate_that_nobody_knows_is_refused(bench, answer, certificate, cause):
    """Default deny; two names of a kind are none; and it must be valid now."""
    passing = exchange(bench, certificate=certificate.public_bytes(Encoding.PEM).decode())
    with pytest.raises(Unauthenticated) as caught:
        await service(bench, answer)(passing)

    assert caught.value.challenge == 'ClientCertificate realm="sluiceway"'
    assert [(d.outcome, d.cause) for d in passing.link.decisions] == [("refuse", cause)]


@pytest.mark.parametrize(
    "value",
    ["", "x", "URI", f'URI="{AGENT}', f'Subject="a" URI={AGENT}', f'X="a, URI={AGENT};Subject="b"', "URI=a;;", "URI=a,",
     'Cert="rubbish"', "URI=" + "a" * 20_000],
)  # fmt: skip
async def test_what_is_not_in_its_form_is_refused(bench, answer, value):
    """An earlier element, from further away, cannot swallow the last one by an open quote."""
    options = {"header": XFCC, "trusted_proxies": ("10.0.0.0/8",)}
    with pytest.raises(MalformedCredentials):
        await service(bench, answer, **options)(exchange(bench, address="10.0.0.1", x_forwarded_client_cert=value))


@pytest.mark.parametrize(
    ("form", "value"), [("rfc9440", "MII="), ("rfc9440", ":!:"), ("rfc9440", ":AAAA:"), ("pem", "%00")]
)
def test_other_forms_are_as_strict(form, value):
    """Whatever they carry."""
    with pytest.raises(MalformedCertificate):
        read_header(value, form)


@given(st.text(alphabet='aUSR=",;\\ I', max_size=40) | st.text(max_size=60))
def test_whatever_somebody_further_away_wrote_the_last_element_counts_or_nothing(text):
    """The attacker's part stands in front of a comma; the proxy's own element is never lost in it."""
    try:
        names = read_xfcc(f'{text}, By=p;Subject="CN=real";URI=spiffe://real')
    except MalformedCertificate:
        return
    assert (names.uri, names.common_name) == (("spiffe://real",), ("real",))


async def test_names_are_remembered_within_a_bound(bench, answer, monkeypatch):
    """Reading a certificate costs a hundred microseconds."""
    monkeypatch.setattr("sluiceway.middlewares.auth_mtls._MAX_REMEMBERED", 3)
    context = bench.context("auth")
    options = {"header": XFCC, "trusted_proxies": ("10.0.0.0/8",), "holders": (AGENTS,)}
    stage = AuthMtls(AuthMtls.Config(**options), context)
    serve = bench.service(answer, stage)
    for n in range(9):
        await serve(exchange(bench, address="10.0.0.1", x_forwarded_client_cert=f"Hash={n};URI={AGENT}"))

    assert len(stage._remembered) == 3


async def test_an_optional_stage_leaves_who_shows_none_to_the_next(bench, answer):
    """A wrong one it refuses."""
    passing = exchange(bench)
    await service(bench, answer, optional=True)(passing)
    with pytest.raises(MalformedCredentials):
        await service(bench, answer, optional=True)(exchange(bench, certificate="rubbish"))

    assert passing.caller.how == "none"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"holders": ()}, "name at least one"),
        ({"header": XFCC}, "without the other"),
        ({"trusted_proxies": ("10.0.0.1",)}, "without the other"),
        ({"header": XFCC, "trusted_proxies": ("proxy.internal",)}, "write 10.0.0.0/8"),
        ({"header": XFCC, "trusted_proxies": ("10.0.0.1/8",)}, "host bits set"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, complaint):
    """When the configuration is read."""
    with pytest.raises(ValueError, match=complaint):
        AuthMtls.Config(**{"holders": (AGENTS,)} | options)


def test_it_keeps_the_contract_of_stages():
    """With a client that has shown a certificate."""
    pem = make(begins=0, ends=4_000_000_000).public_bytes(Encoding.PEM).decode()
    holders = [{"name": ["spiffe://*"]}]

    check_middleware(AuthMtls, {"holders": holders}, client=replace(MODERN_CLIENT, certificate=pem))
    check_middleware(AuthMtls, {"holders": holders, "optional": True})
