"""`make schema`: write what is generated from the descriptions of the chart's values.

    python -m poiesis_tools.values [--check]

Sources: the fields of `poiesis_api.config.Document`, which is `config` in the values, and
deployment/helm/values.schema.yaml for all other values. Generated: the chart's values.schema.json and
values.yaml, docs/reference/values.md, and services/api/config.example.json.

`--check` writes nothing and exits 1 if a file is stale. In the sources, `flow: true` keeps an object on one
line of values.yaml, and `setByChart: true` leaves a field of the document out of the values.
"""

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from poiesis_api.config import Document
from poiesis_tools.workspace import ROOT

CHART = ROOT / "deployment/helm/poiesis"
SOURCE = ROOT / "deployment/helm/values.schema.yaml"
WIDTH = 120

Schema = dict[str, Any]

# These values must be set and must not be sections.
_READ_BY_TEMPLATES = (
    ("auth", "mode"),
    ("auth", "allowAnonymous"),
    ("database", "maxConnections"),
    ("http", "hosts"),
    ("recorder", "transport"),
)
_MARKS = frozenset({"flow", "setByChart"})
_HEAD = """\
# Every value of the chart. Helm rejects unknown keys. Install one release per namespace; its tasks have
# namespaces of their own (`tasks`). An empty value, or null in `config`, means that the value is not set.
# docs/reference/values.md also describes the keys of objects and of list entries that are not set here.
# Written by `make schema`, like values.schema.json: do not edit.
"""
_PAGE_HEAD = """\
# Values of the chart

<!-- Written by `make schema`: do not edit. -->

`config` is the configuration document of the api. The chart passes it on key for key, so an error of the
api names a key below `config`. In `config`, `null` means unset: the default applies. All other values
configure objects of Kubernetes. Fractions may be text, as `--set config.queue.pollSeconds=0.5` passes them,
and quantities may be numbers.

Helm checks the values against the chart's schema and rejects unknown keys. The api checks what a schema
cannot express, for example that names are unique, when it starts. If that fails, `helm install --wait`
fails, and the log of the api and the status of its Pod (`kubectl describe pod`) name each invalid key and
its value. During an upgrade, the former replicas continue to serve.
"""


def chart_schema() -> Schema:
    """Return the JSON schema of the chart's values, with marks."""
    schema: Schema = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    del schema["definitions"]
    schema["properties"]["config"] = config_schema()
    tidy: Schema = _with_tidy_descriptions(schema)
    return tidy


def config_schema() -> Schema:
    """Return the JSON schema of `config`, with marks: the document without the fields that the chart sets."""
    schema = Document.model_json_schema()
    definitions = schema.pop("$defs")
    flat: Schema = _inlined(schema, definitions)
    for section, name in _READ_BY_TEMPLATES:
        flat["properties"][section].setdefault("required", []).append(name)
    flat["description"] = (
        "The api's configuration document: everything about tasks, storage, users and HTTP. null means unset"
    )
    return flat


def _inlined(node: Any, definitions: Mapping[str, Schema]) -> Any:
    """Replace references by their targets, merge `null` into types, drop titles and redundant defaults."""
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        node = {
            **definitions[node["$ref"].rsplit("/", 1)[-1]],
            **{k: v for k, v in node.items() if k != "$ref"},
        }
    node = {key: value for key, value in node.items() if key != "title" or not isinstance(value, str)}
    if "properties" in node:
        return _object(node, definitions)
    if "anyOf" in node:
        return _nullable(node, definitions)
    return {
        key: value if key in {"default", "examples", "enum", "const"} else _inlined(value, definitions)
        for key, value in node.items()
    }


def _object(node: Schema, definitions: Mapping[str, Schema]) -> Schema:
    kept = {
        name: _inlined(value, definitions)
        for name, value in node["properties"].items()
        if not value.get("setByChart")
    }
    node = {**node, "properties": kept}
    required = [name for name in node.pop("required", []) if name in kept]
    required += [name for name, value in kept.items() if _is_section(value) and name not in required]
    if node.get("default") is not None and not node.get("flow"):
        del node["default"]  # each property has its own
    return {**node, **({"required": required} if required else {})}


def _nullable(node: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return `X | null` as X with one more type: errors of a union name each of its parts."""
    (chosen,) = (option for option in node["anyOf"] if option != {"type": "null"})
    inner = _inlined(chosen, definitions)
    outer = {key: value for key, value in node.items() if key != "anyOf"}
    types = inner["type"] if isinstance(inner["type"], list) else [inner["type"]]
    merged: Schema = {**inner, **outer, "type": [*types, "null"]}
    if "enum" in merged:
        merged["enum"] = [*merged["enum"], None]
    return merged


def _with_tidy_descriptions(node: Any) -> Any:
    """Put each description on one line; one that is a single sentence has no full stop."""
    if isinstance(node, list):
        return [_with_tidy_descriptions(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidy = {key: _with_tidy_descriptions(value) for key, value in node.items()}
    if isinstance(tidy.get("description"), str):
        text = " ".join(tidy["description"].split()).rstrip(".")
        tidy["description"] = f"{text}." if ". " in text else text
    return tidy


def schema_json() -> str:
    """Return values.schema.json."""
    return json.dumps(_without_marks(chart_schema()), indent=2, ensure_ascii=False) + "\n"


def _without_marks(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_marks(item) for item in node]
    if not isinstance(node, dict):
        return node
    drop = {*_MARKS, "examples"} if "type" in node else set()
    return {key: _without_marks(value) for key, value in node.items() if key not in drop}


def values_yaml() -> str:
    """Return values.yaml: each value with its default and its description."""
    shown = {name: value for name, value in chart_schema()["properties"].items() if name != "global"}
    return "\n".join([_HEAD, *_yaml_lines(shown, 0)]) + "\n"


def _yaml_lines(properties: Mapping[str, Schema], depth: int, path: str = "") -> Iterator[str]:
    indent = "  " * depth
    for number, (name, schema) in enumerate(properties.items()):
        section = _is_section(schema)
        if number and (depth == 0 or path == "config.") and (section or schema["type"] == "array"):
            yield ""
        if section:
            yield from _comment(schema["description"], indent)
            yield f"{indent}{name}:"
            yield from _yaml_lines(schema["properties"], depth + 1, f"{path}{name}.")
        else:
            yield from _yaml_value(name, schema, indent)


def _yaml_value(name: str, schema: Schema, indent: str) -> Iterator[str]:
    description = schema["description"]
    listed = _choices(schema) or _keys_of_entries(schema)
    if listed:
        description = f"{description.rstrip('.')}. {listed}."
    lines = [f"{indent}{line}" for line in _dumped(name, _pruned(schema["default"], schema))]
    one_line = f"{lines[0]}  # {description}"
    if len(lines) == 1 and len(one_line) <= WIDTH:
        yield one_line
    else:
        yield from _comment(description, indent)
        yield from lines


def _choices(schema: Schema) -> str:
    """Return the values of an enumeration that its description does not explain."""
    values = [value for value in schema.get("enum", []) if value is not None]
    explained = all(value in schema["description"] for value in values)
    return "" if explained else f"One of {', '.join(values)}"


def _keys_of_entries(schema: Schema) -> str:
    """Return the keys of an object that is null by default, or of the objects of a list."""
    properties = schema.get("properties", {}) if schema["default"] is None else {}
    entries = _entry_properties(schema)
    listed = ", ".join([*properties, *entries])
    what = "Keys of an entry" if entries else "Keys"
    return f"{what}: {listed}" if listed else ""


def _dumped(name: str, value: Any) -> list[str]:
    """Return `name: value`, in flow style where that fits, as lines."""

    def dump(node: Any, *, flow: bool) -> str:
        text: str = yaml.safe_dump(
            node, default_flow_style=flow, sort_keys=False, allow_unicode=True, width=sys.maxsize
        )
        return text.rstrip("\n").removesuffix("\n...")

    in_flow = dump(value, flow=True)
    if not isinstance(value, dict | list) or not value or len(in_flow) <= WIDTH // 2:
        return [f"{name}: {in_flow}"]
    if isinstance(value, dict):
        return [f"{name}:", *(f"  {line}" for key, item in value.items() for line in _dumped(key, item))]
    lines = [f"{name}:"]
    for item in value:
        inner = [line for key, part in item.items() for line in _dumped(key, part)]
        lines += [f"{'  - ' if number == 0 else '    '}{line}" for number, line in enumerate(inner)]
    return lines


def _pruned(value: Any, schema: Schema) -> Any:
    """Return a default in the schema's order, without what is unset in its entries."""
    if isinstance(value, list):
        return [_pruned(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {key: {} for key in value})
    return {
        key: _pruned(value[key], properties[key])
        for key in properties
        if value.get(key) not in (None, {}, [])
    }


def _comment(text: str, indent: str) -> list[str]:
    lead = f"{indent}# "
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=lead,
        subsequent_indent=lead,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _is_section(schema: Schema) -> bool:
    return schema.get("type") == "object" and "properties" in schema and not schema.get("flow")


def reference_page() -> str:
    """Return docs/reference/values.md: a table per section."""
    values = chart_schema()["properties"]
    del values["global"]
    single = {name: value for name, value in values.items() if not _is_section(value)}
    parts = [_PAGE_HEAD, "## Names\n", *_table(single, "")]
    for name, schema in values.items():
        if _is_section(schema):
            parts += _chapter(name, schema)
    return "\n".join(parts).rstrip("\n") + "\n"


def _chapter(name: str, schema: Schema) -> list[str]:
    lines = [f"## {name}\n", _sentence(schema["description"]), ""]
    if name != "config":
        return [*lines, *_table(schema["properties"], f"{name}.")]
    single = {key: value for key, value in schema["properties"].items() if not _is_section(value)}
    lines += _table(single, "config.")
    for key, value in schema["properties"].items():
        if _is_section(value):
            lines += [f"### config.{key}\n", _sentence(value["description"]), ""]
            lines += _table(value["properties"], f"config.{key}.")
    return lines


def _sentence(text: str) -> str:
    return _escaped(text if text.endswith(".") else f"{text}.")


def _table(properties: Mapping[str, Schema], path: str) -> list[str]:
    head = ["| Value | Type | Default | Description |", "| --- | --- | --- | --- |"]
    return [*head, *_rows(properties, path), ""]


def _rows(properties: Mapping[str, Schema], path: str) -> Iterator[str]:
    for name, schema in properties.items():
        where = f"{path}{name}"
        description = _escaped(schema["description"])
        if _is_section(schema):
            yield f"| `{where}` | object | | {description} |"
        else:
            default = _default(schema)
            yield f"| `{where}` | {_escaped(_type(schema))} | {_escaped(default)} | {description} |"
        if not schema.get("flow"):
            yield from _rows(schema.get("properties", {}), f"{where}.")
            yield from _rows(_entry_properties(schema), f"{where}[].")


def _entry_properties(schema: Schema) -> Mapping[str, Schema]:
    """Return the keys of entries that may be objects; none for `Limited` ones, which are all alike."""
    found: Mapping[str, Schema] = schema.get("items", {}).get("properties", {})
    return {} if _is_limited(schema) else found


def _is_limited(schema: Schema) -> bool:
    """Return whether the entries of a list are values that may be limited to users and groups."""
    items = schema.get("items", {})
    return isinstance(items.get("type"), list) and "value" in items.get("properties", {})


def _list(types: str | list[str]) -> list[str]:
    return types if isinstance(types, list) else [types]


def _default(schema: Schema) -> str:
    if "default" not in schema:
        return "required"
    return f"`{json.dumps(_pruned(schema['default'], schema), ensure_ascii=False)}`"


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"] if value is not None)
    types = [name for name in _list(schema["type"]) if name != "null"]
    if types == ["string", "number"]:
        return "quantity"
    if types == ["array"]:
        items = schema.get("items", {})
        if _is_limited(schema):
            return "list of strings or {value, users, groups}"
        if "enum" in items:
            return f"list of {_type(items)}"
        return "list of " + " or ".join(f"{one}s" for one in _list(items["type"]))
    return types[0] + "".join(
        f"{sign} {schema[bound]}"
        for bound, sign in (
            ("minimum", ", at least"),
            ("exclusiveMinimum", ", more than"),
            ("maximum", ", at most"),
            ("exclusiveMaximum", ", less than"),
        )
        if bound in schema
    )


def _escaped(text: str) -> str:
    """Return text for a cell of a table; names of pages become links."""
    escaped = text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"\bdocs/(\S+/)?([\w-]+\.md)", r"[\2](../\1\2)", escaped)


def example_json() -> str:
    """Return config.example.json: the examples of the fields, and the defaults of those without one."""
    document = Document.model_validate(_examples(Document)).model_dump(mode="json", by_alias=True)
    return json.dumps(_with_short_numbers(document), indent=2, ensure_ascii=False) + "\n"


def _with_short_numbers(node: Any) -> Any:
    """Write 5 for 5.0."""
    if isinstance(node, list):
        return [_with_short_numbers(item) for item in node]
    if isinstance(node, dict):
        return {key: _with_short_numbers(value) for key, value in node.items()}
    return int(node) if isinstance(node, float) and node.is_integer() else node


def _examples(section: type[BaseModel]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        key = field.alias or name
        if field.examples:
            found[key] = field.examples[0]
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            inner = _examples(field.annotation)
            found |= {key: inner} if inner else {}
    return found


GENERATED: Mapping[Path, Callable[[], str]] = {
    CHART / "values.schema.json": schema_json,
    CHART / "values.yaml": values_yaml,
    ROOT / "docs/reference/values.md": reference_page,
    ROOT / "services/api/config.example.json": example_json,
}


def stale() -> list[Path]:
    """Return the generated files whose content is not what the sources give now."""
    return [
        path
        for path, make in GENERATED.items()
        if not path.exists() or path.read_text(encoding="utf-8") != make()
    ]


def main(arguments: Sequence[str]) -> int:
    """Write the files, or check them. Return the exit code."""
    parser = argparse.ArgumentParser(
        prog="make schema", description="Write the files that describe the values."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is stale")
    options = parser.parse_args(arguments)
    found = stale()
    for path in found:
        print(f"{'stale' if options.check else 'written'}: {path.relative_to(ROOT)}")
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(GENERATED[path](), encoding="utf-8")
    return 1 if options.check and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
