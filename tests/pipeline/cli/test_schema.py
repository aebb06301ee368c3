"""`schema`: what editors use."""

import json
from pathlib import Path

import jsonschema_rs
import yaml

from sluiceway.pipeline.cli.run import QUICKSTART


def test_the_schema_accepts_the_quickstart_and_refuses_nonsense(sluiceway):
    """It is JSON Schema 2020-12 of what `check` accepts."""
    schema = json.loads(sluiceway("schema").out)
    validator = jsonschema_rs.Draft202012Validator(schema)

    assert [] == list(validator.iter_errors(yaml.safe_load(QUICKSTART.read_text())))
    assert not validator.is_valid({"version": 1, "pipelines": {}, "pipeline": {}})


def test_the_quickstart_is_a_sample_too():
    """`configs/quickstart.yaml` is what `sluiceway run` serves."""
    sample = Path(__file__).parents[3] / "configs" / "quickstart.yaml"

    assert QUICKSTART.read_text() == sample.read_text()
