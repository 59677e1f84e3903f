"""Who sees a task, however its owner has said who they are."""

import pytest

from poiesis_e2e.documents import assert_ended, sh, stdout
from poiesis_e2e.tes_client import TesClient, TesRefused


async def assert_a_task_is_its_owners(
    *, owner: TesClient, other: TesClient, root: TesClient, image: str
) -> None:
    """It runs, and its owner and the administrator `root` see it; `other`, who has no task, does not."""
    task = await owner.run({"executors": [sh(image, "echo mine")]})
    assert_ended(task, "COMPLETE")
    assert stdout(task) == "mine\n"

    for asked in (other.get, other.cancel):
        with pytest.raises(TesRefused) as refused:
            await asked(task["id"])
        assert refused.value.status == 404
    assert (await other.list_tasks())["tasks"] == []
    for client in (owner, root):
        assert task["id"] in {one["id"] for one in (await client.list_tasks())["tasks"]}
    assert await root.get(task["id"], "FULL") == task
