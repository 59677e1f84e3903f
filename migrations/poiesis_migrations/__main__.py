"""Bring a database to the schema of this release, and let the services log in to it.

`python -m poiesis_migrations down VERSION` undoes the migrations after VERSION instead; 0000 undoes all.

Exit 0: done. Exit 1: not done, and the log states the reason; the schema is as it was. Exit 2: invalid
configuration or arguments. Runs at the same time take turns.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from poiesis_migrations import roles, schema
from poiesis_migrations.config import Config, ConfigError
from poiesis_models.logs import configure_logging

logger = logging.getLogger("poiesis_migrations")


def main(arguments: Sequence[str]) -> int:
    """Return the exit code."""
    configure_logging()
    if arguments and (len(arguments), arguments[0]) != (2, "down"):
        logger.error("usage: python -m poiesis_migrations [down VERSION]")
        return 2
    try:
        config = Config.from_env(os.environ)
    except ConfigError as error:
        logger.error("cannot start", extra={"error": str(error)})  # noqa: TRY400
        return 2
    try:
        asyncio.run(_down(config, arguments[1]) if arguments else _up(config))
    except (schema.MigrationFailed, roles.RoleRefused) as error:
        logger.error("%s", error)  # noqa: TRY400
        return 1
    return 0


async def _up(config: Config) -> None:
    await schema.migrate(config)
    await roles.let_services_log_in(config)
    logger.info("the schema is up to date and the services can log in")


async def _down(config: Config, version: str) -> None:
    await schema.undo(config, version)
    logger.info("the schema is that of migration %s", version)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
