"""A small MCP client on Trio, for the command line and for tests: both eras, over Streamable HTTP and stdio."""
