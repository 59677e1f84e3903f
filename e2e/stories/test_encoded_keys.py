"""As a user of a client that percent-encodes every URL I find my files in S3."""

import pytest

from poiesis_e2e.documents import RunTask, assert_ended, sh, stdout, system_logs
from poiesis_e2e.storage import Bucket
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e


async def test_inputs_accept_encoded_keys_outputs_keep_literal_ones(
    run_task: RunTask, images: Images, bucket: Bucket
) -> None:
    await bucket.put("sub dir/x.txt", b"decoded\n")
    await bucket.put("both%20", b"literal\n")
    await bucket.put("both ", b"not this\n")
    await bucket.put("\u00e9\u2602/a.txt", b"directory\n")
    task = await run_task(
        {
            "executors": [sh(images.busybox, "cat /in/x.txt /in/both /dir/a.txt && echo out >/out/f")],
            "inputs": [
                {"path": "/in/x.txt", "url": bucket.url("sub%20dir/x.txt"), "type": "FILE"},
                {"path": "/in/both", "url": bucket.url("both%20"), "type": "FILE"},
                {"path": "/dir", "url": bucket.url("%C3%A9%E2%98%82"), "type": "DIRECTORY"},
            ],
            "outputs": [{"path": "/out/f", "url": bucket.url("my%20out/f"), "type": "FILE"}],
        }
    )

    assert_ended(task, "COMPLETE")
    assert stdout(task).split() == ["decoded", "literal", "directory"]
    recorded = system_logs(task)
    assert f"used its percent-decoded key instead: {bucket.url('sub dir/x.txt')}" in recorded
    assert "input /in/both" not in recorded
    assert await bucket.get("my%20out/f") == b"out\n"
