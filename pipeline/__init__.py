"""Sluiceway's core: what a message is, what a stage is, and what makes a chain of them run."""

if __name__ != "sluiceway.pipeline":
    raise ImportError(f"import it as sluiceway.pipeline, not as {__name__}; install with: pip install -e .")
