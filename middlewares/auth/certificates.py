"""
Client certificates: what a proxy says about one, and the names in it. Pure.

A proxy that ends TLS tells in a header which certificate the client has shown. Three ways are in use: Envoy's
`X-Forwarded-Client-Cert`, RFC 9440 `Client-Cert`, and a URL-encoded PEM (nginx `$ssl_client_escaped_cert`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, final
from urllib.parse import unquote

from attrs import frozen

NameKind = Literal["uri", "dns", "email", "common_name", "subject", "fingerprint"]
"""What of a certificate names its holder."""
Form = Literal["xfcc", "rfc9440", "pem"]
"""How a header carries a certificate."""

MAX_HEADER: Final = 16 * 1024
_PAIR: Final = re.compile(r'\s*([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^";,]*))\s*([;,]|$)')


class MalformedCertificate(ValueError):
    """It is no certificate, or what says so is not in its form."""


@final
@frozen
class Names:
    """The names in a certificate, or in what a proxy says about one."""

    uri: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    email: tuple[str, ...] = ()
    common_name: tuple[str, ...] = ()
    subject: tuple[str, ...] = ()
    """The distinguished name, in the form of RFC 4514."""
    fingerprint: tuple[str, ...] = ()
    """SHA-256 of the DER form, in lower-case hex."""
    ends: float = float("inf")
    """When it is no longer valid, in seconds since 1970; infinite if that is not told."""
    begins: float = float("-inf")

    def of(self, kind: NameKind) -> Sequence[str]:
        """The names of one kind."""
        names: tuple[str, ...] = getattr(self, kind)
        return names


def read_header(value: str, form: Form) -> Names:
    """
    The names in what a trusted proxy says.

    Raises:
        MalformedCertificate: The value is not in this form.
    """
    if len(value) > MAX_HEADER:
        raise MalformedCertificate(f"more than {MAX_HEADER} characters")
    if form == "xfcc":
        return read_xfcc(value)
    if form == "pem":
        return read_pem(unquote(value))
    if len(value) < 2 or value[0] != ":" or value[-1] != ":":
        raise MalformedCertificate("not a byte sequence (RFC 8941 section 3.3.5)")
    try:
        return read_der(base64.b64decode(value[1:-1], validate=True))
    except binascii.Error as error:
        raise MalformedCertificate("not base64") from error


def read_xfcc(value: str) -> Names:
    """
    The last element of an `X-Forwarded-Client-Cert`: the one that the nearest proxy wrote.

    Names that stand twice in one element are all kept. Whatever is not exactly of the form is refused: an earlier
    element comes from further away, and must not be able to swallow the last one.

    Raises:
        MalformedCertificate: It is not of the form.
    """
    element: dict[str, list[str]] = {}
    position, open_ended = 0, True
    while open_ended:
        match = _PAIR.match(value, position)
        if match is None or match.end() == position:
            raise MalformedCertificate("not pairs of the form Key=value")
        name, quoted, plain, separator = match.groups()
        text = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain.strip()
        element.setdefault(name.lower(), []).append(text)
        position, open_ended = match.end(), separator != ""
        if separator == ",":
            element = {}
    certificate = element.get("cert")
    if certificate is not None:
        return read_pem(unquote(certificate[-1]))
    subject = tuple(each for each in element.get("subject", ()) if each)
    return Names(
        uri=tuple(element.get("uri", ())),
        dns=tuple(element.get("dns", ())),
        common_name=tuple(name for each in subject for name in _common_names(each)),
        subject=subject,
        fingerprint=tuple(each.lower() for each in element.get("hash", ())),
    )


def _common_names(subject: str) -> list[str]:
    """The CN of a distinguished name in text, where it is written without escapes."""
    return re.findall(r"(?:^|[,/])\s*CN=([^,/\\+]+)", subject)


def read_pem(text: str) -> Names:
    """
    The names in a certificate in PEM.

    Raises:
        MalformedCertificate: It is none.
    """
    from cryptography.x509 import load_pem_x509_certificate

    try:
        return _names(load_pem_x509_certificate(text.encode()))
    except ValueError as error:
        raise MalformedCertificate("not a certificate in PEM") from error


def read_der(data: bytes) -> Names:
    """
    The names in a certificate in DER.

    Raises:
        MalformedCertificate: It is none.
    """
    from cryptography.x509 import load_der_x509_certificate

    try:
        return _names(load_der_x509_certificate(data))
    except ValueError as error:
        raise MalformedCertificate("not a certificate in DER") from error


def _names(certificate: Any) -> Names:
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import (
        DNSName,
        ExtensionNotFound,
        RFC822Name,
        SubjectAlternativeName,
        UniformResourceIdentifier,
    )
    from cryptography.x509.oid import NameOID

    alternatives: Mapping[str, tuple[str, ...]] = {}
    try:
        found = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
        alternatives = {
            "uri": tuple(found.get_values_for_type(UniformResourceIdentifier)),
            "dns": tuple(found.get_values_for_type(DNSName)),
            "email": tuple(found.get_values_for_type(RFC822Name)),
        }
    except ExtensionNotFound:
        pass  # a subject is all it has
    subject = certificate.subject.rfc4514_string()
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Names(
        **alternatives,
        common_name=tuple(str(each.value) for each in common),
        subject=(subject,) if subject else (),
        fingerprint=(hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),),
        ends=certificate.not_valid_after_utc.timestamp(),
        begins=certificate.not_valid_before_utc.timestamp(),
    )
