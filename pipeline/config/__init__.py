"""Configuration: from files to a checked `Document`, with every problem found at once and shown where it stands."""

from ..model.document import Document
from .loading import Checked, check, check_text, from_data, load, load_text
from .problems import (
    ConfigError,
    Problem,
    Span,
    has_errors,
    render_github,
    render_json,
    render_text,
)

__all__ = [
    "Checked",
    "ConfigError",
    "Document",
    "Problem",
    "Span",
    "check",
    "check_text",
    "from_data",
    "has_errors",
    "load",
    "load_text",
    "render_github",
    "render_json",
    "render_text",
]
