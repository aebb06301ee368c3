"""A plugin that brings a name that is taken."""

from sluiceway.pipeline.model.component import Middleware, middleware


@middleware("timeout")
class Timeout(Middleware):
    """Not the one that ships."""
