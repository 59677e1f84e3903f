"""What recorders connect to Postgres with: read from files, because passwords and certificates change."""

from pathlib import Path

from poiesis_api.config import ConfigError, TaskPodConfig
from poiesis_api.taskpod.task import NO_POSTGRES, RecorderPostgres

MOST_BYTES = 64 * 1024  # every task's Secret has a copy


def recorder_postgres(config: TaskPodConfig) -> RecorderPostgres:
    """Return the DSN and the certificate authority; empty with `recorder.transport` gateway.

    Raise ConfigError for a file that is missing, empty or too large.
    """
    if config.recorder.transport != "postgres":
        return NO_POSTGRES
    files = config.recorder_postgres
    dsn = _read("recorderPostgres.dsnFile", files.dsn_file).strip()
    ca = None if files.ca_file is None else _read("recorderPostgres.caFile", files.ca_file)
    return RecorderPostgres(dsn=dsn, ca=ca)


def _read(key: str, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise ConfigError(f"{key}: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{key}: {path} is not UTF-8 text") from error
    if not text.strip() or len(content) > MOST_BYTES:
        raise ConfigError(f"{key}: {path} must have 1 to {MOST_BYTES} bytes, got {len(content)}")
    return text
