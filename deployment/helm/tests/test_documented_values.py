"""The chart and the api accept the values that the documentation shows."""

import json
import re

import jsonschema
import pytest
import yaml

from poiesis_e2e.install import merged
from poiesis_tools import values

DOCS = values.ROOT / "docs"
SCHEMA = json.loads((values.CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((values.CHART / "values.yaml").read_text())


def examples():
    """Yield the values of every YAML block whose keys are values of the chart, and of every example."""
    for page in sorted(DOCS.rglob("*.md")):
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            given = yaml.safe_load(block)
            if "tes_url" not in given:  # the configuration of Galaxy
                yield pytest.param(given, id=f"{page.stem}-{'-'.join(given)}")
    for file in sorted(DOCS.glob("examples/*.yaml")):
        yield pytest.param(yaml.safe_load(file.read_text()), id=file.stem)


@pytest.mark.parametrize("given", list(examples()))
def test_documented_values_are_accepted(given):
    all_values = merged(DEFAULTS, given)
    jsonschema.Draft7Validator(SCHEMA).validate(all_values)
    set_by_chart = {"images": {"trec": "t", "helper": "h"}, "gateway": {"url": "https://g", "caFile": "c"}}
    values.Document.model_validate(set_by_chart | all_values["config"])
