"""Stage every input of a work list, several at a time."""

from poiesis_models.worklist import WorkList, waves
from poiesis_tif.clients import Clients
from poiesis_tif.plan import plan
from poiesis_tif.steps import Staging
from poiesis_transfer import pool
from poiesis_transfer.config import Config
from poiesis_transfer.free_space import FreeSpace
from poiesis_transfer.progress import Progress


def stage(config: Config, work: WorkList, progress: Progress) -> None:
    """Stage every input; raise TransferError."""
    steps = plan(work.inputs)
    with Clients(config) as clients:
        staging = Staging(
            clients=clients,
            contents=config.work_list.parent,
            progress=progress,
            free_space=FreeSpace(config.disk_bytes),
        )

        def one(index: int) -> None:
            progress.found(work.inputs[index], steps[index].stage(staging))

        for wave in waves(work.inputs):
            pool.for_each(wave, one, interrupt=clients.interrupt)
