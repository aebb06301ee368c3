"""
Other programs' configurations, turned into ours: a client's `mcpServers`, supergateway, mcp-proxy, fastmcp.

Pure: text in, text out. A reader turns a form into `Imported`, `render` writes that as YAML. Whatever a reader finds
and cannot carry over becomes a `Lost` with its reason; nothing disappears silently.
"""

from .formats import FORMS, Form, read_foreign
from .model import Imported, Lost, NotImportable
from .rendering import render

__all__ = ["FORMS", "Form", "Imported", "Lost", "NotImportable", "read_foreign", "render"]
