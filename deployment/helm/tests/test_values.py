"""The values' descriptions: their sources, and the files that `make schema` writes."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from poiesis_tools import values

Schema = dict[str, Any]


def properties(schema: Schema, where: str = "") -> Iterator[tuple[str, Schema]]:
    """Each property by its path, also of entries of lists."""
    for name, value in schema.get("properties", {}).items():
        yield f"{where}{name}", value
        yield from properties(value, f"{where}{name}.")
        yield from properties(value.get("items", {}), f"{where}{name}[].")


@pytest.fixture(scope="module")
def schema() -> Schema:
    found: Schema = json.loads((values.CHART / "values.schema.json").read_text())
    return found


@pytest.fixture(scope="module")
def page() -> str:
    return (values.ROOT / "docs/reference/values.md").read_text()


def test_generated_files_are_current():
    assert values.stale() == [], "run `make schema`"


def test_every_property_has_a_description(schema):
    assert [path for path, found in properties(schema) if not found.get("description")] == []


def test_schema_is_closed(schema):
    sections = [("", schema), *((path, found) for path, found in properties(schema) if "properties" in found)]
    assert [path for path, found in sections if found.get("additionalProperties") is not False] == []


def test_schema_has_no_marks_of_its_sources(schema):
    names = {"flow", "setByChart", "examples", "title", "$defs", "$ref", "anyOf"}
    found = {path for path, value in properties(schema) if names & value.keys()}
    assert found == set()


def test_reference_describes_every_property(schema, page):
    leaves = [path for path, found in properties(schema) if "properties" not in found]
    missing = [path for path in leaves if f"`{path}`" not in page]
    in_flow = [
        path
        for path in missing
        if path.rsplit(".", 1)[-1] in {"requests", "limits", "claims", "cpu", "memory"}
    ]
    in_flow += [path for path in missing if ".caSecret." in path and not path.startswith("config.")]
    # The column of the type describes entries that may be texts or objects.
    of_entries = [path for path in missing if path.endswith(("[].value", "[].users", "[].groups"))]
    assert set(missing) - set(in_flow) - set(of_entries) == {"global"}


def test_values_have_every_key_of_the_schema(schema):
    def differences(node: Schema, value: dict[str, Any], where: str) -> Iterator[str]:
        known = node.get("properties", {})
        yield from (f"{where}{key}" for key in known.keys() ^ value.keys())
        for key in known.keys() & value.keys():
            if known[key].get("properties") and isinstance(value[key], dict):
                yield from differences(known[key], value[key], f"{where}{key}.")

    given = yaml.safe_load((values.CHART / "values.yaml").read_text())
    found = set(differences(schema, given, ""))
    assert {path for path in found if not path.endswith(".resources.claims")} == {"global"}


def test_defaults_of_config_are_those_of_the_api():
    given = yaml.safe_load((values.CHART / "values.yaml").read_text())["config"]
    smallest = {"images": {"trec": "t", "helper": "h"}, "gateway": {"url": "https://g", "caFile": "c"}}
    assert values.Document.model_validate(smallest | given) == values.Document.model_validate(smallest)


def test_fields_set_by_the_chart_are_no_values(schema):
    config = dict(properties(schema["properties"]["config"]))
    assert (
        not {"images", "gateway", "recorderPostgres", "tasks", "serviceInfo.version", "http.port"}
        & config.keys()
    )


def test_example_names_every_key_of_the_document():
    def keys(value: Any) -> Any:
        return {key: keys(inner) for key, inner in value.items()} if isinstance(value, dict) else None

    example = json.loads((values.ROOT / "services/api/config.example.json").read_text())
    loaded = values.Document.model_validate(example).model_dump(mode="json", by_alias=True)
    assert keys(example) == keys(loaded)
    assert {"basic", "oidc"} <= example["auth"].keys()


def test_stale_file_is_reported_and_not_written(tmp_path, monkeypatch, capsys):
    old = tmp_path / "values.md"
    old.write_text("old")
    monkeypatch.setattr(values, "ROOT", tmp_path)
    monkeypatch.setattr(values, "GENERATED", {old: lambda: "new"})
    assert values.main(["--check"]) == 1
    assert (capsys.readouterr().out, old.read_text()) == ("stale: values.md\n", "old")
    assert values.main([]) == 0
    assert old.read_text() == "new"
    assert values.main(["--check"]) == 0
