"""The published schemas of the filers match the models."""

import json
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from poiesis_models.runfiles import MalformedFile, parse_progress
from poiesis_models.worklist import VERSION, InputItem, OutputItem, WorkList

PUBLISHED = Path(__file__).parents[3] / "docs/reference/filers"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PATH = TEXT.map("/{}".format)
TYPE = st.sampled_from([None, "FILE", "DIRECTORY"])
INPUTS = st.builds(InputItem, path=PATH, local=PATH, type=TYPE, url=TEXT) | st.builds(
    InputItem, path=PATH, local=PATH, type=TYPE, content_file=st.just("content-0")
)
OUTPUTS = st.builds(
    OutputItem,
    url=TEXT,
    path=PATH,
    local=PATH,
    type=TYPE,
    wildcard=st.booleans(),
    path_prefix=st.none() | TEXT,
)
EVENT = {
    "progress": ("files", "bytes"),
    "output": ("url", "path", "size_bytes"),
    "input": ("path", "type"),
    "stream": ("path", "state"),
    "warning": ("message",),
}


def published(name: str) -> Draft202012Validator:
    schema = json.loads((PUBLISHED / name).read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@given(st.builds(WorkList, task=TEXT, inputs=st.tuples(INPUTS), outputs=st.tuples(OUTPUTS)))
def test_every_work_list_is_as_published(work: WorkList):
    published("work-list.schema.json").validate(json.loads(work.to_json()))
    assert WorkList.from_json(work.to_json()) == work


@pytest.mark.parametrize(("name", "model"), [("input", InputItem), ("output", OutputItem)])
def test_the_published_fields_are_those_of_the_models(name, model):
    schema = published("work-list.schema.json").schema["$defs"][name]
    assert set(schema["properties"]) == {field.name for field in fields(model)}
    always = {field.name for field in fields(model) if field.default is MISSING} | (
        {"wildcard"} if name == "output" else set()  # False is written, too
    )
    assert set(schema["required"]) == always


@pytest.mark.parametrize(
    "change",
    [
        {"version": VERSION + 1},
        {"inputs": None},
        {"inputs": [{"path": "/a", "local": "/b"}]},
        {"inputs": [{"path": "/a", "local": "/b", "url": "u", "content_file": "c"}]},
        {"inputs": [{"path": "/a", "local": "/b", "content_file": "../c"}]},
        {"outputs": [{"path": "/a", "local": "b", "url": "u", "wildcard": False}]},
    ],
)
def test_invalid_work_lists_violate_published_schema(change):
    work = {"version": VERSION, "task": "t", "inputs": [], "outputs": []}
    validator = published("work-list.schema.json")
    assert validator.is_valid(work)
    assert not validator.is_valid(work | change)


@given(
    st.fixed_dictionaries(
        {"event": st.sampled_from(["progress", "output", "input", "stream", "warning", "error", "later"])},
        optional={
            key: TEXT | st.integers(-1, 2**63) | st.booleans() | st.none()
            for key in ("files", "bytes", "url", "path", "size_bytes", "message", "state")
        }
        | {"type": st.sampled_from(["FILE", "DIRECTORY", "LINK", None])},
    )
)
def test_parser_accepts_exactly_the_published_schema(event):
    valid = published("progress.schema.json").is_valid(event)
    try:
        parse_progress(json.dumps(event).encode() + b"\n")
    except MalformedFile:
        assert not valid
    else:
        assert valid


@pytest.mark.parametrize("name", EVENT)
def test_an_event_needs_its_fields(name):
    validator = published("progress.schema.json")
    values = dict.fromkeys(("files", "bytes", "size_bytes"), 0) | {"type": "FILE"}
    whole = {key: values.get(key, "x") for key in EVENT[name]}
    assert validator.is_valid({"event": name, **whole})
    for key in whole:
        assert not validator.is_valid({"event": name, **{k: v for k, v in whole.items() if k != key}})
