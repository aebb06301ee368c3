"""Sink `route`: several sinks as one MCP server (architecture 1.3 and 1.11; `docs/routing.md`)."""
