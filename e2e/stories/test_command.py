"""As a user of the `poiesis` command I run, follow, find and cancel tasks from a shell."""

import asyncio
import json
import uuid
from pathlib import Path

import pytest

from poiesis_e2e.command import Command, ended
from poiesis_e2e.install import Release
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import TesClient
from poiesis_e2e.waiting import eventually
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e


@pytest.fixture
def poiesis(release: Release, tmp_path: Path) -> Command:
    """Return the command for the release, with an empty home directory."""
    return Command(home=tmp_path, environment={"POIESIS_SERVER": release.url})


@pytest.mark.core
async def test_run_stages_sends_prints_and_returns_exit_code(
    poiesis: Command, images: Images, bucket: Bucket, tmp_path: Path
) -> None:
    await bucket.put("words", b"pear\nfig\n")
    script = tmp_path / "count.sh"
    script.write_text("wc -l </in/words | tee /out/count.txt; exit 3\n")

    code, out, err = await poiesis.run(
        *("run", "--logs", "-i", f"{bucket.url('words')}:/in/words", "-i", f"{script}:/in/count.sh"),
        *("-o", f"/out/*.txt:{bucket.url('results')}", images.busybox, "--", "sh", "/in/count.sh"),
    )

    assert (code, out) == (3, "2\n"), err
    for words in ("QUEUED", "staged 2 files", "EXECUTOR_ERROR"):
        assert words in err
    assert await bucket.text("results/count.txt") == "2\n"


async def test_logs_are_followed_until_cancel(poiesis: Command, client: TesClient, images: Images) -> None:
    tag = f"story={uuid.uuid4().hex}"
    code, out, err = await poiesis.run(
        *("run", "--detach", "--tag", tag, images.busybox, "--"), "sh", "-c", "echo begun; sleep 600"
    )
    task_id = out.strip()
    assert code == 0, err
    client.created.append(task_id)

    following = await poiesis.start("logs", "-f", task_id)
    assert following.stdout is not None
    assert await asyncio.wait_for(following.stdout.readline(), 120) == b"begun\n"
    code, out, err = await poiesis.run("--output", "json", "list", "--tag", tag)
    assert [one["id"] for one in json.loads(out)["tasks"]] == [task_id], err
    assert (await poiesis.run("cancel", task_id))[0] == 0

    assert (await ended(following))[0] == 0
    assert (await poiesis.run("wait", "--quiet", task_id))[0] == 121

    async def canceled() -> bool:
        return (await client.get(task_id))["state"] == "CANCELED"

    await eventually(canceled, "a canceled task")


async def test_info_names_the_server(poiesis: Command) -> None:
    code, out, err = await poiesis.run("--output", "json", "info")
    assert code == 0, err
    assert json.loads(out)["type"]["artifact"] == "tes"
