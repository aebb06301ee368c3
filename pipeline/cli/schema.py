"""`sluiceway schema`: what editors complete and check configurations with."""

from __future__ import annotations

from .output import emit_json
from .plugins import Plugins, registry_with


def schema(*, plugin: Plugins = None, tests: bool = False) -> None:
    """
    Print the JSON Schema 2020-12 of configurations, for the components that are installed.

    `sluiceway schema > sluiceway.schema.json`, and as the first line of a configuration:
    `# yaml-language-server: $schema=./sluiceway.schema.json`.

    Args:
        plugin: A module or a ./file.py whose components are included, too; may be given several times.
        tests: Print the schema of files of tests (`<name>_test.yaml`) instead.
    """
    from ..config.schema import schema as schema_of
    from ..config.schema import suite_schema

    emit_json(suite_schema() if tests else schema_of(registry_with(plugin)))
