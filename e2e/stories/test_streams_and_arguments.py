"""As a tool author I get my exact arguments, and my streams in the files that I named."""

import pytest

from poiesis_e2e.documents import RunTask, assert_ended, executor_logs, sh, stdout
from poiesis_e2e.storage import Bucket
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

_WORDS = [
    "",
    "two words",
    'a "quoted" word',
    "it's",
    "two\nlines",
    "tab\there",
    "$(HOME)",
    "$$(HOME)",
    "$HOME",
    "$$",
    "$(NAME)",
    "back\\slash",
    "*",
    "-n",
    "naïve ☂",
    " ",
    "",
]


async def test_arguments_and_variables_arrive_as_they_were_sent(run_task: RunTask, images: Images) -> None:
    executor = sh(images.busybox, 'printf "<%s>" "$@"; printf "|%s|%s|" "$NAME" "$EMPTY"', "$0", *_WORDS)
    executor["env"] = {"NAME": "$(PATH) $$(PATH) \"'\n", "EMPTY": ""}
    task = await run_task({"executors": [executor]})

    assert_ended(task, "COMPLETE")
    expected = "".join(f"<{word}>" for word in _WORDS) + "|$(PATH) $$(PATH) \"'\n||"
    assert stdout(task) == expected


@pytest.mark.core
async def test_streams_use_the_named_files(run_task: RunTask, images: Images, bucket: Bucket) -> None:
    executor = sh(images.busybox, "tr a-z A-Z; echo complaint >&2")
    executor |= {
        "stdin": "/in/text",
        "stdout": "/out/deep/stdout",
        "stderr": "/err/stderr",
        "workdir": "/out",
    }
    task = await run_task(
        {
            "executors": [executor, sh(images.busybox, "cat /out/deep/stdout")],
            "inputs": [{"path": "/in/text", "content": "louder\n"}],
            "outputs": [
                {"path": "/out/deep/stdout", "url": bucket.url("stdout")},
                {"path": "/err/stderr", "url": bucket.url("stderr")},
            ],
        }
    )

    assert_ended(task, "COMPLETE")
    assert await bucket.text("stdout") == "LOUDER\n"
    assert await bucket.text("stderr") == "complaint\n"
    assert stdout(task, 0) == "LOUDER\n"
    assert executor_logs(task)[0].get("stderr") == "complaint\n"
    assert stdout(task, 1) == "LOUDER\n"


async def test_long_log_keeps_its_end(run_task: RunTask, images: Images) -> None:
    task = await run_task({"executors": [sh(images.busybox, "seq 1 200000; echo the end")]})

    assert_ended(task, "COMPLETE")
    text = stdout(task)
    assert text.endswith("199999\n200000\nthe end\n")
    assert 60_000 < len(text) < 70_000
