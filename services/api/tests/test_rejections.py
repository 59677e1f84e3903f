"""What the log holds of a rejected create."""

import ast
from pathlib import Path

import pytest

import poiesis_api
from poiesis_api import errors
from poiesis_api.errors import HTTP_STATUS, InvalidTask, LimitReached, Loggable, MalformedBody, joined, text
from poiesis_api.identity.caller import Caller
from poiesis_api.rejections import log_fields
from poiesis_api.validation import parse_task, sharing_group, validate

SECRET = "hunter2"


def logged(error):
    return log_fields(error, user="alice", user_agent="tes/0.11")


def rejected(body, config):
    with pytest.raises((InvalidTask, MalformedBody)) as raised:
        validate(parse_task(body), config)
    return raised.value


def test_a_line_names_user_and_program():
    error = LimitReached("limit reached: {count} of {limit} tasks", 30, limit=5, count=5)
    assert log_fields(error, user="alice", user_agent="tes/0.11" + "x" * 1000) == {
        "status": 429,
        "field": None,
        "reason": "limit reached: 5 of 5 tasks",
        "limit": 5,
        "user": "alice",
        "user_agent": "tes/0.11" + "x" * 192,
    }


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ('{"executors": [{"image": "b", "command": ["c"]}], "volumes": ["/etc"]}', "volumes[0]", "/etc"),
        ('{"executors": [{"image": "a b", "command": ["c"]}]}', "executors[0].image", "a b"),
        ('{"executors": [{"image": "b", "command": ["c"], "stdin": "x"}]}', "executors[0].stdin", "'x'"),
        (
            '{"executors": [{"image": "b", "command": ["c"]}], "resources": {"cpu_cores": -1}}',
            "resources.cpu_cores",
            "-1",
        ),
    ],
)
def test_values_that_cannot_be_secret_are_logged(config, body, field, value):
    error = rejected(body.encode(), config)
    assert logged(error)["field"] == field
    assert value in logged(error)["reason"]
    assert logged(error)["reason"] == str(error)


S3_USER = (
    "inputs[0].url: … contains a user, host or port; write s3://bucket/key "
    "(endpoint and credentials are the operator's)"
)
EXECUTORS = '"executors": [{"image": "b", "command": ["c"]}]'


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        (
            '"inputs": [{"path": "/a", "url": "ftp://u:hunter2@h/x"}]',
            "inputs[0].url",
            "inputs[0].url: unsupported URL scheme … in … (supported: http, https, s3)",
        ),
        (
            '"inputs": [{"path": "/a", "url": "s3://u:hunter2@h/x"}]',
            "inputs[0].url",
            S3_USER,
        ),
        (
            '"inputs": [{"path": "/a", "content": ["hunter2"]}]',
            "inputs[0].content",
            "inputs[0].content: Input should be a valid string",
        ),
        (
            '"tags": {"hunter2": "hunter2' + "x" * 20000 + '"}',
            "tags",
            "tags: … is 20007 bytes long; the maximum is 16384",
        ),
        (
            '"tags": {"hunter2": 5, "l": "hunter2"}, "name": ["hunter2"]',
            "name",
            "name: Input should be a valid string; tags.…: Input should be a valid string, got …",
        ),
        (
            '"executors": [{"image": "b", "command": "hunter2"}]',
            "executors[0].command",
            "executors[0].command: Input should be a valid array, got …",
        ),
        (
            '"executors": [{"image": "b", "command": ["c"], "env": {"hunter2=x": ""}}]',
            "executors[0].env",
            "executors[0].env: a variable name must not contain '=', got …",
        ),
        (
            '"resources": {"backend_parameters_strict": true, "backend_parameters": {"hunter2": "hunter2"}}',
            "resources.backend_parameters",
            "resources.backend_parameters: … is not supported (supported: none)",
        ),
    ],
)
def test_values_that_may_be_secret_are_hidden(config, fields, field, reason):
    executors = "" if "executors" in fields else f"{EXECUTORS}, "
    line = logged(rejected(f"{{{executors}{fields}}}".encode(), config))
    assert (line["field"], line["reason"]) == (field, reason)


@pytest.mark.parametrize("end", range(4, 40))
def test_malformed_bodies_are_not_logged(config, end):
    body = b'{"hunter2": "hunter2\\x", hunter2, "x": [hunter2]}'
    line = logged(rejected(body[:end] + b"hunter2", config))
    assert SECRET not in str(line)
    assert "line 1 column" in line["reason"]


def test_a_limit_is_a_field_of_the_line(config):
    executors = '{"executors": [{"image": "b", "command": ["c"]}], "tags": {"k": "' + "x" * 20000 + '"}}'
    assert logged(rejected(executors.encode(), config))["limit"] == 16384


def test_a_group_is_not_logged(config):
    task = parse_task(b'{"executors": [{"image": "b", "command": ["c"]}], "tags": {"group": "hunter2"}}')
    with pytest.raises(InvalidTask) as raised:
        sharing_group(task, Caller(name="me"), config.auth.sharing)
    assert SECRET not in str(logged(raised.value))


def test_unmarked_parts_are_hidden_from_the_log():
    inner = text("{public} {private}", public=Loggable("p"), private=SECRET)
    error = InvalidTask(
        "{field}: {value} and {inner}", "tags", key=SECRET, value=SECRET, inner=joined([inner])
    )
    assert str(error) == "tags.hunter2: hunter2 and p hunter2"
    assert SECRET not in str(logged(error))
    assert (error.field, error.text.reason) == ("tags.hunter2", "tags: … and p …")


def _templates(path):
    """Yield the template of each call that makes an error or a text."""
    makers = {kind.__name__ for kind in HTTP_STATUS} - {"TaskNotFound", "StorageUnavailable"} | {"text"}
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Name(id=name), args=[template, *_]) if name in makers:
                yield f"{path.name}:{node.lineno}", template


def test_templates_of_errors_are_literals():
    modules = Path(poiesis_api.__file__).parent.rglob("*.py")
    found = [one for path in modules if path != Path(errors.__file__) for one in _templates(path)]
    assert len(found) > 50
    assert [place for place, template in found if not isinstance(template, ast.Constant)] == []
