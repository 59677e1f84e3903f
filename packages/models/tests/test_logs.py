import io
import json
import logging
import sys
from uuid import UUID

import pytest

from poiesis_models import logs
from poiesis_models.logs import JsonFormatter, configure_logging, log_context, masked

TASK = "0b7a2a9e-7d0f-4d9f-9f0a-1f6f0c8a7d11"


def record(message: str = "ended", *args: object, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("poiesis.x", logging.INFO, "x.py", 1, message, args, None)
    vars(made).update(fields)
    return made


def line(made: logging.LogRecord, **fields: str) -> dict[str, object]:
    text = JsonFormatter(**fields).format(made)
    assert "\n" not in text
    found: dict[str, object] = json.loads(text)
    return found


def test_line_has_the_common_keys_first():
    found = line(record("task %s", "ended", task=UUID(TASK), seconds=1.5), owner="ann")
    assert list(found) == ["time", "level", "logger", "message", "owner", "task", "seconds"]
    assert found | {"time": ""} == {
        "time": "",
        "level": "INFO",
        "logger": "poiesis.x",
        "message": "task ended",
        "owner": "ann",
        "task": TASK,
        "seconds": 1.5,
    }


def test_time_is_rfc_3339_in_utc():
    made = record()
    made.created = 0.25
    assert line(made)["time"] == "1970-01-01T00:00:00.250+00:00"


def fail() -> None:
    raise ValueError("bad value")


def failing() -> logging.LogRecord:
    made = record("cannot decide")
    try:
        fail()
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_exception_adds_error_and_traceback():
    found = line(failing())
    assert found["message"] == "cannot decide"
    assert found["error"] == "ValueError: bad value"
    assert "raise ValueError" in str(found["traceback"])


def test_given_error_is_kept():
    made = failing()
    made.error = "another"
    assert line(made)["error"] == "another"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://poiesis:pw@db:5432/p", "postgresql://poiesis:***@db:5432/p"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("{'Authorization': 'Basic dXNlcjpwdw=='}", "{'Authorization': 'Basic ***'}"),
        ("got bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "got bearer ***"),
        (
            "GET https://s3/b/k?X-Amz-Credential=AK%2F1&X-Amz-Date=1&X-Amz-Signature=00ff",
            "GET https://s3/b/k?X-Amz-Credential=***&X-Amz-Date=1&X-Amz-Signature=***",
        ),
        ("s3://bucket/a:b@c", "s3://bucket/a:b@c"),
        ("the bearer of the token", "the bearer of the token"),
        ("basic authentication failed", "basic authentication failed"),
        ("https://host:8443/x", "https://host:8443/x"),
    ],
)
def test_credentials_are_masked(text, expected):
    assert masked(text) == expected


def test_every_value_is_masked():
    made = record("connect to %s", "postgresql://u:pw@db", error="postgresql://u:pw@db", all=["x://u:pw@y"])
    assert "pw" not in JsonFormatter().format(made)


def test_context_fields_are_in_all_lines():
    with log_context(request_id="r"):
        with log_context(owner="ann"):
            assert line(record()).items() >= {"request_id": "r", "owner": "ann"}.items()
        assert "owner" not in line(record())
    assert "request_id" not in line(record())


def test_long_values_keep_their_end(monkeypatch):
    monkeypatch.setattr(logs, "_VALUE_CHARACTERS", 4)
    assert line(record("123456"))["message"] == "…3456"


def test_configured_lines_go_to_stderr(monkeypatch):
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        configure_logging("WARNING", task=TASK)
        logging.getLogger("a").info("not shown")
        logging.getLogger("a").warning("shown")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert [
        (found["message"], found["task"]) for found in map(json.loads, stderr.getvalue().splitlines())
    ] == [("shown", TASK)]
