"""As a user I read inputs from their stores and send outputs to the stores that I choose."""

import hashlib
from collections.abc import Callable

import pytest

from poiesis_e2e.documents import RunTask, assert_ended, only_log, sh, stdout
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import Input
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e


@pytest.mark.core
async def test_inputs_come_from_http_s3_and_literal_content(
    run_task: RunTask,
    images: Images,
    bucket: Bucket,
    serve: Callable[[str, bytes], str],
) -> None:
    binary = bytes(range(256)) * 1000
    await bucket.put("one/file.bin", binary)
    await bucket.put("tree/a.txt", b"a\n")
    await bucket.put("tree/below/b.txt", b"b\n")
    await bucket.put("treetop/not-in-it.txt", b"no\n")
    check = (
        "sha256sum /in/file.bin /in/page.html /in/literal | cut -d ' ' -f 1;"
        "cd /tree && find . -type f | sort && cat a.txt below/b.txt"
    )
    page = b"<p>by http</p>\n" * 1000
    task = await run_task(
        {
            "executors": [sh(images.busybox, check)],
            "inputs": [
                {"path": "/in/file.bin", "url": bucket.url("one/file.bin"), "type": "FILE"},
                {"path": "/in/page.html", "url": serve("page.html", page)},
                {"path": "/in/literal", "content": "naïve ☂\n"},
                {"path": "/tree", "url": bucket.url("tree"), "type": "DIRECTORY"},
            ],
        }
    )

    assert_ended(task, "COMPLETE")
    sums = [hashlib.sha256(data).hexdigest() for data in (binary, page, "naïve ☂\n".encode())]
    assert stdout(task).split() == [*sums, "./a.txt", "./below/b.txt", "a", "b"]


async def test_literal_contents_above_one_mebibyte_in_total(run_task: RunTask, images: Images) -> None:
    contents = [(f"{number:07d}\n" * (128 * 1024 // 8)) for number in range(10)]
    inputs: list[Input] = [
        {"path": f"/in/{number}", "content": content} for number, content in enumerate(contents)
    ]
    task = await run_task(
        {"executors": [sh(images.busybox, "cd /in && sha256sum * | cut -d ' ' -f 1")], "inputs": inputs}
    )

    assert sum(map(len, contents)) > 1024 * 1024
    assert_ended(task, "COMPLETE")
    assert stdout(task).split() == [hashlib.sha256(content.encode()).hexdigest() for content in contents]


@pytest.mark.core
async def test_outputs_go_by_pattern_and_by_directory(
    run_task: RunTask, images: Images, bucket: Bucket
) -> None:
    script = (
        "mkdir -p /out/sub /out/dir/deep && cd /out && echo 1 >a.txt && echo 2 >b.txt && echo 3 >c.log"
        " && echo 4 >.hidden.txt && echo 5 >sub/d.txt && echo 6 >dir/deep/e && : >dir/empty"
    )
    task = await run_task(
        {
            "executors": [sh(images.busybox, script)],
            "outputs": [
                {"path": "/out/*.txt", "path_prefix": "/out", "url": bucket.url("pattern")},
                {"path": "/out/s?b/[a-d].txt", "path_prefix": "/out/", "url": bucket.url("brackets/")},
                {"path": "/out/dir", "url": bucket.url("directory"), "type": "DIRECTORY"},
                {"path": "/out/*.none", "path_prefix": "/out", "url": bucket.url("nothing")},
            ],
        }
    )

    assert_ended(task, "COMPLETE")
    assert await bucket.keys() == [
        "brackets/sub/d.txt",
        "directory/deep/e",
        "directory/empty",
        "pattern/a.txt",
        "pattern/b.txt",
    ]
    assert await bucket.text("directory/deep/e") == "6\n"
    sent = {(log["path"], log["url"], log["size_bytes"]) for log in only_log(task)["outputs"]}
    assert sent == {
        ("/out/a.txt", bucket.url("pattern/a.txt"), "2"),
        ("/out/b.txt", bucket.url("pattern/b.txt"), "2"),
        ("/out/sub/d.txt", bucket.url("brackets/sub/d.txt"), "2"),
        ("/out/dir/deep/e", bucket.url("directory/deep/e"), "2"),
        ("/out/dir/empty", bucket.url("directory/empty"), "0"),
    }


async def test_files_may_be_in_root_and_system_directories(
    run_task: RunTask, images: Images, bucket: Bucket
) -> None:
    script = "cat /in.txt /etc/given.conf >/out.txt && cat /etc/passwd | head -n 1 && echo var >/var/made"
    task = await run_task(
        {
            "executors": [sh(images.busybox, script)],
            "inputs": [
                {"path": "/in.txt", "content": "at the root\n"},
                {"path": "/etc/given.conf", "content": "in /etc\n"},
            ],
            "outputs": [
                {"path": "/out.txt", "url": bucket.url("out.txt")},
                {"path": "/var/made", "url": bucket.url("made")},
            ],
        }
    )

    assert_ended(task, "COMPLETE")
    assert await bucket.text("out.txt") == "at the root\nin /etc\n"
    assert await bucket.text("made") == "var\n"
    assert stdout(task).startswith("root:"), "the image's own /etc is still there"
