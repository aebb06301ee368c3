"""What keeps the collector of cycles away while a command gets ready."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """
    A block that mostly imports. What it brings stays for as long as the process does.

    So nothing is collected meanwhile, and what came is left out whenever something is collected later, also at the end
    of the process: that is a seventh of the time that `check` takes.
    """
    modules, is_on = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_on:
            gc.enable()
        if len(sys.modules) > modules:  # once for what is new, and not again and again where `main` is called often
            gc.freeze()
