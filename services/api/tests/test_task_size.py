"""What all texts of one task may be together, and that every documented limit can be reached."""

import pytest

from poiesis_api.errors import InvalidTask
from poiesis_api.task_size import STRINGS, TEXT_BYTES, check_task_size
from poiesis_models.tes import CONTENT_BYTES, ITEMS, TesTaskRequest

EXECUTOR = {"image": "busybox", "command": ["true"]}
INPUTS = [
    {"name": "n", "description": "d", "url": f"s3://b/{n}", "path": f"/in/{n}", "type": "FILE"}
    for n in range(ITEMS)
]


def task(**fields):
    return TesTaskRequest.model_validate({"executors": [EXECUTOR], **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"inputs": INPUTS},
        {"inputs": [{"url": f"s3://b/{n}", "path": f"/in/{n}"} for n in range(ITEMS)],
         "outputs": [{"url": f"s3://b/{n}", "path": f"/out/{n}"} for n in range(ITEMS)],
         "volumes": [f"/v/{n}" for n in range(ITEMS)],
         "tags": {f"t{n}": "" for n in range(ITEMS)}},
        {"executors": [EXECUTOR | {"env": {f"v{n}": "" for n in range(ITEMS)}}] * 4},
        {"executors": [EXECUTOR | {"command": ["echo", *["x"] * 90_000]}]},
        {"executors": [EXECUTOR] * 1000},
        {"inputs": [{"path": f"/in/{n}", "content": "x" * CONTENT_BYTES} for n in range(30)]},
    ],
    ids=["inputs", "lists", "env", "arguments", "executors", "contents"],
)  # fmt: skip
def test_a_large_task_is_accepted(fields):
    check_task_size(task(**fields), 10 * STRINGS)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"executors": [EXECUTOR | {"env": {f"v{n}": "" for n in range(ITEMS)}}] * 6}, "maximum is 100000"),
        ({"executors": [EXECUTOR | {"command": ["x"] * STRINGS}]}, "has 100001 strings"),
        (
            {"inputs": [{"path": f"/{n}", "content": "x" * CONTENT_BYTES} for n in range(33)]},
            "maximum is 4194304",
        ),
        ({"description": "\u2603" * (TEXT_BYTES // 3 + 1)}, "use url instead of content"),
    ],
    ids=["env", "arguments", "contents", "characters"],
)  # fmt: skip
def test_what_is_more_in_sum_is_refused(fields, words):
    with pytest.raises(InvalidTask, match=words):
        check_task_size(task(**fields), 10 * STRINGS)


def test_short_body_is_not_counted():
    over = task(description="x" * (TEXT_BYTES + 1))
    check_task_size(over, 2 * STRINGS)
    with pytest.raises(InvalidTask):
        check_task_size(over, 2 * STRINGS + 1)
