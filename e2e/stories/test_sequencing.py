"""As a workflow author I rely on executors running one after the other on the same files."""

from itertools import pairwise

import pytest

from poiesis_e2e.documents import RunTask, assert_ended, executor_logs, exit_codes, seconds, sh, stdout
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e


@pytest.mark.core
async def test_three_executors_share_a_file_and_never_overlap(run_task: RunTask, images: Images) -> None:
    script = 'echo "$0" >>/data/story && cat /data/story && sleep 1'
    task = await run_task(
        {
            "name": "three in a row",
            "executors": [sh(images.busybox, script, word) for word in ("one", "two", "three")],
            "volumes": ["/data"],
        }
    )

    assert_ended(task, "COMPLETE")
    assert exit_codes(task) == [0, 0, 0]
    assert [stdout(task, index) for index in range(3)] == ["one\n", "one\ntwo\n", "one\ntwo\nthree\n"]
    spans = [(seconds(log["start_time"]), seconds(log["end_time"])) for log in executor_logs(task)]
    assert all(end - start >= 1 for start, end in spans)
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans))
