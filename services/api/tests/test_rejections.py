"""What the log holds of a rejected create."""

import pytest

from poiesis_api.errors import InvalidTask, MalformedBody, shown
from poiesis_api.identity.caller import Caller
from poiesis_api.rejections import log_fields
from poiesis_api.validation import parse_task, sharing_group, validate

SECRET = "hunter2"


def logged(error):
    fields = log_fields(status=400, error=str(error), field=error.field, user="alice", user_agent="tes/0.11")
    return fields["field"], fields["error"]


def rejected(body, config):
    with pytest.raises((InvalidTask, MalformedBody)) as raised:
        validate(parse_task(body), config)
    return raised.value


def test_a_line_names_user_and_program():
    assert log_fields(
        status=429, error="too many", field=None, user="alice", user_agent="tes/0.11" + "x" * 1000
    ) == {
        "status": 429,
        "field": None,
        "error": "too many",
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
    found, error = logged(rejected(body.encode(), config))
    assert found == field
    assert value in error


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ('"inputs": [{"path": "/a", "url": "ftp://u:hunter2@h/x"}]', "inputs[0].url"),
        ('"inputs": [{"path": "/a", "url": "x://h/?signature=hunter2\\"q\'"}]', "inputs[0].url"),
        ('"inputs": [{"path": "/a", "content": ["hunter2"]}]', "inputs[0].content"),
        ('"tags": {"k": "hunter2' + "x" * 20000 + '"}', "tags.k"),
        ('"tags": {"k": 5, "l": "hunter2"}, "name": ["hunter2"]', "name"),
        (
            '"executors": [{"image": "", "command": ["c"], "env": {"T": "hunter2\\u0000"}}]',
            "executors[0].image",
        ),
        ('"executors": [{"image": "b", "command": "hunter2"}]', "executors[0].command"),
        ('"executors": [{"image": "b", "command": ["c"], "env": {"hunter2=x": ""}}]', "executors[0].env"),
    ],
)
def test_values_that_may_be_secret_are_not(config, fields, field):
    executors = "" if "executors" in fields else '"executors": [{"image": "b", "command": ["c"]}], '
    error = rejected(f"{{{executors}{fields}}}".encode(), config)
    found, sentence = logged(error)
    assert found == field
    assert SECRET not in sentence
    assert sentence


def test_a_group_is_not_logged(config):
    task = parse_task(b'{"executors": [{"image": "b", "command": ["c"]}], "tags": {"group": "hunter2"}}')
    with pytest.raises(InvalidTask) as raised:
        sharing_group(task, Caller(name="me"), config.auth.sharing)
    assert SECRET not in logged(raised.value)[1]


@pytest.mark.parametrize("value", ["a'b\"hunter2", "x" * 300 + "'hunter2", "\\'hunter2", '"hunter2"'])
def test_quoted_values_are_left_out_whole(value):
    _, sentence = logged(InvalidTask(f"tags: {shown(value)} is wrong", "tags"))
    assert SECRET not in sentence
