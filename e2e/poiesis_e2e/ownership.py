"""Users, their passwords, and the visibility of their tasks."""

import bcrypt
import pytest

from poiesis_e2e.documents import assert_ended, sh, stdout
from poiesis_e2e.tes_client import TesClient, TesError


def users_secret(*users: str) -> dict[str, str]:
    """Return users as `htpasswd -B -C 10` writes them; a user's password is `<name>-password`."""
    hashes = {user: bcrypt.hashpw(f"{user}-password".encode(), bcrypt.gensalt(10)) for user in users}
    return {"htpasswd": "".join(f"{user}:{hashed.decode()}\n" for user, hashed in hashes.items())}


async def assert_a_task_is_its_owners(
    *, owner: TesClient, other: TesClient, root: TesClient, image: str
) -> None:
    """Run a task; assert that its owner and the administrator `root` see it and that `other` does not."""
    task = await owner.run({"executors": [sh(image, "echo mine")]})
    assert_ended(task, "COMPLETE")
    assert stdout(task) == "mine\n"

    for asked in (other.get, other.cancel):
        with pytest.raises(TesError) as refused:
            await asked(task["id"])
        assert refused.value.status == 404
    assert (await other.list_tasks())["tasks"] == []
    for client in (owner, root):
        assert task["id"] in {one["id"] for one in (await client.list_tasks())["tasks"]}
    assert await root.get(task["id"], "FULL") == task
