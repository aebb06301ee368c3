"""
Makes the cases of `autobahntestsuite`, which are Python 2, importable. Runs in the environment of the suite.

    python convert.py FOLDER_OF_CASES NEW_PACKAGE

A Python 2 `str` of bytes becomes a `str` of Latin-1 characters, one for each byte; `fuzz.py` turns it into bytes where
it meets the wire, and `latin.py` where it meets the library. Everything else is left to `fissix`, the converter that
Python had until 3.12.
"""

from __future__ import annotations

import io
import re
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

from fissix.pgen2 import token, tokenize  # noqa: E402  # it warns of its own escapes on import
from fissix.refactor import RefactoringTool, get_fixers_from_package  # noqa: E402  # likewise

BEFORE = (
    # text that is encoded was Unicode, and becomes bytes: characters for bytes here
    (r"""\.encode\((["'])(?:utf-?8|UTF-?8)\1\)""", ".encode('utf8').decode('latin-1')"),
    (r"^(\s*)import binascii$", r"\1from latin import binascii"),
    (r"^import (.*), binascii(.*)$", r"import \1\2\nfrom latin import binascii"),
    (r"from autobahn\.websocket\.utf8validator import Utf8Validator", "from latin import Utf8Validator"),
)
AFTER = (
    (r"^from (case\w*) import", r"from .\1 import"),
    (r"\(object,\s*Case,\s*\)", "(Case,)"),
    (r"return pickle\.dumps\(obj1\) == pickle\.dumps\(obj2\)", "return obj1 == obj2"),
    (r"len\(self\.payload\) / self\.p", "len(self.payload) // self.p"),
)
LEFT_OUT = {
    "case9_9_1.py": "Case9_9_1 = None\n",  # messages of unlimited size; the suite itself does not list it
    "case12_x_x.py": "".join(f"Case{group}_X_X = []\nCase{group}_X_X_CaseSubCategories = {{}}\n" for group in (12, 13)),
}
"""Instead of these; 12 and 13 are about permessage-deflate, which the gateway neither offers nor accepts."""


def escaped(text: str) -> str:
    """A module whose byte strings show each byte above ASCII as an escape."""
    lines = text.splitlines(keepends=True)
    found = [
        (start, end, literal)
        for kind, literal, start, end, _ in tokenize.generate_tokens(io.StringIO(text).readline)
        if kind == token.STRING and not literal.isascii() and literal[0] not in "uU"
    ]
    for (first, left), (last, right), literal in reversed(found):
        plain = "".join(c if c.isascii() else "".join(f"\\x{byte:02x}" for byte in c.encode()) for c in literal)
        lines[first - 1 : last] = [lines[first - 1][:left] + plain + lines[last - 1][right:]]
    return "".join(lines)


def converted(text: str, name: str, tool: RefactoringTool) -> str:
    """A module in Python 3."""
    text = escaped(text if text.endswith("\n") else f"{text}\n")
    for pattern, replacement in BEFORE:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    text = str(tool.refactor_string(text, name))
    for pattern, replacement in AFTER:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def main() -> None:
    """Convert every module."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    tool = RefactoringTool(get_fixers_from_package("fissix.fixes"))
    target.mkdir(parents=True)
    for module in sorted(source.glob("*.py")):
        text = LEFT_OUT.get(module.name) or converted(module.read_text(encoding="utf-8"), module.name, tool)
        (target / module.name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
