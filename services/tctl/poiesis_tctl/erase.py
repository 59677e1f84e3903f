"""Erase one owner: delete all tasks of a user now, whatever their age, and the user's name in other tasks.

    python -m poiesis_tctl.erase OWNER [--confirm]

Without --confirm it only counts. It refuses while a task of the owner has not ended, or ended less than an
hour ago: its recorder may still report. An archive in object storage is not changed, and nothing is archived.

Exit 0: erased, or counted. Exit 1: refused, or not complete; run it again. Exit 2: invalid configuration.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence

from pydantic import Field

from poiesis_models.logs import configure_logging
from poiesis_server.settings import ConfigError, PostgresUrl, Settings
from poiesis_tctl import tasks_db
from poiesis_tctl.retention import MOST_TASKS
from poiesis_tctl.retention_db import OwnersTasks, RetentionDb
from poiesis_tctl.tasks_db import DatabaseUnavailable

logger = logging.getLogger(__name__)


class EraseRefused(Exception):
    """Nothing, or not everything, was erased; the message has the reason."""


class EraseSettings(Settings):
    """The part of the controller's settings that this command needs."""

    dsn: PostgresUrl = Field(alias="POIESIS_DSN", description="Postgres as the role poiesis_api; secret")


async def erase(db: RetentionDb, owner: str, *, confirmed: bool) -> OwnersTasks:
    """Return what was found, and erase it if `confirmed`. Raise EraseRefused or DatabaseUnavailable."""
    found = await db.count_of(owner)
    check(owner, found)
    if confirmed:
        while ids := await db.ids_of(owner, MOST_TASKS):
            if not await db.delete_tasks(ids):
                raise EraseRefused(
                    f"{len(ids)} tasks of {owner!r} are locked by other sessions; run it again"
                )
        await db.forget(owner)
        check(owner, await db.count_of(owner))
    return found


def check(owner: str, found: OwnersTasks) -> None:
    """Raise EraseRefused if the owner has tasks that must not be deleted."""
    if found.unfinished:
        raise EraseRefused(f"{found.unfinished} tasks of {owner!r} have not ended; cancel them first")
    if found.recent:
        raise EraseRefused(f"{found.recent} tasks of {owner!r} ended less than an hour ago; wait an hour")


async def run(settings: EraseSettings, owner: str, *, confirmed: bool) -> OwnersTasks:
    """Connect and erase."""
    async with tasks_db.connect(settings.dsn.get_secret_value(), connections=1, home="") as tasks:
        return await erase(RetentionDb(tasks), owner, confirmed=confirmed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(
        prog="poiesis_tctl.erase", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("owner", help="the user's name, as in the claim config.auth.oidc.userClaim")
    parser.add_argument("--confirm", action="store_true", help="erase; without it, only count")
    options = parser.parse_args(arguments)
    configure_logging()
    try:
        found = asyncio.run(run(EraseSettings.from_env(), options.owner, confirmed=options.confirm))
    except ConfigError as error:
        logger.error("cannot start", extra={"error": str(error)})  # noqa: TRY400 - not a defect
        return 2
    except (EraseRefused, DatabaseUnavailable) as error:
        logger.error("cannot erase", extra={"error": str(error)})  # noqa: TRY400
        return 1
    event = "erased tasks" if options.confirm else "found tasks; add --confirm to erase them"
    logger.info(event, extra={"owner": options.owner, "tasks": found.ended, "cancels": found.canceled})
    return 0


if __name__ == "__main__":
    sys.exit(main())
