"""
The server kit: MCP servers made of Python functions, served inside the gateway by the sink `embedded`.

    from sluiceway.transports.embedded import Context, Server

    server = Server("greeter", version="1.0.0")

    @server.tool()
    def greet(name: str) -> str:
        '''Greet somebody.'''
        return f"Hello, {name}!"
"""

from .content import Audio, Block, Contents, Embedded, Image, Link, Message, Text, ToolResult
from .context import Context
from .errors import (
    Denied,
    InternalError,
    InvalidParams,
    InvalidRequest,
    MissingCapability,
    NotFound,
    ServerError,
    ToolError,
)
from .questions import Elicit, Elicited, ElicitUrl, Question, Root, Roots, Sample, Sampled
from .rwlock import ReadWriteLock
from .server import Server
from .tools import Tool

__all__ = [
    "Audio",
    "Block",
    "Contents",
    "Context",
    "Denied",
    "Elicit",
    "ElicitUrl",
    "Elicited",
    "Embedded",
    "Image",
    "InternalError",
    "InvalidParams",
    "InvalidRequest",
    "Link",
    "Message",
    "MissingCapability",
    "NotFound",
    "Question",
    "ReadWriteLock",
    "Root",
    "Roots",
    "Sample",
    "Sampled",
    "Server",
    "ServerError",
    "Text",
    "Tool",
    "ToolError",
    "ToolResult",
]
