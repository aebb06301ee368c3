"""Sluiceway's built-in stages: one policy per module."""

if __name__ != "sluiceway.middlewares":
    raise ImportError(f"import it as sluiceway.middlewares, not as {__name__}; install with: pip install -e .")
