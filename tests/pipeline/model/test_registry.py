"""Names to classes: built-ins, entry points, plugins, and what is wrong with them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import dedent

import pytest

from sluiceway.middlewares.timeout import Timeout
from sluiceway.pipeline.model import registry as module
from sluiceway.pipeline.model.component import API_VERSION, ComponentKind, Middleware
from sluiceway.pipeline.model.registry import Registry, RegistryError, UnknownName

MIDDLEWARE, SINK = ComponentKind.MIDDLEWARE, ComponentKind.SINK

STAGE = """
from sluiceway.pipeline.model.component import Middleware, Sink, middleware, sink

@middleware("mask")
class Mask(Middleware):
    "One stage."

class Unnamed(Middleware):
    "Not for YAML."
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for modules, importable and forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, text: str) -> Path:
    """A module."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(dedent(text))
    return path


class FakeDistribution:
    """As much of a distribution as the registry looks at."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = "1.0"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """Entry points of stages, as if distributions with them were installed."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(module, "entry_points", lambda group: [p for p in points if p.group == group])
    module._points.cache_clear()
    yield points
    module._points.cache_clear()


def point(name: str, value: str, distribution: str | None = "acme-stages") -> EntryPoint:
    """An entry point of a stage."""
    made = EntryPoint(name, value, "sluiceway.middlewares")
    return made if distribution is None else made._for(FakeDistribution(distribution))  # type: ignore[attr-defined]


def test_a_built_in_is_imported_when_it_is_asked_for() -> None:
    """By its name in YAML."""
    assert Registry().find(MIDDLEWARE, "timeout") is Timeout


def test_an_unknown_name_comes_with_the_names_there_are() -> None:
    """For a suggestion."""
    with pytest.raises(UnknownName, match="unknown middleware 'timeot'") as caught:
        Registry().find(MIDDLEWARE, "timeot")

    assert (MIDDLEWARE, "timeot") == (caught.value.kind, caught.value.name)
    assert "timeout" in caught.value.known
    assert sorted(caught.value.known) == caught.value.known


def test_a_name_with_a_colon_is_a_class_of_its_own() -> None:
    """`module:Class`, without registration."""
    assert Registry().find(MIDDLEWARE, "sluiceway.middlewares.timeout:Timeout") is Timeout


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no.such.module:A", "cannot be imported: ModuleNotFoundError"),
        ("json:Nothing", "json has no 'Nothing'"),
        ("json:JSONDecoder", "json:JSONDecoder is not a component class"),
        ("json:dumps", "json:dumps is not a component class"),
        ("sluiceway.pipeline.model.component:Sink", "is a sink, not a middleware"),
    ],
)
def test_a_class_that_cannot_be_a_stage_says_why(target: str, message: str) -> None:
    """Missing module, missing class, no component, another kind."""
    with pytest.raises(RegistryError, match=message):
        Registry().find(MIDDLEWARE, target)


def test_another_component_api_is_refused(project: Path) -> None:
    """As a one-off and as a plugin."""
    write(project / "old_stage.py", STAGE + "Mask.api = 99\n")
    message = f"speaks component API 99; this Sluiceway speaks {API_VERSION}"

    with pytest.raises(RegistryError, match=message):
        Registry().find(MIDDLEWARE, "old_stage:Mask")
    with pytest.raises(RegistryError, match=message):
        Registry().load_plugin("old_stage", project)


def test_a_plugin_file_brings_its_components(project: Path) -> None:
    """A file relative to the one that names it; loaded once, whoever asks."""
    write(project / "stages" / "mask.py", STAGE)
    one, other = Registry(), Registry()
    first = one.load_plugin("./stages/mask.py", project)
    second = other.load_plugin("stages/mask.py", project)

    assert first is second
    assert one.find(MIDDLEWARE, "mask") is other.find(MIDDLEWARE, "mask") is first.Mask
    assert "mask" in one.names(MIDDLEWARE)
    assert "mask" not in Registry().names(MIDDLEWARE)


def test_a_plugin_may_be_loaded_twice(project: Path) -> None:
    """The same class under the same name is no conflict."""
    write(project / "mask.py", STAGE)
    registry = Registry()
    registry.load_plugin("mask.py", project)

    assert registry.load_plugin("mask.py", project).Mask is registry.find(MIDDLEWARE, "mask")


def test_a_plugin_package_brings_what_its_modules_declare(project: Path) -> None:
    """Re-exports count within the package, and not what was imported from elsewhere."""
    write(project / "my_company_stages" / "mask.py", STAGE)
    write(
        project / "my_company_stages" / "__init__.py",
        "from .mask import Mask\nfrom sluiceway.middlewares.timeout import Timeout\n",
    )
    registry = Registry()
    registry.load_plugin("my_company_stages", project)

    assert [("mask", "my_company_stages")] == [
        (row.name, row.provider) for row in registry.rows(MIDDLEWARE) if row.provider != "built-in"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise ValueError('no licence')", "plugin 'bad.py' cannot be imported: ValueError: no licence"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("x = 1", "plugin 'bad.py' has no components"),
        (STAGE.replace("mask", "timeout"), "middleware 'timeout' is provided twice: by built-in and by bad.py"),
    ],
)
def test_a_plugin_that_cannot_be_used_says_why(project: Path, text: str, message: str) -> None:
    """Import errors, nothing in it, a name that is taken."""
    write(project / "bad.py", text)

    with pytest.raises(RegistryError, match=message.replace("(", r"\(")):
        Registry().load_plugin("bad.py", project)


def test_a_broken_plugin_file_is_tried_again(project: Path) -> None:
    """What failed is not remembered as loaded."""
    path = write(project / "mask.py", "raise ValueError")
    registry = Registry()
    with pytest.raises(RegistryError):
        registry.load_plugin("mask.py", project)
    path.write_text(STAGE)

    assert registry.load_plugin("mask.py", project).Mask.name == "mask"


def test_missing_plugins_are_told_apart(project: Path) -> None:
    """A file that is not there, a module that cannot be found."""
    with pytest.raises(RegistryError, match=r"plugin file './gone.py' does not exist"):
        Registry().load_plugin("./gone.py", project)
    with pytest.raises(RegistryError, match="plugin 'gone_module' cannot be imported: ModuleNotFoundError"):
        Registry().load_plugin("gone_module", project)


def test_two_plugins_with_one_name_are_an_error_that_names_both(project: Path) -> None:
    """Nobody wins silently."""
    write(project / "one.py", STAGE)
    write(project / "two.py", STAGE)
    registry = Registry()
    registry.load_plugin("one.py", project)

    with pytest.raises(RegistryError, match=r"'mask' is provided twice: by one\.py and by two\.py"):
        registry.load_plugin("two.py", project)


def test_a_distribution_brings_components_by_entry_points(project: Path, installed: list[EntryPoint]) -> None:
    """Group, name and value; the provider is the distribution."""
    write(project / "acme_stages.py", STAGE)
    installed.append(point("mask", "acme_stages:Mask"))
    installed.append(point("lone", "acme_stages:Mask", None))
    rows = {row.name: row for row in Registry().rows(MIDDLEWARE)}

    assert Registry().find(MIDDLEWARE, "mask").name == "mask"
    assert ("acme-stages 1.0", "acme_stages:Mask") == (rows["mask"].provider, rows["lone"].provider)


def test_two_distributions_with_one_name_are_an_error_that_names_both(installed: list[EntryPoint]) -> None:
    """The same for a distribution that takes the name of a built-in."""
    installed += [point("mask", "a:B"), point("mask", "c:D", "other"), point("timeout", "a:B")]

    with pytest.raises(RegistryError, match=r"provided twice: by acme-stages 1\.0 and by other 1\.0"):
        Registry().find(MIDDLEWARE, "mask")
    with pytest.raises(RegistryError, match=r"provided twice: by built-in and by acme-stages 1\.0"):
        Registry().find(MIDDLEWARE, "timeout")


def test_a_plugin_does_not_take_the_name_of_a_distribution(project: Path, installed: list[EntryPoint]) -> None:
    """Both are named."""
    write(project / "mask.py", STAGE)
    installed.append(point("mask", "a:B"))

    with pytest.raises(RegistryError, match=r"by acme-stages 1\.0 and by mask\.py"):
        Registry().load_plugin("mask.py", project)


def test_what_cannot_be_loaded_is_a_row_that_says_why(installed: list[EntryPoint]) -> None:
    """`list` shows broken components; it does not crash on them."""
    installed.append(point("mask", "no_such_module:Mask"))
    rows = {(row.kind, row.name): row for row in Registry().rows()}

    assert rows[MIDDLEWARE, "mask"].cls is None
    assert "ModuleNotFoundError" in rows[MIDDLEWARE, "mask"].error
    assert rows[MIDDLEWARE, "timeout"].cls is Timeout
    assert (SINK, "embedded") in rows


def test_only_what_is_asked_for_is_imported() -> None:
    """Names are known without imports."""
    names = Registry().names(SINK)

    assert sorted(names) == names
    assert issubclass(Registry().find(MIDDLEWARE, "timeout"), Middleware)


def test_what_a_plugin_prints_while_it_is_imported_is_no_product(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check --format json` stays JSON, and a stdio client reads messages only."""
    write(project / "mask.py", "print('hello')\n" + STAGE)
    Registry().load_plugin("mask.py", project)

    assert ("", "hello\n") == capsys.readouterr()
