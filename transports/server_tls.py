"""
TLS where the gateway listens: its options, its certificate, and a new certificate without a restart.

What is in the files is looked at every few seconds. A certificate that can be used serves the connections that come
from then on, and those that are open go on with what they have; one that cannot be used changes nothing but the log.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.options import DAY, SECOND, ConfigPath, Duration, Secret, option

LOOK_EVERY_S: Final = 5.0
"""Seconds between two looks at the files."""
_WARN_S: Final = 7 * DAY
"""The log warns of a certificate that ends sooner than this."""
_VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
_VERIFY: Final = {"off": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


@final
@frozen
class ServerTlsConfig:
    """How the source shows who it is, and whom it lets in."""

    cert: ConfigPath = option(
        doc="File of the certificate in PEM, followed by those of its issuers. A new one is used as soon as it is "
        "there; connections that are open stay.",
        example="./tls/gateway.pem",
    )
    key: ConfigPath | Secret | None = option(
        None, doc="Its private key in PEM: a file, or a secret. In the file of `cert` when absent.",
        example="./tls/gateway.key",
    )  # fmt: skip
    key_password: Secret | None = option(
        None, doc="What the private key is encrypted with.", example={"from_env": "TLS_KEY_PASSWORD"}
    )
    client_certs: Literal["off", "optional", "required"] = option(
        "off",
        doc="Whether clients are asked for a certificate of their own. With `optional`, who has none is let in as "
        "well. Who it stands for is for the stage `auth_mtls` to say.",
        example="required",
    )
    client_ca: ConfigPath | None = option(
        None, doc="File of the authorities, in PEM, one of which must have issued a client's certificate.",
        example="./tls/clients-ca.pem",
    )  # fmt: skip
    min_version: Literal["TLSv1.2", "TLSv1.3"] = option(
        "TLSv1.2", doc="The oldest version of TLS that is spoken.", example="TLSv1.3"
    )
    handshake_timeout: Duration = option(
        Duration(10 * SECOND), gt=0, doc="Time a client gets for the handshake.", example="10s"
    )
    max_handshakes: int = option(
        256, ge=1,
        doc="Handshakes at the same time; for a further one, the one that has taken longest is broken off.",
        example=256,
    )  # fmt: skip

    def __attrs_post_init__(self) -> None:
        if self.client_certs != "off" and self.client_ca is None:
            raise ValueError(f"tls.client_certs is {self.client_certs}; name who issues them with tls.client_ca")
        if self.client_certs == "off" and self.client_ca is not None:
            raise ValueError("tls.client_ca without tls.client_certs asks nobody; set client_certs: required")


class UnusableCertificate(OSError):
    """A file is missing or not what it should be; the text names it and says what to do."""


@final
class Certificates:
    """
    What new connections are served with.

    Args:
        config: The options.
        log: A structured logger.
        now: The date, in seconds since 1970.
        protocols: What is spoken, for ALPN, best first.
    """

    def __init__(
        self, config: ServerTlsConfig, log: Any, now: Callable[[], float], protocols: tuple[str, ...] = ("http/1.1",)
    ) -> None:
        self._config = config
        self._log = log
        self._now = now
        self._protocols = list(protocols)
        self._seen: object = None
        self._context: ssl.SSLContext | None = None
        self.ends_at = 0.0
        """When the certificate in use ends, in seconds since 1970."""
        self.refused = 0
        """New certificates that could not be used."""

    @property
    def context(self) -> ssl.SSLContext:
        """For the next connection. `load` comes first."""
        assert self._context is not None
        return self._context

    def load(self) -> None:
        """
        Take what is in the files. Blocks for the time it takes to read them.

        Raises:
            UnusableCertificate: What was used before, if anything, stays.
        """
        self._seen = self._look()
        self._context, self.ends_at = self._make()

    def refresh(self) -> bool:
        """Take what is in the files if it is something else than at the last look; whether it is used now."""
        if self._look() == self._seen:
            return False
        try:
            self.load()
        except UnusableCertificate as error:
            self.refused += 1
            self._log.error("the new certificate cannot be used; the old one stays", reason=str(error))
            return False
        self._log.info("certificate renewed", days=round((self.ends_at - self._now()) / DAY))
        return True

    async def watch(self) -> None:
        """Look after the files, until cancelled."""
        warned = 0.0
        while True:
            if self.ends_at - self._now() < _WARN_S and warned != self.ends_at:
                warned = self.ends_at
                self._log.warning("the certificate ends soon", days=round((self.ends_at - self._now()) / DAY, 1))
            await trio.sleep(LOOK_EVERY_S)
            self.refresh()

    def _make(self) -> tuple[ssl.SSLContext, float]:
        config = self._config
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[config.min_version]
        context.options |= ssl.OP_NO_RENEGOTIATION  # a client could keep us busy with it
        context.set_alpn_protocols(self._protocols)
        context.verify_mode = _VERIFY[config.client_certs]
        with _blaming("tls.cert", config.cert), _key_file(config.key) as key:
            context.load_cert_chain(config.cert, key, self._password)
        if config.client_ca is not None:
            with _blaming("tls.client_ca", config.client_ca):
                context.load_verify_locations(config.client_ca)
        with _blaming("tls.cert", config.cert):
            return context, _end_of(config.cert)

    def _password(self) -> str:
        """What OpenSSL asks for if the key is encrypted; without it, it would ask at the terminal."""
        if self._config.key_password is None:
            raise UnusableCertificate("the private key is encrypted; name its password with tls.key_password")
        return _resolved("tls.key_password", self._config.key_password)

    def _look(self) -> object:
        config = self._config
        files = [each.from_file if isinstance(each, Secret) else each
                 for each in (config.cert, config.key, config.key_password, config.client_ca)]  # fmt: skip
        return [None if path is None else _print_of(path) for path in files]


@contextmanager
def _key_file(key: Path | Secret | None) -> Iterator[str | None]:
    """A key as a file, which is all that OpenSSL takes; one that is a secret is nowhere but in memory if possible."""
    if not isinstance(key, Secret):
        yield None if key is None else str(key)
        return
    text = _resolved("tls.key", key).encode()
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("key")
        try:
            os.write(fd, text)
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)
    else:
        with tempfile.NamedTemporaryFile() as file:  # only we can read it, and it is gone in a moment
            file.write(text)
            file.flush()
            yield file.name


@contextmanager
def _blaming(name: str, path: Path) -> Iterator[None]:
    try:
        yield
    except UnusableCertificate:
        raise
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UnusableCertificate(f"{name} {path}: tls.key is not the key of this certificate") from error
        why = (error.reason or str(error)).lower().replace("_", " ")
        raise UnusableCertificate(f"{name} {path} or its key is not what it should be, PEM: {why}") from error
    except OSError as error:
        raise UnusableCertificate(f"{name} {path} or its key cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # what one library takes and the other does not, or a password without end
        raise UnusableCertificate(f"{name} {path} or its key cannot be used: {error}") from error


def _resolved(name: str, secret: Secret) -> str:
    try:
        return secret.resolve()
    except LookupError as error:
        raise UnusableCertificate(f"{name}: {error}") from error


def _print_of(path: Path) -> object:
    with suppress(OSError):
        status = path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns
    return None


def _end_of(path: Path) -> float:
    from cryptography.x509 import load_pem_x509_certificates

    return load_pem_x509_certificates(path.read_bytes())[0].not_valid_after_utc.timestamp()
