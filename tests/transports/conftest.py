"""Certificates for tests, made by authorities of their own."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from attrs import define
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
FAR_AWAY = LONG_AGO + datetime.timedelta(days=36500)


@define(eq=False, slots=False)
class Authority:
    """Issues certificates into files of a folder."""

    folder: Path
    name: str = "authority"
    _serial: int = 1

    def __attrs_post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(self.name, self._key, (), FAR_AWAY, authority=True)
        self.file = self.folder / f"{self.name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str = "localhost", *, ends: datetime.datetime = FAR_AWAY, password: bytes | None = None
    ) -> tuple[Path, Path]:
        """A certificate and its key, each in a file of its own."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: tuple[x509.GeneralName, ...] = (
            x509.DNSName(name),
            x509.UniformResourceIdentifier(f"spiffe://example.org/{name}"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        )
        certificate = self._sign(name, key, names, ends)
        encryption = (
            serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
        )
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        stem = f"{self.name}-{name}-{self._serial}"
        files = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(pem)
        return files

    def trusted(self, shown: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """A client that trusts this authority alone, and shows a certificate if it has one."""
        context = ssl.create_default_context(cafile=str(self.file))
        if shown is not None:
            context.load_cert_chain(*shown)
        return context

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        names: tuple[x509.GeneralName, ...],
        ends: datetime.datetime,
        *,
        authority: bool = False,
    ) -> x509.Certificate:
        subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in (name, self.name))
        self._serial += 1
        builder = (
            x509.CertificateBuilder(issuer, subject, key.public_key(), self._serial, LONG_AGO, ends)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        if authority:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One that clients and servers of the tests may trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")
