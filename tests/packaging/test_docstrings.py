"""Public means documented."""

import importlib
import inspect
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    "sluiceway." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for room in ("pipeline", "middlewares", "transports")
    for path in (ROOT / room).rglob("*.py")
    if path.name != "__main__.py"
)


def is_public(name):
    """By the underscore."""
    return not name.startswith("_")


def undocumented(owner, prefix):
    """Names of public classes, functions, methods and properties that are defined in `owner` and say nothing."""
    module = owner.__name__ if inspect.ismodule(owner) else owner.__module__
    for name, value in vars(owner).items():
        if not is_public(name):
            continue
        target = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if inspect.isclass(target):
            if target.__module__ == module and target.__qualname__.endswith(name):
                if not (target.__dict__.get("__doc__") or "").strip():
                    yield f"{prefix}.{name}"
                yield from undocumented(target, f"{prefix}.{name}")
        elif inspect.isfunction(target):
            inherited = inspect.getdoc(getattr(owner, name))
            if target.__module__ == module and not inherited:
                yield f"{prefix}.{name}"
        elif isinstance(target, property | cached_property) and not inspect.getdoc(getattr(owner, name)):
            yield f"{prefix}.{name}"


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_says_what_it_is_for(name):
    """The module, its classes and functions, and their methods; an override may inherit."""
    module = importlib.import_module(name)
    missing = list(undocumented(module, name))

    assert missing == []
    assert Path(module.__file__).stat().st_size == 0 or (module.__doc__ or "").strip()
