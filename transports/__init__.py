"""Sluiceway's transports: bytes in and bytes out, as sources and sinks."""

if __name__ != "sluiceway.transports":
    raise ImportError(f"import it as sluiceway.transports, not as {__name__}; install with: pip install -e .")
