"""
The admin listener: what operators and their tools ask of a running gateway, apart from the MCP traffic.

It has an address and a token of its own. Importing this package is cheap; the server is loaded when it is started.
"""

from .address import Address, parse_address
from .listener import serve_admin

__all__ = ["Address", "parse_address", "serve_admin"]
