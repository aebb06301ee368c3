"""The options, as far as they can be wrong by themselves."""

from __future__ import annotations

import attrs
import pytest

from sluiceway.pipeline.model.options import option_info
from sluiceway.transports.http_source.config import HttpConfig


@pytest.mark.parametrize(
    "bind", ["127.0.0.1:8080", "[::1]:0", "localhost:80", "unix:/run/x.sock", ("127.0.0.1:0", "[::1]:0")]
)
def test_addresses(bind):
    """One or several."""
    assert isinstance(HttpConfig(bind=bind).binds, tuple)


@pytest.mark.parametrize("bind", ["", "8080", "localhost", "::1:80", "a:b", "http://a:80", "127.0.0.1:65536", ()])
def test_addresses_that_are_none(bind):
    """The message shows what one looks like."""
    with pytest.raises(ValueError, match=r"bind: .*(host:port|127\.0\.0\.1:8080)"):
        HttpConfig(bind=bind)


@pytest.mark.parametrize("path", ["", "mcp", "/mcp/", "/a b", "/a?b", "/readyz", "/healthz", "/%61"])
def test_paths_that_are_none(path):
    """Absolute, plain, and not a health check's."""
    with pytest.raises(ValueError, match="path: "):
        HttpConfig(path=path)


def test_the_defaults_are_safe():
    """Loopback only, nothing optional on (D-32)."""
    config = HttpConfig()

    assert ("127.0.0.1:8080", "/mcp", False, (), ()) == (
        config.bind, config.path, config.aliases, config.allowed_hosts, config.allowed_origins,
    )  # fmt: skip


@pytest.mark.parametrize("field", attrs.fields(HttpConfig), ids=lambda field: field.name)
def test_every_option_says_what_it_does(field):
    """A sentence for the reference."""
    assert option_info(field).doc.endswith(".")
