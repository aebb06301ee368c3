"""JSON Pointers (RFC 6901): the names on the way to a place in a document, as one text."""

from __future__ import annotations


def escape(name: str) -> str:
    """A name as it stands in a pointer (section 3)."""
    return name.replace("~", "~0").replace("/", "~1")


def names_in(pointer: str) -> tuple[str, ...]:
    """
    The names of a pointer, outermost first; of `""`, which is the whole document, none.

    Raises:
        ValueError: It is none: it does not begin with `/`.
    """
    if not pointer:
        return ()
    if not pointer.startswith("/"):
        raise ValueError(f"{pointer!r:.80} is no JSON Pointer; it begins with /")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))
