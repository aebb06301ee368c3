"""Stages whose declarations cannot be used."""

from attrs import frozen

from sluiceway.pipeline.model.component import Middleware, middleware
from sluiceway.pipeline.model.options import option


@middleware("untyped_toy")
class UntypedToy(Middleware):
    """An option of a type no file can hold."""

    @frozen
    class Config:
        """Options."""

        number: complex = option(0j, doc="A complex number.")


@middleware("reserved_toy")
class ReservedToy(Middleware):
    """An option with a reserved name."""

    @frozen
    class Config:
        """Options."""

        when: str = option("", doc="Taken.")


@middleware("plain_toy")
class PlainToy(Middleware):
    """Options that are no options."""

    class Config:
        """Not an attrs class."""


@middleware("bare_toy")
class BareToy(Middleware):
    """No options at all."""
