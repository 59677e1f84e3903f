"""Bring a database up to the schema of this release, and let the services log in to it.

Exit 0: the schema is there and both services can log in. Exit 1: it is not, and the log says what is missing;
running again goes on from there. Exit 2: bad configuration. Any number of runs at once are safe.
"""

import asyncio
import logging
import os
import sys

from poiesis_migrations import roles, schema
from poiesis_migrations.config import Config, ConfigError
from poiesis_models.logs import configure_logging

logger = logging.getLogger("poiesis_migrations")


def main() -> int:
    configure_logging()
    try:
        config = Config.from_env(os.environ)
    except ConfigError as error:
        logger.error("cannot start", extra={"error": str(error)})  # noqa: TRY400
        return 2
    try:
        schema.migrate(config)
        asyncio.run(roles.let_services_log_in(config))
    except (schema.MigrationFailed, roles.RoleRefused) as error:
        logger.error("%s", error)  # noqa: TRY400
        return 1
    logger.info("the schema is up to date and the services can log in")
    return 0


if __name__ == "__main__":
    sys.exit(main())
