"""The chart accepts the values that the documentation shows."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "deployment/helm/poiesis/values.schema.json").read_text())


def examples():
    """Yield (page, values) of every YAML block whose keys are values of the chart."""
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            values = yaml.safe_load(block)
            if "tes_url" not in values:  # the configuration of Galaxy
                yield pytest.param(values, id=f"{page.stem}-{'-'.join(values)}")


@pytest.mark.parametrize("values", list(examples()))
def test_documented_values_are_accepted(values):
    jsonschema.validate(values, SCHEMA)
